"""Findings of the phantom's column: each asked for by name changes what it should, and a healthy column has none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.errors import ConfigurationError
from models.phantom.anatomy import Anatomy, draw_anatomy
from models.phantom.bodies import Body
from models.phantom.pathology import FRACTURES, KINDS, Finding
from models.phantom.sampling import cut, draw_subject, plane, tissue_at
from models.phantom.slices import SLIVER_SHARE, sagittal_masks
from models.phantom.tissues import Tissue

SEEDS = range(4)


def _only(seed: int, kind: str) -> tuple[Anatomy, Finding]:
    anatomy = draw_anatomy(seed, findings=(kind,), n_lumbar=5)
    (finding,) = anatomy.findings
    assert finding.kind == kind
    return anatomy, finding


def _body(anatomy: Anatomy, name: str) -> Body:
    return next(body for body in anatomy.bodies if body.name == name)


def _pair(anatomy: Anatomy, level: str) -> tuple[Body, Body]:
    """Lower and upper body of a disc."""
    upper, lower = level.split("-")
    return _body(anatomy, lower), _body(anatomy, upper)


def _labelled_height(anatomy: Anatomy, body: Body, v: float) -> float:
    """Extent, mm, of a body's label along its own axis, `v` half-depths behind its centre."""
    steps = np.arange(-25, 25, 0.1)
    points = np.array([body.at(0, v * body.depth_mm / 2, step) for step in steps], np.float32)
    return float((_labels(anatomy, points)[0] == anatomy.bodies.index(body) + 1).sum() * 0.1)


def _labels(anatomy: Anatomy, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Body and disc label and tissue at points."""
    tissue, body, disc, _ = tissue_at(draw_subject(anatomy), points.astype(np.float32))
    return body, disc, tissue


@pytest.mark.parametrize("seed", SEEDS)
def test_a_wedge_fracture_lowers_the_front_of_its_body(seed: int) -> None:
    anatomy, finding = _only(seed, "wedge_fracture")
    body = _body(anatomy, finding.level)
    assert body.wall_height_mm(-1) / body.wall_height_mm(+1) == pytest.approx(finding.size, abs=1e-6)
    assert _labelled_height(anatomy, body, -0.6) < _labelled_height(anatomy, body, 0.6) - 1


@pytest.mark.parametrize("seed", SEEDS)
def test_a_biconcave_fracture_lowers_the_middle_of_its_body(seed: int) -> None:
    anatomy, finding = _only(seed, "biconcave_fracture")
    body = _body(anatomy, finding.level)
    middle = body.height_mm - sum(body.concavity_mm)
    assert middle / body.height_mm == pytest.approx(finding.size, abs=1e-6)
    assert _labelled_height(anatomy, body, 0.1) < _labelled_height(anatomy, body, -0.65)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_crush_fracture_lowers_the_whole_body(seed: int) -> None:
    anatomy, finding = _only(seed, "crush_fracture")
    others = [b.height_mm for b in anatomy.bodies[anatomy.first_mobile :] if b.name != finding.level]
    assert _body(anatomy, finding.level).height_mm < 0.95 * np.median(others)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_collapsed_disc_leaves_its_gap(seed: int) -> None:
    anatomy, finding = _only(seed, "collapsed_disc")
    lower, upper = _pair(anatomy, finding.level)
    gap = np.linalg.norm(upper.endplate_centre(-1) - lower.endplate_centre(+1))
    assert 1.4 < gap < 3.2


@pytest.mark.parametrize("seed", SEEDS)
def test_a_slipped_body_lies_in_front_of_the_one_below_by_the_share_it_names(seed: int) -> None:
    anatomy, finding = _only(seed, "spondylolisthesis")
    lower, upper = _pair(anatomy, finding.level)
    along = lower.axes[1] + upper.axes[1]
    slip = (upper.endplate_centre(-1) - lower.endplate_centre(+1)) @ along / np.linalg.norm(along)
    assert -slip / upper.depth_mm == pytest.approx(finding.size, abs=0.12)


@pytest.mark.parametrize("seed", SEEDS)
def test_scoliosis_has_the_cobb_angle_that_it_names(seed: int) -> None:
    anatomy, finding = _only(seed, "scoliosis")
    roll = np.rad2deg([body.roll_rad for body in anatomy.bodies[anatomy.first_mobile :]])
    assert np.ptp(roll) == pytest.approx(finding.size, abs=6)
    x = [body.centre[0] for body in anatomy.bodies]
    assert np.ptp(x) > 4


def test_a_block_vertebra_has_no_disc_and_no_cortex_between_its_halves() -> None:
    anatomy, finding = next(
        pair for pair in (_only(seed, "block_vertebra") for seed in range(20)) if pair[1].size > 0.5
    )
    lower, upper = _pair(anatomy, finding.level)
    assert finding.level not in {disc.name for disc in anatomy.discs}
    line = np.linspace(lower.at(0, 3, 2), upper.at(0, 3, -2), 80)
    body, disc, tissue = _labels(anatomy, line)
    assert not disc.any()
    assert np.all(body > 0)
    assert np.unique(body).size == 2
    assert Tissue.CORTEX not in tissue


def test_a_schmorl_node_belongs_neither_to_the_body_nor_to_the_disc() -> None:
    anatomy, finding = _only(2, "schmorl_node")
    node = next(blob for blob in anatomy.marrow_blobs if blob.unlabelled)
    body = _body(anatomy, finding.level)
    inward = np.sign((body.centre - node.centre) @ body.axes[2])
    points = np.array([node.centre + inward * step * body.axes[2] for step in (1.5, 2.0, 2.5)])
    labels, discs, tissue = _labels(anatomy, points)
    assert np.all(tissue == Tissue.ANNULUS)
    assert not labels.any()
    assert not discs.any()


def test_modic_change_lies_along_both_endplates_of_its_disc() -> None:
    anatomy, finding = _only(3, "modic_change")
    tissue = {1: Tissue.OEDEMA, 2: Tissue.FATTY_MARROW, 3: Tissue.SCLEROSIS}[int(finding.size)]
    lower, upper = _pair(anatomy, finding.level)
    for body, side in ((lower, 1), (upper, -1)):
        inside = np.array([body.at(u, v, side * (body.height_mm / 2 - 3.2)) for u in (-3, 0, 3) for v in (-3, 0, 3)])
        assert tissue in _labels(anatomy, inside)[2]


def test_transitional_anatomy_squares_s1_or_ties_l5_to_the_sacrum() -> None:
    lumbarised, finding = _only(1, "lumbarised_s1")
    upper, lower = _body(lumbarised, "S1"), _body(lumbarised, "S2")
    gap = np.linalg.norm(upper.endplate_centre(-1) - lower.endplate_centre(+1))
    assert gap == pytest.approx(finding.size, abs=0.7)
    assert upper.taper > 0.9
    middle = (upper.endplate_centre(-1) + lower.endplate_centre(+1))[None] / 2
    body, disc, tissue = _labels(lumbarised, middle)
    assert (body[0], disc[0], tissue[0]) == (0, 0, Tissue.ANNULUS)
    sacralised, finding = _only(1, "sacralised_l5")
    low, high = _pair(sacralised, "L5-S1")
    assert np.linalg.norm(high.endplate_centre(-1) - low.endplate_centre(+1)) == pytest.approx(finding.size, abs=0.7)


@pytest.mark.parametrize(
    ("kind", "tissue"), [("replaced_body", Tissue.REPLACED_MARROW), ("haemangioma", None), ("irradiated_marrow", None)]
)
def test_marrow_findings_change_the_tissue_but_not_the_label(kind: str, tissue: Tissue | None) -> None:
    anatomy, finding = _only(5, kind)
    body = _body(anatomy, finding.level or "S1")
    label, _, seen = _labels(anatomy, body.centre[None])
    assert label[0] == anatomy.bodies.index(body) + 1
    assert seen[0] == tissue if tissue else seen[0] in (Tissue.FATTY_MARROW, Tissue.OEDEMA, Tissue.VEIN)


def test_osteophytes_carry_the_rims_forward() -> None:
    anatomy, finding = _only(6, "osteophytes")
    lower, _ = _pair(anatomy, finding.level)
    tip = lower.at(0, -lower.depth_mm / 2 - 0.4 * finding.size, lower.wall_height_mm(-1) / 2 - 1.5)
    assert lower.osteophyte_mm[1] > 1.4
    assert _labels(anatomy, tip[None])[2][0] in (Tissue.CORTEX, Tissue.MARROW, Tissue.SACRAL_MARROW)


def test_metal_is_a_void_without_a_label() -> None:
    anatomy, _ = _only(7, "metal")
    voids = np.array([blob.centre for blob in anatomy.implants if blob.unlabelled])
    body, disc, tissue = _labels(anatomy, voids)
    assert len(voids) == 8
    assert np.all(tissue == Tissue.GAS)
    assert not body.any()
    assert not disc.any()


def test_a_healthy_subject_has_no_findings_and_refuses_them() -> None:
    for seed in range(30):
        anatomy = draw_anatomy(seed, healthy=True)
        assert anatomy.findings == ()
        assert anatomy.marrow_blobs == anatomy.implants == ()
        assert {body.marrow for body in anatomy.bodies} == {Tissue.MARROW, Tissue.SACRAL_MARROW}
        assert not any(any(body.fused) or any(body.osteophyte_mm) for body in anatomy.bodies)
    with pytest.raises(ConfigurationError, match="healthy"):
        draw_anatomy(0, healthy=True, findings=("scoliosis",))


def test_an_unknown_finding_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="hangnail"):
        draw_anatomy(0, findings=("hangnail",))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sets(st.sampled_from(sorted(KINDS))))
def test_a_subject_has_each_finding_asked_for_once_and_no_other(seed: int, kinds: set[str]) -> None:
    anatomy = draw_anatomy(seed, findings=kinds)
    assert sorted(finding.kind for finding in anatomy.findings) == sorted(kinds)
    assert anatomy.findings == draw_anatomy(seed, findings=kinds).findings
    fractured = [finding.level for finding in anatomy.findings if finding.kind in FRACTURES]
    assert len(fractured) == len(set(fractured))


def test_every_finding_comes_up_by_itself() -> None:
    seen = {finding.kind for seed in range(300) for finding in draw_anatomy(seed).findings}
    assert seen == set(KINDS)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_body_and_disc_labels_never_overlap(kind: str) -> None:
    anatomy, finding = _only(11, kind)
    name = finding.level.split("-")[0] or "L4"
    middle = _body(anatomy, name).centre
    grid = plane(middle, (0, 1, 0), (0, 0, -1), size=128, spacing_mm=1.2, thickness_mm=4)
    slice_ = cut(draw_subject(anatomy), grid, 0)
    assert slice_.body.any()
    assert not np.any((slice_.body > 0) & (slice_.disc > 0))


def test_a_sliver_of_a_body_has_no_label_in_a_training_slice() -> None:
    anatomy = draw_anatomy(8, healthy=True)
    subject, body = draw_subject(anatomy), _body(anatomy, "L3")
    number = anatomy.bodies.index(body) + 1
    slivers = 0
    for offset in np.linspace(0.38, 0.5, 9) * body.width_mm:
        grid = plane(body.at(offset, 0, 0), (0, 1, 0), (0, 0, -1), size=64, spacing_mm=1.0, thickness_mm=4)
        slice_ = cut(subject, grid, 0)
        area = float((slice_.body == number).sum())
        sliver = 0 < area < SLIVER_SHARE * body.height_mm * body.depth_mm
        labelled = sagittal_masks(anatomy, slice_)[0][slice_.body == number]
        assert not labelled.any() if sliver else labelled.all()
        slivers += sliver
    assert slivers

"""The default base models: their tables and what the builder makes of them."""

from __future__ import annotations

import csv
from itertools import pairwise
from pathlib import Path

import numpy as np
import opensim
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohort.loading.base_model import MUSCLE_OF_GROUP, BaseModel, read_base_model
from cohort.loading.strength import WOMEN_OVER_MEN
from models.musculoskeletal import bodies
from models.musculoskeletal.build import build_base_model, build_laid_out
from models.musculoskeletal.differences import MAN, STEPS, TASKS, WOMAN, axial_n
from models.musculoskeletal.tables import (
    FOLDER,
    LUMBAR,
    TABLES,
    Sex,
    Traits,
    base_model_sha256,
    lay_out,
    of_sex,
    read,
    xyz,
)

SEXES: tuple[Sex, ...] = ("male", "female")
PAIRED = ("upper_arm", "forearm", "hand", "thigh", "shank", "foot")
GROUPS = {
    "multifidus": 50,
    "longissimus_thoracis": 42,
    "longissimus_lumborum": 10,
    "iliocostalis_thoracis": 16,
    "iliocostalis_lumborum": 8,
    "psoas": 22,
    "quadratus_lumborum": 36,
    "rectus_abdominis": 2,
    "external_oblique": 12,
    "internal_oblique": 12,
}


@pytest.fixture(scope="module")
def male(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_base_model("male", tmp_path_factory.mktemp("models") / "male.osim")


@pytest.fixture(scope="module")
def female(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_base_model("female", tmp_path_factory.mktemp("models") / "female.osim")


def opened(path: Path) -> tuple[opensim.Model, opensim.State]:
    opensim.Logger.setLevelString("Off")
    model = opensim.Model(str(path))
    state = model.initSystem()
    model.realizePosition(state)
    return model, state


@pytest.mark.parametrize("table", TABLES)
def test_every_number_names_its_source(table: str) -> None:
    with (FOLDER / f"{table}.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert rows
    assert all(row["source"] for row in rows)


def test_same_tables_give_the_same_bytes(male: Path, tmp_path: Path) -> None:
    assert build_base_model("male", tmp_path / "again.osim").read_bytes() == male.read_bytes()


def test_fingerprint_tells_sexes_and_specific_tensions_apart() -> None:
    assert base_model_sha256("male") == base_model_sha256("male", 100.0)
    assert len({base_model_sha256(sex, tension) for sex in SEXES for tension in (46.0, 100.0)}) == 4


def test_unknown_sex_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no base model for sex"):
        build_base_model("O", tmp_path / "x.osim")  # type: ignore[arg-type]


@pytest.mark.parametrize("tension", [0.0, -1.0, float("nan")])
def test_specific_tension_must_be_positive(tmp_path: Path, tension: float) -> None:
    with pytest.raises(ValueError, match="specific tension"):
        build_base_model("male", tmp_path / "x.osim", tension)


def test_strength_is_proportional_to_specific_tension(male: Path, tmp_path: Path) -> None:
    at_100 = read_base_model(male)
    at_46 = read_base_model(build_base_model("male", tmp_path / "weak.osim", 46.0))
    np.testing.assert_allclose(at_46.strength_n, at_100.strength_n * 0.46, rtol=1e-9)
    np.testing.assert_array_equal(at_46.point_m, at_100.point_m)


def test_masses_add_up(male: Path, female: Path) -> None:
    for path, mass in ((male, 75.0), (female, 62.0)):
        model, state = opened(path)
        assert model.getTotalMass(state) == pytest.approx(mass)


def test_statures_are_those_of_the_table(male: Path, female: Path) -> None:
    for path, height in ((male, 1.75), (female, 1.63)):
        assert read_base_model(path).height_m == pytest.approx(height, abs=2e-4)


@pytest.mark.parametrize("sex", SEXES)
def test_bodies_are_what_the_derivation_gives(sex: Sex) -> None:
    assert [dict(row) for row in of_sex(sex, "bodies")] == [dict(row) for row in bodies.rows(sex)]


@pytest.mark.parametrize("sex", SEXES)
def test_trunk_head_and_arms_keep_the_centre_of_mass_of_de_leva(sex: Sex) -> None:
    person = bodies.Person(sex)
    parts = person.parts()
    model = bodies.combine([parts[name] for name in (*LUMBAR, "thorax")])
    rows = {row["segment"]: row for row in of_sex(sex, "segments")}
    published = [
        person.hanging("upper_trunk", np.array([0.0, person.cervicale, 0.0])),
        person.hanging("middle_trunk", np.array([0.0, person.xiphion, 0.0])),
    ]
    below = [part.mass for part in parts.values()]
    assert sum(below) + parts["arm"].mass + parts["hand"].mass == pytest.approx(
        sum(float(row["mass_fraction"]) * (2 if name in PAIRED else 1) for name, row in rows.items())
    )
    whole = bodies.combine(published)
    lumbar_below = model.mass - whole.mass
    assert 0.015 < lumbar_below < 0.05
    moment = whole.mass * whole.centre[1] + lumbar_below * (person.omphalion + person.origin("L5")[1]) / 2.0
    assert model.mass * model.centre[1] == pytest.approx(moment, rel=0.005)


def test_mass_and_centre_of_the_body_are_opensims(male: Path, female: Path) -> None:
    for sex, path in zip(SEXES, (male, female), strict=True):
        model, state = opened(path)
        base = read_base_model(path)
        origin, turn = np.zeros((len(base.bodies), 3)), np.zeros((len(base.bodies), 3, 3))
        for body, parent in enumerate(base.parent):
            above = (np.zeros(3), np.eye(3)) if parent < 0 else (origin[parent], turn[parent])
            origin[body] = above[0] + above[1] @ base.rest_offset_m[body]
            turn[body] = above[1] @ base.rest_rotation[body]
        centre = np.array([o + r @ c for o, r, c in zip(origin, turn, base.com_m, strict=True)])
        ours = base.mass_kg @ centre / base.total_mass_kg
        theirs = model.calcMassCenterPosition(state)
        assert ours == pytest.approx([theirs.get(axis) for axis in range(3)], abs=1e-9), sex


@pytest.mark.parametrize("path", ["male", "female"])
def test_inertias_are_those_of_real_bodies(path: str, request: pytest.FixtureRequest) -> None:
    model, _ = opened(request.getfixturevalue(path))
    for index in range(model.getBodySet().getSize()):
        body = model.getBodySet().get(index)
        moments = np.array([body.getInertia().getMoments().get(axis) for axis in range(3)])
        if body.getName() == "abdomen":
            assert (moments == 0).all()
            assert body.getMass() == 0
        else:
            assert (moments > 0).all()
            assert (moments < moments.sum() - moments).all(), body.getName()


@given(
    masses=st.lists(st.floats(0.1, 10.0), min_size=1, max_size=4),
    height=st.floats(-1.0, 1.0),
)
def test_joining_parts_and_taking_one_away_again_changes_nothing(masses: list[float], height: float) -> None:
    parts = [
        bodies.Part(mass, np.array([0.01 * i, height * i, 0.02]), np.array([0.01, 0.02, 0.015]))
        for i, mass in enumerate(masses)
    ]
    extra = bodies.Part(1.0, np.array([0.1, 0.2, 0.0]), np.array([0.003, 0.002, 0.004]))
    whole = bodies.combine(parts)
    again = bodies.combine([bodies.combine([*parts, extra]), bodies.Part(-1.0, extra.centre, extra.gyration)])
    assert again.mass == pytest.approx(whole.mass)
    np.testing.assert_allclose(again.centre, whole.centre, atol=1e-9)
    np.testing.assert_allclose(again.gyration, whole.gyration, atol=1e-8)


def test_rest_angles_of_the_table_point_each_vertebra_at_the_next_centre() -> None:
    chain = [row for row in read("joints") if row["kind"] == "spine"]
    tilt = 0.0
    for below, above in pairwise(chain):
        tilt += float(below["rest_z_deg"])
        step = xyz(above) - xyz(below)
        assert tilt == pytest.approx(np.degrees(np.arctan2(-step[0], step[1])), abs=1e-6)


def test_women_stand_with_more_lordosis_and_as_upright_a_thorax() -> None:
    man, woman = (lay_out(Traits.of(sex)).posture for sex in SEXES)

    def tilt(axes: np.ndarray) -> float:
        return float(np.degrees(np.arctan2(axes[1, 0], axes[0, 0])))

    assert tilt(woman["pelvis"]) - tilt(man["pelvis"]) == pytest.approx(-7.3)
    assert tilt(woman["thorax"]) == pytest.approx(0.0, abs=1e-6)
    steps = [tilt(woman[level]) - tilt(man[level]) for level in ("pelvis", *LUMBAR, "thorax")]
    assert steps == sorted(steps)


def test_abdomen_is_carried_by_l3_and_stays_upright_at_rest(male: Path) -> None:
    base = read_base_model(male)
    abdomen = base.body("abdomen")
    assert base.bodies[base.parent[abdomen]] == "L3"
    model, state = opened(male)
    turn = model.getBodySet().get("abdomen").getTransformInGround(state).R()
    assert [turn.get(0, 0), turn.get(1, 1)] == pytest.approx([1.0, 1.0])
    crossing = [name for name in base.fascicles if name.startswith(("EO1", "IO1"))]
    assert len(crossing) == 4


@pytest.mark.parametrize("carrier", ["pelvis", "L4", "L1", "thorax"])
def test_abdomen_on_another_body_stays_where_it_was(carrier: str) -> None:
    moved, usual = lay_out(MAN, abdomen_carrier=carrier), lay_out(MAN)
    assert {row["child"]: row["parent"] for row in moved.joints}["abdomen"] == carrier
    np.testing.assert_allclose(moved.body_origin("abdomen"), usual.body_origin("abdomen"), atol=1e-12)
    np.testing.assert_allclose(moved.posture["abdomen"], np.eye(3), atol=1e-7)


def test_female_differs_in_masses_sizes_and_strengths_as_the_table_says(male: Path, female: Path) -> None:
    man, woman = read_base_model(male), read_base_model(female)
    ratio = {(row["structure"], row["quantity"]): float(row["ratio"]) for row in read("sex_ratios")}
    strength = dict(zip(man.fascicles, woman.strength_n / man.strength_n, strict=True))
    assert all(
        value == pytest.approx(ratio[group, "pcsa"]) for group, value in zip(man.group, strength.values(), strict=True)
    )
    np.testing.assert_allclose(woman.vertebral_length_m / man.vertebral_length_m, ratio["lumbar", "height"])
    on = {body: man.point_body == man.body(body) for body in ("L3", "pelvis", "thorax")}
    for body, structure in (("L3", "lumbar"), ("pelvis", "pelvis"), ("thorax", "thorax")):
        for axis, quantity in enumerate(("depth", "height", "width")):
            hers, his = woman.point_m[on[body]][:, axis], man.point_m[on[body]][:, axis]
            np.testing.assert_allclose(hers, his * ratio[structure, quantity], atol=1e-12)
    share = [base.mass_kg[base.body("arm_r")] / base.total_mass_kg for base in (man, woman)]
    assert share == pytest.approx([0.0433, 0.0393], rel=1e-3)


def test_fibres_and_tendon_keep_their_share_of_the_path(male: Path, female: Path) -> None:
    lengths = []
    for path in (male, female):
        model, state = opened(path)
        muscles = [model.getMuscles().get(i) for i in range(model.getMuscles().getSize())]
        lengths.append([(m.getOptimalFiberLength() + m.getTendonSlackLength()) / m.getLength(state) for m in muscles])
    np.testing.assert_allclose(lengths[1], lengths[0], rtol=1e-9)


def mixed(traits: Traits, folder: Path) -> BaseModel:
    return read_base_model(build_laid_out(lay_out(traits), folder / "mixed.osim", "mixed"))


def test_woman_and_man_of_equal_height_and_mass_differ_and_so_does_each_step(tmp_path: Path) -> None:
    loads = {
        name: axial_n(mixed(traits, tmp_path), traits.strength, TASKS[1], height_m=1.70, mass_kg=68.0)
        for name, traits in STEPS.items()
    }
    assert len({tuple(np.round(values)) for values in loads.values()}) == len(STEPS)
    assert (MAN, WOMAN) == (Traits.of("male"), Traits.of("female"))


def test_lumbar_axes_point_to_the_next_joint(male: Path) -> None:
    model, state = opened(male)
    for lower, upper in zip(LUMBAR, (*LUMBAR[1:], "thorax"), strict=True):
        frame, above = model.getBodySet().get(lower), model.getBodySet().get(upper)
        offset = above.findStationLocationInAnotherFrame(state, opensim.Vec3(0), frame)
        assert [offset.get(0), offset.get(2)] == pytest.approx([0.0, 0.0], abs=1e-9)
        assert 0.028 < offset.get(1) < 0.040


def test_lordosis_is_that_of_an_adult(male: Path) -> None:
    model, state = opened(male)
    tilt = [
        np.arctan2(r.get(1, 0), r.get(0, 0))
        for r in (model.getBodySet().get(level).getTransformInGround(state).R() for level in ("L1", "L5"))
    ]
    assert 25.0 < np.degrees(tilt[0] - tilt[1]) < 60.0


def test_210_fascicles_in_mirrored_pairs(male: Path, female: Path) -> None:
    for base in (read_base_model(male), read_base_model(female)):
        assert len(base.fascicles) == 210
        right, left = (np.array([side == name for side in base.side]) for name in ("right", "left"))
        np.testing.assert_array_equal(base.strength_n[right], base.strength_n[left])
        assert [n[:-2] for n, on in zip(base.fascicles, right, strict=True) if on] == [
            n[:-2] for n, on in zip(base.fascicles, left, strict=True) if on
        ]
        first = np.concatenate([[0], np.flatnonzero(np.diff(_fascicle_of_point(base))) + 1, [len(base.point_m)]])
        paths = [base.point_m[a:b] for a, b in pairwise(first)]
        for one, other in zip(paths[0::2], paths[1::2], strict=True):
            np.testing.assert_array_equal(one * [1.0, 1.0, -1.0], other)


def _fascicle_of_point(base: BaseModel) -> np.ndarray:
    listed = [row["fascicle"] for row in read("path_points")]
    count = {name: listed.count(name) for name in dict.fromkeys(listed)}
    return np.repeat(np.arange(len(base.fascicles)), [count[name[:-2]] for name in base.fascicles])


def test_groups_have_their_published_numbers_of_fascicles(male: Path) -> None:
    base = read_base_model(male)
    assert {group: base.group.count(group) for group in dict.fromkeys(base.group)} == GROUPS


def test_drawn_shapes_need_no_files(male: Path) -> None:
    text = male.read_text()
    assert text.count("<Cylinder name=") == 5
    assert text.count("<Ellipsoid name=") == 6
    assert "<Mesh" not in text


def test_trunk_muscles_flex_and_extend_as_they_should(male: Path) -> None:
    model, state = opened(male)
    joint = model.getCoordinateSet().get("L3_L4_FE")
    arm = {
        name: model.getMuscles().get(name).computeMomentArm(state, joint)
        for name in ("LTpL_L1_r", "LTpT_T9_r", "IL_R10_r", "MF_m1t_2_r", "RA_r", "IO1_r")
    }
    assert all(0.04 < arm[name] < 0.08 for name in ("LTpL_L1_r", "LTpT_T9_r", "IL_R10_r", "MF_m1t_2_r"))
    assert all(-0.12 < arm[name] < -0.04 for name in ("RA_r", "IO1_r"))


def test_typical_areas_of_women_and_men_differ_as_the_base_models_do() -> None:
    """Where they did not, a typical woman would be weaker or stronger than the model that stands for her."""
    ratios = {row["structure"]: float(row["ratio"]) for row in read("sex_ratios") if row["quantity"] == "pcsa"}
    for group, muscle in MUSCLE_OF_GROUP.items():
        if muscle is not None:
            assert ratios[group] == WOMEN_OVER_MEN[muscle], group

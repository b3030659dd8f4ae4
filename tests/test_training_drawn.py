"""Annotated exams as training slices: which slices, what is known on them, and how they lie."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from annotated_stores import DRAWN, annotation, exam_of, sparse, spine, subject_of, trunk, write_annotated_store
from test_training import SMALL

from cohort.annotations.store import write_annotation
from cohort.errors import ConfigurationError
from cohort.store.exam import write_exam
from cohort.terms import DISC, MUSCLE_LABELS, MUSCLES, SACRAL_BODY, VERTEBRAL_BODY
from models.training.drawn import ExamSource, array_of, read_drawn, target

BODIES = dataclasses.replace(
    SMALL, name="vertebral_body", classes=("vertebral_body", "sacral_body"), spacing_mm=2.0, size_px=64, crop_px=64
)
DISCS = dataclasses.replace(BODIES, name="disc", classes=("disc",))
MUSCLE = dataclasses.replace(BODIES, name="muscle", plane="axial", classes=MUSCLES)


def _sources(store: Path, *numbers: int) -> list[ExamSource]:
    return [
        ExamSource(exam_of(k), subject_of(k), next((store / "exams").glob(f"??/{exam_of(k)}/exam-*.zarr")))
        for k in numbers
    ]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    write_annotated_store(folder, 3, readers=("A", "B"))
    return folder


def test_only_slices_that_persons_looked_at_are_used_in_standing_order(store: Path) -> None:
    found = read_drawn(store, _sources(store, 0, 1), DISCS, print)
    assert found.images.shape == (2 * 2 * len(DRAWN), 64, 64)
    assert set(found.patients) == {subject_of(0), subject_of(1)}
    assert set(found.readers) == {"A", "B"}
    assert found.exams == tuple(exam_of(k) for k in (0, 1) for _ in range(4))
    masks, known = found.targets(("disc",))
    for number, image, mask, is_known in zip((0, 0, 0, 0, 1, 1, 1, 1), found.images, masks, known, strict=True):
        wanted = spine(number)[1]["disc"][1]  # exam 0 is stored head down
        assert np.array_equal(mask[0, :, 8:56], wanted)
        assert not mask[0, :, :8].any()
        assert not is_known[0, :, :8].any()  # beyond the picture
        body = spine(number)[1]["vertebral_body"][1] > 0
        assert image[:, 8:56][wanted > 0].max() < image[:, 8:56][body].min()
    assert found.regions is None
    assert found.take(np.array([0, 6])).described == "2 slices of 2 exams of 2 patients (by reader: A 1, B 1)"


def test_the_slice_that_was_drawn_on_is_used_where_slices_run_from_left_to_right(tmp_path: Path) -> None:
    stack, arrays = spine(5)
    turned = dataclasses.replace(
        stack, geometry=dataclasses.replace(stack.geometry, position_mm=stack.geometry.position_mm[::-1])
    )
    disc = arrays["disc"].copy()
    disc[0, :30] = 0  # the first slice alone has one disc
    path = tmp_path / "exams" / exam_of(5)[:2] / exam_of(5) / "exam-000000000000.zarr"
    write_exam(path, [turned], {})
    write_annotation(tmp_path, annotation(exam_of(5), [(turned, {"disc": disc})], slices=(0, 1)))
    found = read_drawn(tmp_path, _sources(tmp_path, 5), DISCS, print)
    assert np.array_equal(found.masks[:, 0, :, 8:56], disc[[1, 0]])


def test_bodies_and_muscles_have_their_classes(store: Path) -> None:
    found = read_drawn(store, _sources(store, 2), BODIES, print)
    body = spine(2)[1]["vertebral_body"][1]
    masks, _ = found.targets(("sacral_body", "vertebral_body"))
    assert np.array_equal(masks[0, 0, :, 8:56], body == SACRAL_BODY)
    assert np.array_equal(masks[0, 1, :, 8:56], body == VERTEBRAL_BODY)
    muscles = read_drawn(store, _sources(store, 2), MUSCLE, print)
    labels = trunk(2)[1]["muscle"][1]
    for k, name in enumerate(MUSCLES):
        both = (labels == MUSCLE_LABELS[name, "left"]) | (labels == MUSCLE_LABELS[name, "right"])
        assert np.array_equal(muscles.masks[0, k, 8:56], both)


def test_slices_are_given_at_the_spacing_that_inference_gives_them(store: Path) -> None:
    fine = dataclasses.replace(DISCS, spacing_mm=1.0, size_px=128, crop_px=128)
    found = read_drawn(store, _sources(store, 1), fine, print)
    n = np.count_nonzero(spine(1)[1]["disc"][1])
    assert np.count_nonzero(found.masks[0]) == 4 * n
    wide = dataclasses.replace(MUSCLE, spacing_mm=1.0, size_px=64, crop_px=64)  # 128 mm on 64 px: coarser pixels
    assert np.count_nonzero(read_drawn(store, _sources(store, 1), wide, print).masks[0]) == np.count_nonzero(
        trunk(1)[1]["muscle"][1]
    )


def test_a_picture_larger_than_the_window_is_cut_around_what_is_drawn(store: Path) -> None:
    small = dataclasses.replace(DISCS, size_px=48, crop_px=48)
    found = read_drawn(store, _sources(store, 1), small, print)
    disc = spine(1)[1]["disc"][1]
    rows = np.flatnonzero(disc.any(axis=1))
    first = (rows[0] + rows[-1] + 1) // 2 - 24
    assert 0 < first < 64 - 48  # neither the upper nor the lower end of the picture
    assert np.array_equal(found.masks[0, 0], disc[first : first + 48])


def test_an_exam_that_the_network_could_not_be_given_is_left_out_with_a_line(store: Path) -> None:
    lines: list[str] = []
    fine = dataclasses.replace(DISCS, spacing_mm=0.5)
    with pytest.raises(ConfigurationError, match="none of 1 exams has slices with disc"):
        read_drawn(store, _sources(store, 1), fine, lines.append)
    assert "network_misfit" in lines[0]
    assert exam_of(1) in lines[0]


def test_what_was_drawn_elsewhere_and_not_here_is_unknown_here() -> None:
    discs = spine(0)[1]["disc"][:2].copy()
    first, *_, last = np.unique(np.flatnonzero(discs[1].any(axis=1)))
    discs[1, : last - 3] = 0  # the reader drew the lowest disc alone on this slice
    mask, known = target(discs, 1, "disc")
    assert np.array_equal(mask, discs[1] == DISC)
    assert not known[first : first + 2].any()
    assert known[last - 1 :].all()
    _, known = target(discs, 0, "disc")
    assert known[first:].all()
    assert not known[:first].any()  # cut bodies and discs at the upper edge are not drawn


def test_between_the_topmost_and_the_lowest_a_disc_that_was_left_out_is_unknown() -> None:
    discs = spine(0)[1]["disc"][:2].copy()
    rows = np.flatnonzero(discs[1].any(axis=1))
    middle = rows[2:4]
    discs[1, middle] = 0
    _, known = target(discs, 1, "disc")
    was = spine(0)[1]["disc"][1] == DISC
    assert not known[middle][was[middle]].any()
    assert known[middle][~was[middle]].all()


def test_the_sacrum_is_known_as_far_as_it_is_drawn() -> None:
    body = spine(0)[1]["vertebral_body"][:1]
    bottom = int(np.flatnonzero((body[0] == SACRAL_BODY).any(axis=1))[-1])
    _, known = target(body, 0, "sacral_body")
    assert known[bottom].all()
    assert not known[bottom + 1 :].any()
    lumbar = np.where(body == SACRAL_BODY, 0, body)
    _, known = target(lumbar, 0, "sacral_body")
    assert np.array_equal(known, lumbar[0] > 0)
    _, known = target(lumbar, 0, "vertebral_body")
    assert known[bottom:].all()  # below the lowest body there is none


def test_a_slice_said_to_be_empty_is_known_to_be() -> None:
    nothing = sparse(spine(0)[1]["disc"], (0,))
    for labels, name in ((nothing, "disc"), (sparse(trunk(0)[1]["muscle"], (0,)), "psoas"), (nothing, "sacral_body")):
        mask, known = target(labels, 1, name)
        assert not mask.any()
        assert known.all()


def test_a_muscle_of_one_side_is_known_on_that_side_and_one_that_is_not_drawn_nowhere() -> None:
    labels = trunk(0)[1]["muscle"][:1].copy()
    labels[labels == MUSCLE_LABELS["psoas", "right"]] = 0
    for side in ("left", "right"):
        labels[labels == MUSCLE_LABELS["multifidus", side]] = 0
    mask, known = target(labels, 0, "psoas")
    medial = int(np.flatnonzero(mask.any(axis=0))[0])
    assert known[:, medial:].all()
    assert not known[:, :medial].any()
    assert not target(labels, 0, "multifidus")[1].any()
    assert target(labels, 0, "erector_spinae")[1].all()


def test_a_network_learns_from_one_kind_of_annotation() -> None:
    assert array_of(("psoas", "multifidus")) == "muscle"
    with pytest.raises(ConfigurationError, match="train one of them"):
        array_of(("vertebral_body", "disc"))


def test_a_stack_of_one_slice_teaches(tmp_path: Path) -> None:
    stack, arrays = spine(3)
    one = dataclasses.replace(
        stack,
        image=stack.image[:1],
        geometry=dataclasses.replace(stack.geometry, position_mm=stack.geometry.position_mm[:1]),
    )
    path = tmp_path / "exams" / exam_of(3)[:2] / exam_of(3) / "exam-000000000000.zarr"
    write_exam(path, [one], {})
    drawn = annotation(exam_of(3), [(one, {"disc": arrays["disc"][:1]})], slices=(0,))
    write_annotation(tmp_path, drawn)
    found = read_drawn(tmp_path, _sources(tmp_path, 3), DISCS, print)
    assert len(found.images) == 1
    assert found.masks.any()

"""Annotation stores: what one reader drew on one exam, kept and read back."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cohort.annotations.store import (
    LEVEL_NAMES,
    Annotation,
    annotated_exams,
    annotation_path,
    read_annotation,
    readers_of,
    remove_annotation,
    write_annotation,
)
from cohort.errors import ConfigurationError, StoreError
from cohort.geometry import StackGeometry
from cohort.stacks import ImageStack, LabelledStack
from cohort.store.exam import StoredExam
from cohort.store.labels import read_labels
from cohort.store.publish import sweep_temporary

EXAM = "abcd2345"


def sagittal_stack(*, left_mm: float = 30.0) -> ImageStack:
    position = np.array([[left_mm - 4.0 * k, -80.0, 90.0] for k in range(5)])
    grid = StackGeometry(position, np.array([0, 1.0, 0]), np.array([0, 0, -1.0]), (0.9, 0.8), (12, 10), 4.0)
    return ImageStack("sagittal", 0, np.zeros((5, 12, 10), np.uint16), grid, "frame")


def drawn(stack: ImageStack, *, reader: str = "a", rows: int = 3) -> Annotation:
    disc, levels = np.zeros((2, 5, 12, 10), np.uint8)
    disc[2, 4 : 4 + rows, 3:8] = 1
    levels[2, 4 : 4 + rows, 3:8] = 1 + LEVEL_NAMES.index("L4-L5")
    key = ("sagittal", 0, "disc")
    labelled = [LabelledStack(stack, {"disc": disc}, {})]
    return Annotation(EXAM, reader, "2024-05-06T07:08:09Z", "md.ai", labelled, {key: (2, 3)}, {key: levels})


def test_an_annotation_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    stack = sagittal_stack()
    exam = StoredExam({}, [stack])
    annotation = drawn(stack)

    assert write_annotation(tmp_path, annotation)
    found = read_annotation(tmp_path, exam, EXAM, "a")

    key = ("sagittal", 0, "disc")
    assert (found.exam_id, found.reader, found.tool, found.drawn_at) == (EXAM, "a", "md.ai", "2024-05-06T07:08:09Z")
    assert found.slices == {key: (2, 3)}
    assert np.array_equal(found.labelled[0].labels["disc"], annotation.labelled[0].labels["disc"])
    assert np.array_equal(found.levels[key], annotation.levels[key])
    assert found.content_sha256 == annotation.content_sha256
    assert readers_of(tmp_path, EXAM) == ["a"]
    assert annotated_exams(tmp_path) == [EXAM]


def test_an_annotation_store_is_a_label_store(tmp_path: Path) -> None:
    stack = sagittal_stack()
    write_annotation(tmp_path, drawn(stack))

    (labelled,) = read_labels(annotation_path(tmp_path, EXAM, "a"), StoredExam({}, [stack]))

    assert set(labelled.labels) == {"disc"}


def test_the_same_annotation_is_not_written_again_and_another_takes_its_place(tmp_path: Path) -> None:
    stack = sagittal_stack()
    write_annotation(tmp_path, drawn(stack))
    path = annotation_path(tmp_path, EXAM, "a")
    before = (path / "zarr.json").stat()

    assert not write_annotation(tmp_path, drawn(stack))
    assert (path / "zarr.json").stat() == before

    assert write_annotation(tmp_path, drawn(stack, rows=4))
    found = read_annotation(tmp_path, StoredExam({}, [stack]), EXAM, "a")
    assert np.count_nonzero(found.labelled[0].labels["disc"]) == 20
    assert [entry.name for entry in path.parent.iterdir()] == ["a.zarr"]


def test_readers_have_codes_and_nothing_else(tmp_path: Path) -> None:
    for reader in ("", "Dr. Who", "a/b", "x" * 33, "automatic", "candidate"):
        with pytest.raises(ConfigurationError, match="code"):
            write_annotation(tmp_path, drawn(sagittal_stack(), reader=reader))
    assert not list(tmp_path.iterdir())


WRITES_AND_DIES = """
import os, signal, sys
from pathlib import Path
from test_annotations_store import drawn, sagittal_stack
from cohort.annotations.store import write_annotation
rename, left = os.rename, [int(sys.argv[2])]
def rename_or_die(*paths):
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    rename(*paths)
os.rename = rename_or_die
write_annotation(Path(sys.argv[1]), drawn(sagittal_stack(), rows=4))
os.kill(os.getpid(), signal.SIGKILL)
"""
"""Writes a larger disc and is killed before its n-th rename, or at the end."""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
@pytest.mark.parametrize(("renames", "pixels"), [(0, 15), (1, 15), (2, 15), (3, 20)])
def test_an_annotation_is_never_gone_while_another_takes_its_place(tmp_path: Path, renames: int, pixels: int) -> None:
    """Renamed are the label store within the new annotation, the former annotation, and the new one."""
    stack = sagittal_stack()
    exam = StoredExam({}, [stack])
    write_annotation(tmp_path, drawn(stack))

    command = [sys.executable, "-c", WRITES_AND_DIES, str(tmp_path), str(renames)]
    killed = subprocess.run(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, check=False)

    assert killed.returncode == -signal.SIGKILL
    found = read_annotation(tmp_path, exam, EXAM, "a")
    assert np.count_nonzero(found.labelled[0].labels["disc"]) == pixels
    assert (readers_of(tmp_path, EXAM), annotated_exams(tmp_path)) == (["a"], [EXAM])
    assert write_annotation(tmp_path, drawn(stack, rows=2))
    sweep_temporary(tmp_path, older_than_s=0)
    path = annotation_path(tmp_path, EXAM, "a")
    assert [entry.name for entry in path.parent.iterdir()] == ["a.zarr"]
    assert np.count_nonzero(read_annotation(tmp_path, exam, EXAM, "a").labelled[0].labels["disc"]) == 10


def test_a_removed_annotation_does_not_come_back(tmp_path: Path) -> None:
    stack = sagittal_stack()
    write_annotation(tmp_path, drawn(stack))
    path = annotation_path(tmp_path, EXAM, "a")
    shutil.copytree(path, path.with_name(".former-a.zarr"))  # as a kill leaves it

    assert remove_annotation(tmp_path, EXAM, "a")
    assert readers_of(tmp_path, EXAM) == []
    assert not remove_annotation(tmp_path, EXAM, "a")
    write_annotation(tmp_path, drawn(stack))
    path.rename(path.with_name(".former-a.zarr"))
    assert remove_annotation(tmp_path, EXAM, "a")
    assert list(path.parent.iterdir()) == []


def test_masks_slices_and_levels_must_fit_each_other(tmp_path: Path) -> None:
    annotation = drawn(sagittal_stack())
    key = ("sagittal", 0, "disc")
    for wrong, text in (
        (replace(annotation, slices={}), "list of annotated slices"),
        (replace(annotation, slices={key: (3,)}), "not among the annotated"),
        (replace(annotation, slices={key: (2, 9)}), "ascending numbers"),
        (replace(annotation, levels={key: annotation.levels[key][:, ::-1]}), "outside the mask"),
    ):
        with pytest.raises(ValueError, match=text):
            write_annotation(tmp_path, wrong)


def test_an_annotation_of_another_stack_is_refused(tmp_path: Path) -> None:
    write_annotation(tmp_path, drawn(sagittal_stack()))

    with pytest.raises(StoreError, match="lies elsewhere"):
        read_annotation(tmp_path, StoredExam({}, [sagittal_stack(left_mm=31.0)]), EXAM, "a")

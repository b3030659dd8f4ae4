from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray

from cohort.errors import StoreError
from cohort.geometry import StackGeometry
from cohort.stacks import ImageStack, LabelledStack, Plane
from cohort.store.exam import StoredExam, read_exam, write_exam
from cohort.store.labels import read_labels, write_labels


def image_stack(plane: Plane, index: int, n: int, shape: tuple[int, int] = (16, 12)) -> ImageStack:
    random = np.random.default_rng(n)
    geometry = StackGeometry(
        position_mm=np.array([1 / 3, -20.1, 7.7]) + np.cumsum([4.0] * (n - 1) + [8.1])[:, None] * [0.6, 0.0, 0.8],
        row_dir=np.array([0.8, 0.0, -0.6]),
        col_dir=np.array([0.0, 1.0, 0.0]),
        spacing_mm=(0.7, 1 / 3),
        shape=shape,
        thickness_mm=3.6,
    )
    image = random.integers(0, 65536, (n, *shape), dtype=np.uint16)
    return ImageStack(plane, index, image, geometry, "frame" if index == 0 else None)


STACKS = [image_stack("axial", 1, 3), image_stack("sagittal", 0, 7, (20, 24)), image_stack("axial", 0, 4)]
ATTRIBUTES = {"exam_id": "abc", "sex": "F", "height_m": None, "scanner": {"vendor": "GE", "field_t": 1.5}}


def test_round_trip(tmp_path: Path) -> None:
    write_exam(tmp_path / "exam.zarr", STACKS, ATTRIBUTES)
    exam = read_exam(tmp_path / "exam.zarr")
    assert exam.attributes == ATTRIBUTES
    assert [(stack.plane, stack.index) for stack in exam.stacks] == [("sagittal", 0), ("axial", 0), ("axial", 1)]
    for found, given in zip(exam.stacks, (STACKS[1], STACKS[2], STACKS[0]), strict=True):
        assert np.array_equal(found.image, given.image)
        assert found.image.dtype == np.uint16
        assert found.frame_of_reference_id == given.frame_of_reference_id
        for name in ("position_mm", "row_dir", "col_dir"):
            assert np.array_equal(getattr(found.geometry, name), getattr(given.geometry, name))
        assert found.geometry.spacing_mm == given.geometry.spacing_mm
        assert (found.geometry.shape, found.geometry.thickness_mm) == (given.geometry.shape, 3.6)


def test_layout_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "exam.zarr"
    write_exam(path, STACKS, ATTRIBUTES)
    image = json.loads((path / "sagittal" / "0" / "image" / "zarr.json").read_text())
    assert image["dimension_names"] == ["slice", "row", "column"]
    assert image["chunk_grid"]["configuration"]["chunk_shape"] == [7, 20, 24] == image["shape"]
    codec = image["codecs"][-1]
    assert codec["name"] == "blosc"
    wanted = {"cname": "zstd", "clevel": 3, "shuffle": "bitshuffle"}
    assert {key: codec["configuration"][key] for key in wanted} == wanted
    assert "consolidated_metadata" not in json.loads((path / "zarr.json").read_text())
    assert sum(file.is_file() for file in path.rglob("*")) == 1 + 2 + 3 * 5


def test_xarray_opens_it(tmp_path: Path) -> None:
    write_exam(tmp_path / "exam.zarr", STACKS, ATTRIBUTES)
    with xarray.open_datatree(tmp_path / "exam.zarr", engine="zarr", consolidated=False) as tree:
        stack = tree["sagittal/0"]
        assert stack["image"].dims == ("slice", "row", "column")
        assert np.array_equal(stack["image"].values, STACKS[1].image)
        assert np.array_equal(stack["position_mm"].values, STACKS[1].geometry.position_mm)
        np.testing.assert_allclose(stack.attrs["affine"], STACKS[1].geometry.affine)
        assert tree.attrs["exam_id"] == "abc"


def test_what_is_published_is_not_overwritten(tmp_path: Path) -> None:
    write_exam(tmp_path / "exam.zarr", STACKS, ATTRIBUTES)
    write_exam(tmp_path / "exam.zarr", STACKS[:1], {"exam_id": "other"})
    assert read_exam(tmp_path / "exam.zarr").attributes["exam_id"] == "abc"


def test_nan_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_exam(tmp_path / "exam.zarr", STACKS, {"height_m": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_missing_incomplete_or_other_stores_are_errors(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        read_exam(tmp_path / "nothing.zarr")
    write_exam(tmp_path / "exam.zarr", STACKS, ATTRIBUTES)
    with pytest.raises(StoreError, match="wanted labels"):
        read_labels(tmp_path / "exam.zarr", StoredExam({}, STACKS))
    shutil.rmtree(tmp_path / "exam.zarr" / "sagittal" / "0" / "position_mm")
    with pytest.raises(StoreError, match="position_mm"):
        read_exam(tmp_path / "exam.zarr")


def labelled(stack: ImageStack, *names: str) -> LabelledStack:
    random = np.random.default_rng(0)
    labels = {name: random.integers(0, 9, stack.image.shape, dtype=np.uint8) for name in names}
    return LabelledStack(stack, labels, dict.fromkeys(names, 0.25))


def test_labels_round_trip(tmp_path: Path) -> None:
    write_exam(tmp_path / "exam.zarr", STACKS, ATTRIBUTES)
    exam = read_exam(tmp_path / "exam.zarr")
    given = [labelled(exam.stacks[0], "vertebral_body", "disc"), labelled(exam.stacks[2], "muscle")]
    write_labels(tmp_path / "labels.zarr", given, {"networks": ["a", "b"]})
    found = read_labels(tmp_path / "labels.zarr", exam)
    assert [one.stack for one in found] == [exam.stacks[0], exam.stacks[2]]
    for one, other in zip(found, given, strict=True):
        assert dict(one.uncertainty) == dict(other.uncertainty)
        assert set(one.labels) == set(other.labels)
        assert all(np.array_equal(one.labels[name], other.labels[name]) for name in one.labels)
    with xarray.open_datatree(tmp_path / "labels.zarr", engine="zarr", consolidated=False) as tree:
        assert tree["axial/1/muscle"].dims == ("slice", "row", "column")


def test_labels_that_do_not_fit_are_errors(tmp_path: Path) -> None:
    exam = StoredExam({}, STACKS)
    write_labels(tmp_path / "labels.zarr", [labelled(STACKS[0], "muscle")], {})
    with pytest.raises(StoreError, match="labels of 1 stacks"):
        read_labels(tmp_path / "labels.zarr", StoredExam({}, STACKS[1:]))
    with pytest.raises(StoreError, match="muscle"):
        read_labels(tmp_path / "labels.zarr", StoredExam({}, [image_stack("axial", 1, 5)]))
    wrong = LabelledStack(STACKS[0], {"muscle": np.zeros((1, 2, 3), np.uint8)}, {})
    with pytest.raises(ValueError, match="mask muscle"):
        write_labels(tmp_path / "wrong.zarr", [wrong], {})
    assert not (tmp_path / "wrong.zarr").exists()
    assert len(read_labels(tmp_path / "labels.zarr", exam)) == 1

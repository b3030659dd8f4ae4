from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
import zarr
from zarr.codecs import BloscCodec

from cohort.errors import StoreError
from cohort.geometry import StackGeometry
from cohort.stacks import ImageStack, LabelledStack, Plane
from cohort.store.arrays import MASK_CODEC, POSITION_AXES, VOXEL_AXES, write_array, write_group
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
    wanted = {"cname": "lz4", "clevel": 5, "shuffle": "bitshuffle"}
    assert {key: codec["configuration"][key] for key in wanted} == wanted
    assert "consolidated_metadata" not in json.loads((path / "zarr.json").read_text())
    assert sum(file.is_file() for file in path.rglob("*")) == 1 + 2 + 3 * 5


@pytest.mark.parametrize("values", [STACKS[0].image, STACKS[0].geometry.position_mm, np.zeros((2, 3, 4), np.uint8)])
def test_documents_and_chunks_are_those_that_zarr_writes(tmp_path: Path, values: np.ndarray[Any, Any]) -> None:
    axes = VOXEL_AXES if values.ndim == 3 else POSITION_AXES
    write_group(tmp_path / "ours", {"number": 1.5, "text": None})
    write_array(tmp_path / "ours" / "array", values, axes, MASK_CODEC)
    root = zarr.create_group(tmp_path / "zarr", zarr_format=3, attributes={"number": 1.5, "text": None})
    root.create_array(
        "array",
        data=values,
        chunks=values.shape,
        compressors=BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle", typesize=values.itemsize),
        dimension_names=axes,
        chunk_key_encoding={"name": "default", "separator": "."},
        config={"write_empty_chunks": True},
    )
    written = {file.relative_to(tmp_path / "zarr") for file in (tmp_path / "zarr").rglob("*") if file.is_file()}
    assert written == {file.relative_to(tmp_path / "ours") for file in (tmp_path / "ours").rglob("*") if file.is_file()}
    ours = zarr.open_group(tmp_path / "ours", mode="r")
    assert ours.metadata == root.metadata
    assert ours["array"].metadata == root["array"].metadata
    assert np.array_equal(ours["array"][...], values)


def test_what_the_affine_does_not_say_is_said(tmp_path: Path) -> None:
    write_exam(tmp_path / "exam.zarr", STACKS, ATTRIBUTES)
    attributes = json.loads((tmp_path / "exam.zarr" / "sagittal" / "0" / "zarr.json").read_text())["attributes"]
    geometry = STACKS[1].geometry
    by_affine = np.array([(geometry.affine @ [k, 0, 0, 1])[:3] for k in range(geometry.n_slices)])
    off = np.linalg.norm(by_affine - geometry.position_mm, axis=1).max()
    assert attributes["affine_error_mm"] == pytest.approx(off, abs=1e-3)
    assert off > 1


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

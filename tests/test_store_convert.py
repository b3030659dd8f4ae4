"""From real DICOM files to the store: place of every voxel, damaged files, privacy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
from dicom_exams import AXIAL, FRAME, SAGITTAL, STUDY, sources, write_block, write_slice
from pydicom import dcmread

from cohort.archive.listing import list_files
from cohort.archive.pseudonym import Pseudonyms
from cohort.archive.scan import read_file_rows
from cohort.archive.select import select_series
from cohort.archive.source import FileSource, ImageSource
from cohort.errors import RefusedError
from cohort.rows import FileRow
from cohort.stacks import ImageStack
from cohort.store.convert import ConvertedExam, convert_exam
from cohort.store.exam import read_exam
from pipelines.convert import image_sources

PSEUDONYMS = Pseudonyms(bytes(range(32)))
EXAM = PSEUDONYMS.exam_id(STUDY)


def convert(target: Path, sagittal: list[Path], axial: list[Path]) -> ConvertedExam:
    archive = Path(target.anchor)
    images = {"sagittal": sources(archive, sagittal), "axial": sources(archive, axial)}
    return convert_exam(target, archive=archive, exam_id=EXAM, attributes={}, pseudonyms=PSEUDONYMS, **images)


def flags(converted: ConvertedExam) -> list[tuple[str, str | None, float | None]]:
    return [(flag.reason, flag.structure, flag.value) for flag in converted.quality]


def oblique_cosines(x_deg: float, y_deg: float, z_deg: float) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    a, b, c = np.deg2rad([x_deg, y_deg, z_deg])
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    rotation = about_z @ about_y @ about_x
    return rotation[:, 0], rotation[:, 1]


def write_marked(
    folder: Path, *, n: int, origin: np.ndarray[Any, Any], tilt: tuple[float, float, float], instance_numbers: list[int]
) -> tuple[list[Path], dict[int, np.ndarray[Any, Any]]]:
    """Oblique slices, each with one voxel of its own value, and where DICOM says that voxel is (PS3.3 C.7.6.2.1.1)."""
    row, col = oblique_cosines(*tilt)
    random = np.random.default_rng(n)
    paths, truth = [], {}
    for k in range(n):
        position = origin + 4.4 * k * np.cross(row, col)
        r, c, value = int(random.integers(20)), int(random.integers(16)), 1000 + 50 * n + k
        pixels = np.zeros((20, 16), np.uint16)
        pixels[r, c] = value
        truth[value] = position + c * 0.9 * row + r * 0.6 * col
        paths.append(
            write_slice(
                folder / f"{k}.dcm",
                pixels,
                series="1.2.5",
                position=position,
                orientation=[*row, *col],
                spacing=(0.6, 0.9),
                InstanceNumber=instance_numbers[k],
            )
        )
    return paths, truth


def found_places(stacks: list[ImageStack]) -> dict[int, np.ndarray[Any, Any]]:
    return {
        int(stack.image[tuple(index)]): stack.geometry.to_lps(index)
        for stack in stacks
        for index in np.argwhere(stack.image)
    }


@pytest.mark.parametrize("numbering", ["ascending", "descending", "shuffled"])
def test_every_voxel_of_oblique_stacks_keeps_its_place(tmp_path: Path, numbering: str) -> None:
    sagittal = write_block(tmp_path / "sag", series="1.2.4", n=6)
    axial, truth = [], {}
    tilts = [(-12.0, 3.0, 2.0), (4.0, -2.0, 0.0), (31.0, 1.0, -4.0)]
    for k, tilt in enumerate(tilts):
        n = 5 + k
        numbers = list(range(n))
        if numbering == "descending":
            numbers.reverse()
        elif numbering == "shuffled":
            np.random.default_rng(3).shuffle(numbers)
        paths, places = write_marked(
            tmp_path / f"ax{k}",
            n=n,
            origin=np.array([-80.123, -90.456, -37.789 * k]),
            tilt=tilt,
            instance_numbers=numbers,
        )
        axial += paths
        truth |= places
    target = tmp_path / "exam.zarr"
    converted = convert(target, sagittal, list(np.random.default_rng(0).permutation(np.array(axial))))
    assert (converted.n_axial_stacks, converted.n_axial_slices, converted.quality) == (3, 18, [])
    stacks = [stack for stack in read_exam(target).stacks if stack.plane == "axial"]
    assert [stack.geometry.n_slices for stack in stacks] == [5, 6, 7]
    found = found_places(stacks)
    assert found.keys() == truth.keys()
    assert max(float(np.linalg.norm(found[value] - truth[value])) for value in truth) <= 0.01
    for stack in stacks:
        for index in np.argwhere(stack.image):
            by_affine = (stack.geometry.affine @ [*index, 1.0])[:3]
            assert np.linalg.norm(by_affine - truth[int(stack.image[tuple(index)])]) <= 0.01


def test_parallel_stacks_with_gaps_keep_their_place(tmp_path: Path) -> None:
    sagittal = write_block(tmp_path / "sag", series="1.2.4", n=6)
    axial = [
        path
        for z in (0.0, -35.0, -70.0)
        for path in write_block(tmp_path / "ax", series="1.2.5", n=5, first=(0, 0, z), orientation=AXIAL, gap=4.4)
    ]
    assert convert(tmp_path / "exam.zarr", sagittal, axial).n_axial_stacks == 3
    stacks = [stack for stack in read_exam(tmp_path / "exam.zarr").stacks if stack.plane == "axial"]
    for stack, z in zip(stacks, (0.0, -35.0, -70.0), strict=True):
        np.testing.assert_allclose(stack.geometry.position_mm[:, 2], z + 4.4 * np.arange(5), atol=1e-9)


def test_one_damaged_file_does_not_lose_the_series(tmp_path: Path) -> None:
    sagittal = write_block(tmp_path / "sag", series="1.2.4", n=9)
    sagittal[4].write_bytes(sagittal[4].read_bytes()[:-10])
    converted = convert(tmp_path / "exam.zarr", sagittal, [])
    assert (converted.n_sagittal_slices, converted.n_axial_stacks) == (8, 0)
    assert flags(converted) == [("damaged_file_in_series", "sagittal", 1.0), ("missing_slices", "sagittal", 1.0)]
    (stack,) = read_exam(tmp_path / "exam.zarr").stacks
    np.testing.assert_allclose(np.diff(stack.geometry.slice_distance_mm), [4, 4, 4, 8, 4, 4, 4])


def test_too_few_sagittal_slices_are_refused(tmp_path: Path) -> None:
    sagittal = write_block(tmp_path / "sag", series="1.2.4", n=6)
    with pytest.raises(RefusedError, match="too_few_slices"):
        convert(tmp_path / "exam.zarr", sagittal[:4], [])
    for path in sagittal[:2]:
        path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(RefusedError, match="damaged_pixels"):
        convert(tmp_path / "exam.zarr", sagittal, [])
    sagittal[5].unlink()
    with pytest.raises(RefusedError, match="files_changed") as caught:
        convert(tmp_path / "exam.zarr", sagittal, [])
    assert str(tmp_path) not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sag"]


def test_an_axial_series_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    sagittal = write_block(tmp_path / "sag", series="1.2.4", n=6)
    axial = write_block(tmp_path / "ax", series="1.2.5", n=6, orientation=AXIAL)
    for path in axial:
        path.write_bytes(path.read_bytes()[:-10])
    converted = convert(tmp_path / "exam.zarr", sagittal, axial)
    assert (converted.n_sagittal_slices, converted.n_axial_slices) == (6, 0)
    assert flags(converted) == [("damaged_pixels", "axial", None)]


def test_a_sagittal_series_that_falls_apart_is_flagged(tmp_path: Path) -> None:
    sagittal = write_block(tmp_path / "sag", series="1.2.4", n=12)
    for path in sagittal[5:8]:
        path.unlink()
    converted = convert(tmp_path / "exam.zarr", sagittal[:5] + sagittal[8:], [])
    assert (converted.n_sagittal_slices, converted.n_sagittal_stacks) == (9, 2)
    assert flags(converted) == [("several_sagittal_stacks", "sagittal", 1.0)]


def test_copies_are_flagged(tmp_path: Path) -> None:
    sagittal = write_block(tmp_path / "sag", series="1.2.4", n=6)
    copy = tmp_path / "sag" / "copy.dcm"
    copy.write_bytes(sagittal[0].read_bytes())
    converted = convert(tmp_path / "exam.zarr", [*sagittal, copy], [])
    assert converted.n_sagittal_slices == 6
    assert flags(converted) == [("duplicate_slices", "sagittal", 1.0)]


def test_compression_with_loss_and_uneven_spacing_are_flagged(tmp_path: Path) -> None:
    sagittal = write_block(tmp_path / "sag", series="1.2.4", n=6)
    for path in sagittal[:2]:
        data_set = dcmread(path)
        data_set.LossyImageCompression = "01"
        data_set.ImagePositionPatient[0] += 1.3 if path == sagittal[1] else 0
        data_set.save_as(path)
    converted = convert(tmp_path / "exam.zarr", sagittal, [])
    assert flags(converted) == [("uneven_spacing", "sagittal", 1.0), ("lossy_compression", "sagittal", 2.0)]
    (stack,) = read_exam(tmp_path / "exam.zarr").stacks
    np.testing.assert_allclose(np.diff(stack.geometry.slice_distance_mm), [2.7, 5.3, 4, 4, 4], atol=1e-9)


def test_nothing_of_the_patient_is_in_the_store(tmp_path: Path) -> None:
    secrets = {
        "PatientName": "Zyxwvut^Querida",
        "PatientID": "PID-98765-QQ",
        "IssuerOfPatientID": "Issuer-Qq",
        "AccessionNumber": "ACC-4711-QQ",
        "PatientBirthDate": "19620314",
        "StudyDate": "20110405",
        "SeriesDescription": "T1 Xylophone",
        "ProtocolName": "Protokoll-Qq",
        "StudyDescription": "Beschreibung-Qq",
        "InstitutionName": "Klinikum-Qq",
        "ReferringPhysicianName": "Doktor-Qq",
        "ImageComments": "Kommentar-Qq",
        "StationName": "Station-Qq",
    }
    archive = tmp_path / "Zyxwvut Querida"
    write_block(archive / "sag", series="1.2.840.99.4", n=6, orientation=SAGITTAL, **secrets)
    write_block(archive / "ax", series="1.2.840.99.5", n=6, orientation=AXIAL, **secrets)
    rows = {found[0]: read_file_rows(archive, *found, PSEUDONYMS) for found in list_files(archive)}
    path_of = {row.file_id: archive / relative for relative, of_file in rows.items() for row in of_file}
    selection = select_series([row for of_file in rows.values() for row in of_file])
    assert selection.sagittal is not None
    assert selection.axial is not None
    store = tmp_path / "store"
    chosen = ([path_of[row.file_id] for row in choice.rows] for choice in (selection.sagittal, selection.axial))
    convert(store / "exam.zarr", *chosen)
    written = b"\n".join(
        [repr(row).encode() for row in rows.values()]
        + [str(path.relative_to(store)).encode() + path.read_bytes() for path in store.rglob("*") if path.is_file()]
    ).lower()
    planted = [*secrets.values(), STUDY, FRAME, "1.2.840.99", "Zyxwvut", "Querida", "-Qq", "Xylophone", "1962"]
    for secret in planted:
        assert secret.lower().encode() not in written, secret


def test_rows_of_frames_become_one_source_per_file() -> None:
    place = {"b": FileSource("b.dcm"), "z": FileSource("all.zip", 4), "e": FileSource("e.dcm")}
    rows = [FileRow(file_id="b", size_bytes=1, mtime_ns=1)]
    rows += [FileRow(file_id=file, frame=k, size_bytes=1, mtime_ns=1) for file, k in (("e", 3), ("z", 0), ("e", 1))]
    assert image_sources(rows, lambda row: place[row.file_id]) == (
        ImageSource(place["b"]),
        ImageSource(place["e"], (1, 3)),
        ImageSource(place["z"], (0,)),
    )


def test_the_real_exam(real_data: Path, tmp_path: Path) -> None:
    root = real_data / "real_exam" / "dicom"
    series = {name: sorted((root / name).glob("*.dcm")) for name in ("sagittal_t1", "axial_inphase")}
    converted = convert(tmp_path / "exam.zarr", series["sagittal_t1"], series["axial_inphase"])
    assert converted == ConvertedExam(15, 1, 29, 1, [])
    sagittal, axial = read_exam(tmp_path / "exam.zarr").stacks
    assert sagittal.image.shape == (15, 512, 512)
    assert axial.image.shape == (29, 400, 400)
    assert sagittal.frame_of_reference_id != axial.frame_of_reference_id
    # The first file lies at x = -28 mm, the patient's right: canonical order ends there.
    np.testing.assert_allclose(sagittal.geometry.position_mm[[0, -1], 0], [28, -28])
    with xarray.open_datatree(tmp_path / "exam.zarr", engine="zarr", consolidated=False) as tree:
        assert tree["axial/0/image"].shape == (29, 400, 400)

"""From real files to stacks: copies, damage, containers and multi-frame images."""

from __future__ import annotations

import gzip
import itertools
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from dicom_enhanced import frame_group, item, shared_group, write_enhanced
from dicom_exams import AXIAL, SAGITTAL, decimal, sources, write_block, write_slice
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.uid import ImplicitVRLittleEndian, RLELossless

from cohort.archive.pseudonym import Pseudonyms
from cohort.archive.series import SeriesStacks, read_series
from cohort.archive.source import FileSource, ImageSource
from cohort.errors import RefusedError

PSEUDONYMS = Pseudonyms(bytes(range(32)))
SERIES = "1.2.4"


def read(archive: Path, images: list[ImageSource]) -> SeriesStacks:
    return read_series(archive, images, "axial", pseudonyms=PSEUDONYMS)


def files(archive: Path, paths: list[Path]) -> SeriesStacks:
    return read(archive, sources(archive, paths))


def pixels_of(paths: list[Path]) -> npt.NDArray[Any]:
    return np.stack([dcmread(path).pixel_array for path in paths])


def assert_equal_stacks(found: SeriesStacks, wanted: SeriesStacks) -> None:
    for one, other in zip(found.stacks, wanted.stacks, strict=True):
        assert np.array_equal(one.image, other.image)
        assert np.array_equal(one.geometry.position_mm, other.geometry.position_mm)


# -- single-frame files ------------------------------------------------------------------------------------------------


def test_images_follow_positions_and_not_names_or_numbers(tmp_path: Path) -> None:
    paths = write_block(tmp_path, series=SERIES, n=9)
    names = [tmp_path / f"{name}.dcm" for name in "dgaibhcfe"]
    for k, (path, name) in enumerate(zip(paths, names, strict=True)):
        data_set = dcmread(path)
        data_set.InstanceNumber = (4 * k) % 9
        data_set.SpacingBetweenSlices = 99
        data_set.save_as(name)
    series = files(tmp_path, sorted(names))
    (stack,) = series.stacks
    assert np.array_equal(stack.image, pixels_of(paths))
    np.testing.assert_allclose(np.diff(stack.geometry.slice_distance_mm), 4.0, atol=1e-9)
    assert stack.frame_of_reference_id is not None
    assert stack.frame_of_reference_id.isalnum()
    assert (series.n_slices, series.n_damaged, series.n_duplicates, series.n_missing) == (9, 0, 0, 0)
    assert (series.acquisition["repetition_time_ms"], series.acquisition["scanning_sequence"]) == (550, "SE")


def test_copies_collapse_whatever_their_names_and_encodings(tmp_path: Path) -> None:
    paths = write_block(tmp_path, series=SERIES, n=6)
    shutil.copy(paths[3], tmp_path / "copy.dcm")
    compressed = dcmread(paths[2])
    compressed.compress(RLELossless)
    compressed.SOPInstanceUID = "1.2.3.4"
    compressed.save_as(tmp_path / "compressed.dcm")
    series = files(tmp_path, [*paths, tmp_path / "copy.dcm", tmp_path / "compressed.dcm"])
    assert series.n_duplicates == 2
    assert np.array_equal(series.stacks[0].image, pixels_of(paths))


def test_two_images_at_one_place_are_refused(tmp_path: Path) -> None:
    paths = write_block(tmp_path, series=SERIES, n=6)
    for keyword, value in (("PixelData", bytes(240)), ("RescaleSlope", "3")):
        other = dcmread(paths[2])
        setattr(other, keyword, value)
        other.save_as(tmp_path / "other.dcm")
        with pytest.raises(RefusedError, match="inconsistent_series"):
            files(tmp_path, [*paths, tmp_path / "other.dcm"])


def test_a_damaged_copy_does_not_hurt(tmp_path: Path) -> None:
    paths = write_block(tmp_path, series=SERIES, n=6)
    cut = tmp_path / "cut.dcm"
    cut.write_bytes(paths[0].read_bytes()[:-7])
    series = files(tmp_path, [cut, *paths])
    assert (series.n_slices, series.n_damaged, series.n_duplicates) == (6, 1, 0)


def test_stacks_are_made_anew_without_what_is_damaged(tmp_path: Path) -> None:
    """Two neighbours lost leave a gap of three, which parts the block."""
    paths = write_block(tmp_path, series=SERIES, n=9, orientation=AXIAL)
    for path in paths[4:6]:
        path.write_bytes(path.read_bytes()[:-7])
    series = files(tmp_path, paths)
    assert [stack.geometry.n_slices for stack in series.stacks] == [3, 4]  # cranial first
    assert np.array_equal(series.stacks[1].image, pixels_of(paths[:4]))
    assert series.n_damaged == 2


def test_unsigned_and_signed_slices_share_one_scale(tmp_path: Path) -> None:
    values = np.arange(120).reshape(12, 10)
    for k, kind in enumerate((np.uint16, np.int16, np.uint16, np.int16)):
        place = {"position": (-4.0 * k, 0, 0), "orientation": SAGITTAL}
        write_slice(tmp_path / f"{k}", (values - 50 * (k % 2)).astype(kind), series=SERIES, **place)
    (stack,) = files(tmp_path, sorted(tmp_path.iterdir())).stacks
    assert np.array_equal(stack.image, np.stack([values + 50, values] * 2))


def test_rescale_that_differs_is_applied_and_said(tmp_path: Path) -> None:
    for k in range(5):
        pixels = np.full((12, 10), 100, np.uint16)
        write_slice(tmp_path / f"{k}", pixels, series=SERIES, position=(-4.0 * k, 0, 0), RescaleSlope=f"{1 + k}")
    series = files(tmp_path, sorted(tmp_path.iterdir()))
    assert series.stacks[0].image[:, 0, 0].tolist() == [100, 200, 300, 400, 500]
    assert series.acquisition["rescale_applied"] is True


def test_what_is_odd_is_counted(tmp_path: Path) -> None:
    paths = write_block(tmp_path, series=SERIES, n=6, LossyImageCompression="01", BitsStored=12, HighBit=11)
    series = files(tmp_path, paths)
    assert (series.n_lossy, series.n_masked, series.n_uneven) == (6, 0, 0)
    data_set = dcmread(paths[1])
    data_set.PixelData = (data_set.pixel_array | 0x8000).tobytes()
    data_set.ImagePositionPatient = [decimal(value) for value in (5.5, 0, 0)]
    data_set.save_as(paths[1])
    series = files(tmp_path, paths)
    assert (series.n_masked, series.n_uneven, series.n_slices) == (1, 1, 6)
    assert series.stacks[0].image.max() < 4096


def test_a_file_whose_elements_are_out_of_order_is_read(tmp_path: Path) -> None:
    paths = write_block(tmp_path, series=SERIES, n=5)
    whole = paths[2].read_bytes()
    start = whole.index(b"\x20\x00\x32\x00DS")
    length = 8 + int.from_bytes(whole[start + 6 : start + 8], "little")
    pixels = whole.index(b"\xe0\x7f\x10\x00OW")
    moved = whole[:start] + whole[start + length : pixels] + whole[start : start + length] + whole[pixels:]
    expected = files(tmp_path, paths)
    paths[2].write_bytes(moved)
    assert_equal_stacks(files(tmp_path, paths), expected)


def test_gzip_files_and_members_of_a_zip_give_the_same(tmp_path: Path) -> None:
    paths = write_block(tmp_path, series=SERIES, n=5)
    expected = files(tmp_path, paths)
    with zipfile.ZipFile(tmp_path / "all.zip", "w", zipfile.ZIP_DEFLATED) as archived:
        for path in paths:
            archived.write(path, path.name)
            (tmp_path / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    members = [ImageSource(FileSource("all.zip", k)) for k in range(5)]
    assert_equal_stacks(read(tmp_path, members), expected)
    zipped = [ImageSource(FileSource(f"{path.name}.gz")) for path in paths]
    assert_equal_stacks(read(tmp_path, zipped), expected)
    content = bytearray((tmp_path / f"{paths[1].name}.gz").read_bytes())
    content[len(content) // 2] ^= 0xFF
    (tmp_path / f"{paths[1].name}.gz").write_bytes(content)
    assert read(tmp_path, zipped).n_damaged == 1


def test_a_series_of_which_nothing_can_be_read_is_refused(tmp_path: Path) -> None:
    paths = write_block(tmp_path, series=SERIES, n=3)
    for path in paths:
        path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(RefusedError, match="damaged_pixels"):
        files(tmp_path, paths)
    paths[1].unlink()
    with pytest.raises(RefusedError, match="files_changed") as caught:
        files(tmp_path, paths)
    assert str(tmp_path) not in str(caught.value)


# -- multi-frame files -------------------------------------------------------------------------------------------------

ROTATIONS = st.lists(st.floats(-0.6, 0.6), min_size=3, max_size=3)


def cosines(axis_angle: list[float], order: tuple[int, int, int], signs: tuple[int, int]) -> npt.NDArray[Any]:
    """Row and column direction: an axis order, turned about a vector by its length (Rodrigues)."""
    x, y, z = axis_angle
    angle = float(np.linalg.norm(axis_angle)) or 1.0
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) / angle
    turned = np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k
    return np.stack([turned @ (signs[0] * np.eye(3)[order[0]]), turned @ (signs[1] * np.eye(3)[order[1]])])


@settings(max_examples=40, deadline=None)
@given(
    axis_angles=st.lists(ROTATIONS, min_size=1, max_size=3),
    order=st.sampled_from(list(itertools.permutations(range(3)))),
    signs=st.sampled_from(list(itertools.product((1, -1), repeat=2))),
    shear=st.lists(st.floats(-0.3, 0.3), min_size=2, max_size=2),
    seed=st.integers(0, 2**16),
)
def test_every_voxel_of_a_file_of_several_geometries_has_its_place(
    tmp_path_factory: pytest.TempPathFactory,
    axis_angles: list[list[float]],
    order: tuple[int, int, int],
    signs: tuple[int, int],
    shear: list[float],
    seed: int,
) -> None:
    """Stacks of their own orientation and pixel size, their frames shuffled; each frame marks one voxel."""
    random = np.random.default_rng(seed)
    groups, images, truth = [], [], {}
    for number, axis_angle in enumerate(axis_angles):
        row, col = cosines(axis_angle, order, signs)
        spacing = (0.6 + 0.1 * number, 0.9)
        step = 4.4 * (np.cross(row, col) + shear[0] * row + shear[1] * col)
        origin = random.uniform(-200, 200, 3)
        for k in range(3 + number):
            r, c, value = int(random.integers(8)), int(random.integers(6)), 100 * (number + 1) + k
            images.append(np.zeros((8, 6), np.uint16))
            images[-1][r, c] = value
            position = origin + k * step
            truth[value] = position + c * spacing[1] * row + r * spacing[0] * col
            group = frame_group(position)
            group.PlaneOrientationSequence = [item(ImageOrientationPatient=[decimal(v) for v in (*row, *col)])]
            group.PixelMeasuresSequence = [item(PixelSpacing=[decimal(v) for v in spacing], SliceThickness="4")]
            groups.append(group)
    shuffled = random.permutation(len(groups))
    folder = tmp_path_factory.mktemp("enhanced")
    write_enhanced(
        folder / "e.dcm", np.stack([images[i] for i in shuffled]), [groups[i] for i in shuffled], series=SERIES
    )
    series = read(folder, [ImageSource(FileSource("e.dcm"), tuple(range(len(groups))))])
    found = {
        int(stack.image[tuple(index)]): stack.geometry.to_lps(index)
        for stack in series.stacks
        for index in np.argwhere(stack.image)
    }
    assert found.keys() == truth.keys()
    assert max(float(np.linalg.norm(found[value] - truth[value])) for value in truth) <= 0.01
    assert series.n_slices == len(groups)


def write_frames(
    path: Path, n: int = 6, *, slopes: tuple[float, ...] = (), **attributes: Any
) -> npt.NDArray[np.uint16]:
    """Sagittal frames along the normal, the last first; returns their pixels in that order."""
    pixels = np.random.default_rng(n).integers(0, 4000, (n, 12, 10), dtype=np.uint16)
    frames = [frame_group((4.0 * k, 0, 0)) for k in range(n)]
    for frame, slope in zip(frames, slopes, strict=False):
        frame.PixelValueTransformationSequence = [item(RescaleSlope=decimal(slope), RescaleIntercept="0")]
    write_enhanced(path, pixels, frames, series=SERIES, shared=shared_group(), **attributes)
    return pixels


@pytest.mark.parametrize("syntax", ["native", "implicit", "rle"])
def test_only_the_wanted_frames_are_read(tmp_path: Path, syntax: str) -> None:
    pixels = write_frames(tmp_path / "e.dcm")
    data_set = dcmread(tmp_path / "e.dcm")
    if syntax == "rle":
        data_set.compress(RLELossless)
    elif syntax == "implicit":
        data_set.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    data_set.save_as(tmp_path / "e.dcm", implicit_vr=syntax == "implicit", little_endian=True)
    series = read(tmp_path, [ImageSource(FileSource("e.dcm"), (0, 2, 4))])
    (stack,) = series.stacks
    assert np.array_equal(stack.image, pixels[[4, 2, 0]])
    assert np.diff(stack.geometry.slice_distance_mm).tolist() == [8.0, 8.0]
    assert (series.n_damaged, series.acquisition["repetition_time_ms"]) == (0, 550)
    assert series.acquisition["echo_time_ms"] == 11


def test_rescale_of_frames_is_applied_where_it_differs(tmp_path: Path) -> None:
    pixels = write_frames(tmp_path / "e.dcm", slopes=(1, 2, 1, 2, 1, 2))
    (stack,) = read(tmp_path, [ImageSource(FileSource("e.dcm"), tuple(range(6)))]).stacks
    assert np.array_equal(stack.image[::-1], pixels * np.array([1, 2] * 3, np.uint16)[:, None, None])


def test_frames_behind_the_end_of_a_cut_file_are_left_out(tmp_path: Path) -> None:
    pixels = write_frames(tmp_path / "e.dcm")
    whole = (tmp_path / "e.dcm").read_bytes()
    (tmp_path / "e.dcm").write_bytes(whole[: -pixels[0].nbytes - 2])
    series = read(tmp_path, [ImageSource(FileSource("e.dcm"), tuple(range(6)))])
    assert series.n_damaged == 2
    assert np.array_equal(series.stacks[0].image, pixels[3::-1])


def test_a_damaged_frame_costs_no_other(tmp_path: Path) -> None:
    pixels = write_frames(tmp_path / "e.dcm")
    data_set = dcmread(tmp_path / "e.dcm")
    data_set.compress(RLELossless)
    data_set.save_as(tmp_path / "e.dcm")
    content = bytearray((tmp_path / "e.dcm").read_bytes())
    third = [k for k in range(len(content) - 4) if content[k : k + 4] == b"\xfe\xff\x00\xe0"][-4]
    content[third + 8 : third + 20] = bytes([255] * 12)
    (tmp_path / "e.dcm").write_bytes(content)
    series = read(tmp_path, [ImageSource(FileSource("e.dcm"), tuple(range(6)))])
    assert (series.n_damaged, series.n_missing) == (1, 1)
    assert np.array_equal(series.stacks[0].image, np.delete(pixels, 2, axis=0)[::-1])


def test_frames_that_are_not_there_count_as_damaged(tmp_path: Path) -> None:
    write_frames(tmp_path / "e.dcm")
    assert read(tmp_path, [ImageSource(FileSource("e.dcm"), (0, 1, 2, 17))]).n_damaged == 1
    with pytest.raises(RefusedError, match="damaged_pixels"):
        read(tmp_path, [ImageSource(FileSource("e.dcm"))])


def test_files_of_one_frame_each_make_a_stack(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 4000, (5, 12, 10), dtype=np.uint16)
    for k in range(5):
        write_enhanced(
            tmp_path / f"{k}.dcm",
            pixels[k : k + 1],
            [frame_group((-4.0 * k, 0, 0))],
            series=SERIES,
            shared=shared_group(),
        )
    (stack,) = read(tmp_path, [ImageSource(FileSource(f"{k}.dcm"), (0,)) for k in range(5)]).stacks
    assert np.array_equal(stack.image, pixels)


def test_copies_of_a_multiframe_file_collapse(tmp_path: Path) -> None:
    write_frames(tmp_path / "e.dcm")
    shutil.copy(tmp_path / "e.dcm", tmp_path / "copy.dcm")
    frames = tuple(range(6))
    series = read(tmp_path, [ImageSource(FileSource(name), frames) for name in ("e.dcm", "copy.dcm")])
    assert (series.n_slices, series.n_duplicates) == (6, 6)


def test_real_enhanced_files_of_two_vendors(real_data: Path) -> None:
    corpus = real_data / "dicom_corpus"
    siemens = read(corpus, [ImageSource(FileSource("dcm_qa_enh/Siemens/XA10/6_2.dcm"), tuple(range(6)))])
    (stack,) = siemens.stacks
    np.testing.assert_allclose(
        stack.geometry.position_mm[:, 2], [-5.404, -3.004, -0.604, 1.796, 4.196, 6.596], atol=1e-3
    )
    assert np.array_equal(stack.image, dcmread(corpus / "dcm_qa_enh/Siemens/XA10/6_2.dcm").pixel_array)
    name = "dcm_qa_philips_enh/enh/1901_WIP_3DpCASL_real.dcm.gz"
    philips = read(corpus, [ImageSource(FileSource(name), tuple(range(40)))])
    assert [one.image.shape for one in philips.stacks] == [(40, 96, 96)]
    with gzip.open(corpus / name) as stream:
        assert np.array_equal(philips.stacks[0].image, dcmread(stream).pixel_array)

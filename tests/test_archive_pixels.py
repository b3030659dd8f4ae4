"""Pixels of single files, whatever their encoding, and one scale for those of a series."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from dicom_exams import write_slice
from pydicom import dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    RLELossless,
)

from cohort.archive.header import quiet_pydicom
from cohort.archive.parse import open_dicom, read_frame_elements
from cohort.archive.pixels import PixelFormat, decode_frames, pixel_format, to_common_scale
from cohort.errors import RefusedError

PIXELS = (np.arange(120, dtype=np.uint16) * 30).reshape(12, 10)
ONE = [[(1.0, 0.0)]]


def described(path: Path) -> PixelFormat:
    with path.open("rb") as stream, quiet_pydicom():
        file = open_dicom(stream, random_access=True)
        return pixel_format(file, read_frame_elements(file), n_frames=1)


def decoded(path: Path) -> npt.NDArray[Any] | None:
    """Upright values of a single-frame file; None if it is damaged."""
    pixels = described(path)
    image = np.zeros(pixels.shape, pixels.values)
    with path.open("rb") as stream:
        return None if decode_frames(stream, pixels, {0: image}).damaged else image


def test_one_slice_in_nine_encodings(real_data: Path) -> None:
    files = sorted((real_data / "dicom_corpus" / "dcm_qa_ts").glob("*.dcm"))
    assert len(files) == 9
    images = [decoded(path) for path in files]
    assert images[0] is not None
    assert images[0].shape == (384, 384)
    assert all(image is not None and np.array_equal(image, images[0]) for image in images)
    assert not any(described(path).lossy for path in files)


def test_cut_compressed_files_are_damaged(real_data: Path, tmp_path: Path) -> None:
    for path in sorted((real_data / "dicom_corpus" / "dcm_qa_ts").glob("[4-9].dcm")):
        cut = tmp_path / path.name
        cut.write_bytes(path.read_bytes()[:-5000])
        assert decoded(cut) is None


def test_a_decoder_writes_nothing_to_standard_error(
    real_data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    test_cut_compressed_files_are_damaged(real_data, tmp_path)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("pixels", [PIXELS, PIXELS.astype(np.int16) - 500], ids=["unsigned", "signed"])
@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, RLELossless]
)
def test_stored_values_come_out_of_every_encoding(tmp_path: Path, syntax: str, pixels: npt.NDArray[Any]) -> None:
    path = write_slice(tmp_path / "a", pixels, series="1.2", RescaleSlope="2.5", RescaleIntercept="-7")
    data_set = dcmread(path)
    if syntax == RLELossless:
        data_set.compress(RLELossless)
    elif syntax == ExplicitVRBigEndian:
        data_set.PixelData = pixels.astype(pixels.dtype.newbyteorder(">")).tobytes()
    data_set.file_meta.TransferSyntaxUID = syntax
    list(data_set)  # or elements that were not looked at are written as they were read
    data_set.set_original_encoding(syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian)
    data_set.save_as(path)
    image = decoded(path)
    assert image is not None
    assert np.array_equal(image, pixels)
    assert image.dtype == pixels.dtype


def test_values_of_eight_bits(tmp_path: Path) -> None:
    path = write_slice(tmp_path / "a", PIXELS, series="1.2", BitsAllocated=8, BitsStored=8, HighBit=7)
    data_set = dcmread(path)
    data_set.PixelData = (PIXELS // 15).astype(np.uint8).tobytes()
    data_set["PixelData"].VR = "OB"
    data_set.save_as(path)
    image = decoded(path)
    assert image is not None
    assert np.array_equal(image, PIXELS // 15)


def test_file_without_preamble_is_decoded(tmp_path: Path) -> None:
    path = write_slice(tmp_path / "a", PIXELS, series="1.2")
    whole = path.read_bytes()
    path.write_bytes(whole[whole.index(b"\x08\x00\x08\x00CS") :])
    assert np.array_equal(decoded(path), PIXELS)  # type: ignore[arg-type]


def test_elements_behind_the_pixels_are_not_read_as_pixels(tmp_path: Path) -> None:
    path = write_slice(tmp_path / "a", PIXELS, series="1.2")
    data_set = dcmread(path)
    data_set.add_new(0xFFFCFFFC, "OB", bytes(50))  # DataSetTrailingPadding
    data_set.save_as(path)
    assert np.array_equal(decoded(path), PIXELS)  # type: ignore[arg-type]
    data_set.PixelData = data_set.PixelData[:-20]
    data_set.save_as(path)
    assert decoded(path) is None


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    bits = {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": 12, "HighBit": 11}
    path = write_slice(tmp_path / "a", PIXELS, series="1.2", **bits)
    assert np.array_equal(decoded(path), 4095 - PIXELS.astype(int))  # type: ignore[arg-type]
    # Rescaled values are inverted as well: a + b x = (a + 4095 b) - b (4095 - x), of which the sign is turned.
    assert described(path).scale(2.0, 10.0) == (2.0, -8200.0)
    signed = write_slice(tmp_path / "b", PIXELS.astype(np.int16) - 2000, series="1.2", **bits)
    assert np.array_equal(decoded(signed), 1999 - PIXELS.astype(int))  # type: ignore[arg-type]


@pytest.mark.parametrize("signed", [False, True])
def test_bits_that_belong_to_no_value_are_masked(tmp_path: Path, signed: bool) -> None:
    values = PIXELS.astype(np.int16) % 2048 - (1000 if signed else 0)
    raw = (values.view(np.uint16) & 0x0FFF) | 0xA000
    path = write_slice(tmp_path / "a", raw, series="1.2", BitsStored=12, HighBit=11, PixelRepresentation=int(signed))
    pixels = described(path)
    image = np.zeros(pixels.shape, pixels.values)
    with path.open("rb") as stream:
        assert decode_frames(stream, pixels, {0: image}).masked == {0}
    assert np.array_equal(image, values)
    whole = write_slice(tmp_path / "b", raw, series="1.2", BitsStored=12, HighBit=15)
    assert np.array_equal(decoded(whole), raw)  # type: ignore[arg-type]


def test_pixels_that_are_not_one_grey_sample_are_refused(tmp_path: Path) -> None:
    for wrong in ({"BitsAllocated": 32}, {"SamplesPerPixel": 3}, {"PhotometricInterpretation": "RGB"}, {"Rows": None}):
        with pytest.raises(RefusedError, match="damaged_pixels"):
            described(write_slice(tmp_path / "a", PIXELS, series="1.2", **wrong))


def test_compression_with_loss_is_known_by_attribute_or_transfer_syntax(tmp_path: Path) -> None:
    path = write_slice(tmp_path / "a", PIXELS, series="1.2")
    assert not described(path).lossy
    assert described(write_slice(tmp_path / "b", PIXELS, series="1.2", LossyImageCompression="01")).lossy
    data_set = dcmread(path)
    data_set.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    data_set["PixelData"].VR = "OB"
    data_set["PixelData"].is_undefined_length = True
    data_set.PixelData = b"\xfe\xff\x00\xe0\x00\x00\x00\x00\xfe\xff\x00\xe0\x04\x00\x00\x00\xff\xd8\xff\xd9"
    data_set.save_as(path)
    assert described(path).lossy
    assert decoded(path) is None


def test_missing_or_short_pixels_are_damaged(tmp_path: Path) -> None:
    path = write_slice(tmp_path / "a", PIXELS, series="1.2")
    whole = path.read_bytes()
    for content in (whole[:-100], whole[: -PIXELS.nbytes - 12]):
        path.write_bytes(content)
        assert decoded(path) is None


def test_stored_values_of_one_scale_pass_without_a_copy() -> None:
    stack = PIXELS[None]
    (same,) = to_common_scale([stack], ONE)
    assert np.shares_memory(same, stack)
    (positive,) = to_common_scale([stack.astype(np.int16)], ONE)
    assert positive.dtype == np.uint16
    assert np.array_equal(positive, stack)


def test_signed_values_keep_their_differences_over_the_whole_series() -> None:
    first, second = to_common_scale([PIXELS[None].astype(np.int16) - 500, PIXELS[None].astype(np.int16)], ONE * 2)
    assert np.array_equal(first[0], PIXELS)
    assert np.array_equal(second[0], PIXELS + 500)


def test_rescale_that_differs_from_slice_to_slice_is_applied() -> None:
    ((first, second),) = to_common_scale([np.stack([PIXELS, PIXELS])], [[(1.0, 0.0), (2.0, 10.0)]])
    assert np.array_equal(first, PIXELS)
    assert np.array_equal(second, 2 * PIXELS + 10)


def test_rescaled_values_beyond_16_bit_are_scaled_to_fit() -> None:
    stack = np.array([[[0, 65535]]] * 2, dtype=np.uint16)
    ((first, second),) = to_common_scale([stack], [[(1.0, 0.0), (4.0, 0.0)]])
    assert second.tolist() == [[0, 65535]]
    assert first.tolist() == [[0, 16384]]


def test_rescaled_values_beyond_all_numbers_are_refused() -> None:
    with pytest.raises(RefusedError, match="damaged_pixels"):
        to_common_scale([np.stack([PIXELS, PIXELS])], [[(1e308, 0.0), (2e308, 0.0)]])

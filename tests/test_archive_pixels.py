from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from dicom_exams import write_slice

from cohort.archive.pixels import DecodedPixels, content_sha256, read_pixels, to_common_scale
from cohort.errors import RefusedError

PIXELS = (np.arange(120, dtype=np.uint16) * 30).reshape(12, 10)


def test_one_slice_in_nine_transfer_syntaxes(real_data: Path) -> None:
    files = sorted((real_data / "dicom_corpus" / "dcm_qa_ts").glob("*.dcm"))
    decoded = [read_pixels(path) for path in files]
    assert len(decoded) == 9
    assert decoded[0].shape == (384, 384)
    assert all(np.array_equal(one, decoded[0]) for one in decoded)


def test_cut_compressed_files_are_refused(real_data: Path, tmp_path: Path) -> None:
    for path in sorted((real_data / "dicom_corpus" / "dcm_qa_ts").glob("[4-9].dcm")):
        cut = tmp_path / path.name
        cut.write_bytes(path.read_bytes()[:-5000])
        with pytest.raises(RefusedError) as caught:
            read_pixels(cut)
        assert caught.value.reason == "damaged_pixels"


def test_stored_values_pass(tmp_path: Path) -> None:
    path = write_slice(tmp_path / "a", PIXELS, series="1.2", RescaleSlope="2.5", RescaleIntercept="-7")
    assert np.array_equal(read_pixels(path), PIXELS)
    assert read_pixels(path).dtype == np.uint16
    assert content_sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_file_without_preamble_is_decoded(tmp_path: Path) -> None:
    path = write_slice(tmp_path / "a", PIXELS, series="1.2")
    whole = path.read_bytes()
    path.write_bytes(whole[whole.index(b"\x08\x00\x08\x00CS") :])
    assert np.array_equal(read_pixels(path), PIXELS)


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    path = write_slice(
        tmp_path / "a", PIXELS, series="1.2", PhotometricInterpretation="MONOCHROME1", BitsStored=12, HighBit=11
    )
    assert np.array_equal(read_pixels(path), 4095 - PIXELS)


def test_signed_values_keep_their_differences(tmp_path: Path) -> None:
    signed = PIXELS.astype(np.int16) - 500
    path = write_slice(tmp_path / "a", signed, series="1.2")
    assert np.array_equal(read_pixels(path), PIXELS)


def test_rescale_that_differs_from_slice_to_slice_is_applied() -> None:
    stored = PIXELS.astype(np.int32)
    series = [DecodedPixels(stored, 1.0, 0.0), DecodedPixels(stored, 2.0, 10.0)]
    first, second = to_common_scale(series)
    assert np.array_equal(first, PIXELS)
    assert np.array_equal(second, 2 * PIXELS + 10)


def test_rescaled_values_beyond_16_bit_are_scaled_to_fit() -> None:
    stored = np.array([[0, 65535]], dtype=np.int32)
    first, second = to_common_scale([DecodedPixels(stored, 1.0, 0.0), DecodedPixels(stored, 4.0, 0.0)])
    assert second.tolist() == [[0, 65535]]
    assert first.tolist() == [[0, 16384]]


def test_missing_or_short_pixels_are_refused(tmp_path: Path) -> None:
    path = write_slice(tmp_path / "a", PIXELS, series="1.2")
    for content in (path.read_bytes()[:-100], b"not a DICOM file at all"):
        path.write_bytes(content)
        with pytest.raises(RefusedError, match="damaged_pixels"):
            read_pixels(path)

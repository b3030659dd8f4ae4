"""Rows of compressed files: a .zip and its members, gzip, and what is wrong with them."""

from __future__ import annotations

import dataclasses
import gzip
import warnings
import zipfile
from pathlib import Path

import numpy as np
from dicom_enhanced import frame_group, write_enhanced
from dicom_exams import write_slice
from scanned_files import FRAMES, PIXELS, reasons_of, row_of, rows_of, write_zip


def test_a_zip_is_a_row_and_its_members_are(tmp_path: Path) -> None:
    outside = row_of(write_slice(tmp_path / "in" / "1", PIXELS, series="1.2"))
    one, groups = (tmp_path / "in" / "1").read_bytes(), [frame_group((k, 0, 0)) for k in range(4)]
    enhanced = write_enhanced(tmp_path / "in" / "3", FRAMES, groups, series="1.3").read_bytes()
    members = {"x/": b"", "x/1": one, "x/2": gzip.compress(one), "x/3": enhanced, "x/4": b"text", "x/5": b""}
    path = write_zip(tmp_path / "exam.zip", members)
    (container, *rows) = rows_of(path)
    assert (container.reason, container.container_id, container.member) == ("container", None, None)
    assert [(row.member, row.frame, row.reason) for row in rows] == [
        (1, None, None),
        (2, None, None),
        *((3, k, None) for k in range(4)),
        (4, None, "not_dicom"),
        (5, None, "not_dicom"),
    ]
    assert {row.container_id for row in rows} == {container.file_id}
    assert {row.mtime_ns for row in rows} == {7}
    assert rows[0].size_bytes == len(one)
    placed = dataclasses.replace(
        outside, file_id=rows[0].file_id, container_id=container.file_id, member=1, size_bytes=len(one)
    )
    assert rows[0] == placed
    assert len({row.file_id for row in (container, *rows)}) == 6


def test_members_of_one_name_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "zip"
    with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(3):
            archive.writestr("same", b"text")
    rows = rows_of(path)
    assert len({row.file_id for row in rows}) == 4
    assert rows == rows_of(path)


def test_what_is_wrong_with_compressed_files(tmp_path: Path) -> None:
    whole = write_slice(tmp_path / "whole", PIXELS, series="1.2").read_bytes()
    noise = np.random.default_rng(0).integers(0, 2**16, (300, 300), dtype=np.uint16)
    series_id = row_of(write_slice(tmp_path / "large", noise, series="1.2")).series_id
    (tmp_path / "cut.gz").write_bytes(gzip.compress((tmp_path / "large").read_bytes())[:-9])
    assert (row_of(tmp_path / "cut.gz").reason, row_of(tmp_path / "cut.gz").series_id) == (
        "damaged_container",
        series_id,
    )
    stored = bytearray(write_zip(tmp_path / "stored", {"a": whole, "b": whole}, zipfile.ZIP_STORED).read_bytes())
    stored[stored.index(PIXELS.tobytes())] ^= 1
    (tmp_path / "stored").write_bytes(stored)
    assert reasons_of(tmp_path / "stored") == {"container": 1, "damaged_container": 1, None: 1}
    (tmp_path / "cut.zip").write_bytes(stored[:-30])
    assert reasons_of(tmp_path / "cut.zip") == {"damaged_container": 1}
    nested = write_zip(tmp_path / "nested", {"inner.zip": bytes(stored), "twice": gzip.compress(gzip.compress(whole))})
    assert reasons_of(nested) == {"container": 1, "container_limit": 2}


def test_a_bomb_in_a_zip_is_left_and_what_came_before_stays(tmp_path: Path) -> None:
    """A slice whose pixels go on for a gigabyte of zeros."""
    whole = write_slice(tmp_path / "whole", PIXELS, series="1.2").read_bytes()
    path = tmp_path / "zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("good", whole)
        with archive.open("bomb", "w") as member:
            member.write(whole)
            for _ in range(2**10):
                member.write(bytes(2**20))
        archive.writestr("note", b"text")
    assert path.stat().st_size < 2**21
    assert reasons_of(path) == {"container": 1, None: 1, "container_limit": 2}

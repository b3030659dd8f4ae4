"""Bytes of plain, gzip-compressed and zipped files, and the limits that hold against bombs."""

from __future__ import annotations

import gzip
import io
import os
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cohort.archive.source import (
    ALWAYS_ALLOWED_BYTES,
    LARGEST_DIRECTORY_BYTES,
    LARGEST_RATIO,
    MOST_MEMBERS,
    FileSource,
    LimitedReader,
    compression,
    open_source,
)
from cohort.errors import RefusedError

CONTENT = np.random.default_rng(0).integers(0, 50, 300_000, dtype=np.uint8).tobytes()


def write_zip(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def read(path: Path, member: int | None = None) -> bytes:
    with open_source(path.parent, FileSource(path.name, member)) as stream:
        return stream.read()


def refusal(path: Path, member: int | None = None) -> str | None:
    try:
        read(path, member)
    except RefusedError as error:
        return error.reason
    return None


@pytest.fixture(params=["plain", "gzip", "stored", "deflated", "gzip in zip"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, FileSource]:
    """`CONTENT` in every form; names say nothing about it."""
    path = tmp_path / "file"
    if request.param == "plain":
        path.write_bytes(CONTENT)
    elif request.param == "gzip":
        path.write_bytes(gzip.compress(CONTENT))
    else:
        method = zipfile.ZIP_STORED if request.param == "stored" else zipfile.ZIP_DEFLATED
        content = gzip.compress(CONTENT) if request.param == "gzip in zip" else CONTENT
        write_zip(path, {"first": b"first", "folder/": b"", "second": content}, method)
        return tmp_path, FileSource("file", 2)
    return tmp_path, FileSource("file")


def test_all_forms_give_the_same_bytes(source: tuple[Path, FileSource]) -> None:
    with open_source(*source) as stream:
        assert stream.read() == CONTENT


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from([os.SEEK_SET, os.SEEK_CUR, os.SEEK_END]), st.integers(0, 310_000), st.integers(0, 90_000)
        ),
        max_size=6,
    )
)
def test_all_forms_can_seek(source: tuple[Path, FileSource], steps: list[tuple[int, int, int]]) -> None:
    with open_source(*source) as stream:
        for whence, offset, size in steps:
            here = stream.tell()
            target = {os.SEEK_SET: offset, os.SEEK_CUR: here + offset, os.SEEK_END: len(CONTENT) - offset}[whence]
            target = min(max(target, 0), len(CONTENT))
            assert stream.seek(target) == target
            assert stream.read(size) == CONTENT[target : target + size]
        assert stream.seek(0, os.SEEK_END) == len(CONTENT)


def test_a_dicom_prefix_counts_before_what_a_file_begins_with() -> None:
    assert compression(b"\x1f\x8b".ljust(128, b"\0") + b"DICM") is None
    assert compression(b"PK\x03\x04".ljust(128, b"\0") + b"DICM") is None
    assert compression(b"\x1f\x8b\x08") == "gzip"
    assert compression(b"PK\x05\x06".ljust(22, b"\0")) == "zip"


def test_a_missing_file_is_an_error_of_the_disk(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), open_source(tmp_path, FileSource("nothing")):
        pass


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_a_gzip_file_that_was_cut_off_is_damaged(tmp_path: Path, kept: float) -> None:
    whole = gzip.compress(CONTENT)
    (tmp_path / "cut").write_bytes(whole[: int(len(whole) * kept)])
    assert refusal(tmp_path / "cut") == "damaged_container"


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_wrong_check_sum_is_damage(tmp_path: Path, method: int) -> None:
    path = write_zip(tmp_path / "zip", {"a": CONTENT}, method)
    whole = bytearray(path.read_bytes())
    at = whole.rindex(b"PK\x01\x02") + 16  # CRC-32 in the central directory
    whole[at] ^= 1
    path.write_bytes(whole)
    assert refusal(path, 0) == "damaged_container"
    packed = bytearray(gzip.compress(CONTENT))
    packed[-8] ^= 1
    (tmp_path / "gz").write_bytes(packed)
    assert refusal(tmp_path / "gz") == "damaged_container"


def test_encrypted_members_and_rare_methods_are_not_read(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "zip", {"a": CONTENT})
    whole = bytearray(path.read_bytes())
    whole[6] |= 1
    whole[whole.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(whole)
    assert refusal(path, 0) == "damaged_container"
    rare = write_zip(tmp_path / "rare", {"a": bytes(10**6)}, zipfile.ZIP_BZIP2)
    assert refusal(rare, 0) == "damaged_container"


def test_every_damage_of_a_zip_is_a_reason(tmp_path: Path) -> None:
    whole = write_zip(tmp_path / "zip", {"a": CONTENT[:3000], "b": gzip.compress(CONTENT[:3000])}).read_bytes()
    random = np.random.default_rng(0)
    for k in range(300):
        damaged = bytearray(whole)
        for at in random.integers(0, len(whole), 1 + k % 5):
            damaged[at] = random.integers(256)
        if k % 3 == 0:
            damaged[: 22 + random.integers(200)] = b""
        path = tmp_path / "damaged"
        path.write_bytes(damaged)
        for member in (0, 1):
            assert refusal(path, member) in (None, "damaged_container", "container_limit")


def test_one_level_of_compression_is_opened(tmp_path: Path) -> None:
    inner = write_zip(tmp_path / "inner", {"a": CONTENT}).read_bytes()
    (tmp_path / "gz of gz").write_bytes(gzip.compress(gzip.compress(CONTENT)))
    (tmp_path / "gz of zip").write_bytes(gzip.compress(inner))
    nested = write_zip(tmp_path / "nested", {"zip": inner, "gz": gzip.compress(gzip.compress(CONTENT))})
    assert refusal(tmp_path / "gz of gz") == "container_limit"
    assert refusal(tmp_path / "gz of zip") == "container_limit"
    assert refusal(nested, 0) == "container_limit"
    assert refusal(nested, 1) == "container_limit"
    assert refusal(nested, 2) == "damaged_container"  # there is no third member


def zeros(n_bytes: int) -> bytes:
    """Gzip-compressed zeros, made without holding them."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    parts = [packer.compress(bytes(2**20)) for _ in range(n_bytes // 2**20)]
    return b"".join(parts) + packer.flush()


def test_a_bomb_is_left_soon(tmp_path: Path) -> None:
    bomb = zeros(2**28)
    (tmp_path / "gz").write_bytes(bomb)
    write_zip(tmp_path / "zip", {"a": bomb}, zipfile.ZIP_STORED)
    with zipfile.ZipFile(tmp_path / "deflated", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a", "w") as member:
        for _ in range(2**8):
            member.write(bytes(2**20))
    for name, position in (("gz", None), ("zip", 0), ("deflated", 0)):
        allowed = ALWAYS_ALLOWED_BYTES + LARGEST_RATIO * (tmp_path / name).stat().st_size
        assert allowed < 2**27
        with open_source(tmp_path, FileSource(name, position)) as stream:
            stream.seek(allowed - 2**17)
            with pytest.raises(RefusedError, match="container_limit"):
                stream.seek(allowed + 2**17)
    assert read_all(tmp_path, zeros(2**23)) == 2**23  # a small one passes


def read_all(folder: Path, content: bytes) -> int:
    (folder / "small").write_bytes(content)
    return len(read(folder / "small"))


def test_sizes_that_a_zip_declares_are_not_believed(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "zip", {"a": bytes(2**22)})
    whole = bytearray(path.read_bytes())
    struct.pack_into("<I", whole, whole.rindex(b"PK\x01\x02") + 24, 10)  # uncompressed size
    path.write_bytes(whole)
    assert refusal(path, 0) == "damaged_container"


def test_too_many_members_are_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "zip"
    with zipfile.ZipFile(path, "w") as archive:
        for k in range(MOST_MEMBERS + 1):
            archive.writestr(f"{k}", b"")
    assert refusal(path, 0) == "container_limit"


def test_a_long_list_of_members_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "zip"
    with zipfile.ZipFile(path, "w") as archive:
        for k in range(2**9):
            archive.writestr(f"{k}".ljust(2**15, "x"), b"")
    assert path.stat().st_size > LARGEST_DIRECTORY_BYTES
    assert refusal(path, 0) == "container_limit"


def test_a_limited_reader_reads_no_more_than_its_limit(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT)

    def opened(limit: int) -> LimitedReader:
        return LimitedReader(io.FileIO(tmp_path / "file"), limit=limit, reason="damaged_header")

    with opened(len(CONTENT)) as reader:
        assert reader.read() == CONTENT
        assert reader.read(1) == b""
    with opened(100) as reader:
        assert reader.read(60) == CONTENT[:60]
        reader.seek(1000)
        assert reader.read(40) == CONTENT[1000:1040]
        with pytest.raises(RefusedError, match="damaged_header"):
            reader.read(1)
    with opened(100) as reader, pytest.raises(RefusedError):
        reader.read(2**40)

"""Every file of an archive is listed once, under the same path in every run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cohort.archive.listing import list_files


def make(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(os.fsencode(name))


def paths(root: Path) -> list[str]:
    return sorted(path for path, _, _ in list_files(root))


def test_files_of_all_depths_with_size_and_time(tmp_path: Path) -> None:
    names = [f"{k % 7}/{k % 5}/{k}" for k in range(300)] + ["top"]
    make(tmp_path, *names)
    os.utime(tmp_path / "top", ns=(5, 1_234_567_890_123))
    (tmp_path / "empty" / "folder").mkdir(parents=True)
    found = {path: (size, mtime) for path, size, mtime in list_files(tmp_path)}
    assert sorted(found) == sorted(names)
    assert found["top"] == (3, 1_234_567_890_123)
    assert found["1/1/1"][0] == len("1/1/1")


def test_links_to_directories_are_followed_once_and_loops_end(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    make(outside, "a", "deeper/b")
    root = tmp_path / "root"
    make(root, "inner/c")
    (root / "inner" / "up").symlink_to(root)
    (root / "second").symlink_to(outside)
    (root / "first").symlink_to(outside)
    (root / "deep").symlink_to(outside / "deeper")
    (outside / "deeper" / "loop").symlink_to(outside)
    for _ in range(5):
        assert paths(root) == ["deep/b", "first/a", "inner/c"]


def test_a_directory_counts_before_a_link_to_it(tmp_path: Path) -> None:
    make(tmp_path, "z/deep/a")
    (tmp_path / "link").symlink_to(tmp_path / "z")
    assert paths(tmp_path) == ["z/deep/a"]


def test_a_link_to_a_folder_above_lists_nothing_twice(tmp_path: Path) -> None:
    make(tmp_path, "root/a", "beside")
    (tmp_path / "root" / "above").symlink_to(tmp_path)
    assert paths(tmp_path / "root") == ["a", "above/beside"]


def test_what_cannot_be_examined_is_listed(tmp_path: Path) -> None:
    make(tmp_path, "a")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    (tmp_path / "itself").symlink_to("itself")
    os.mkfifo(tmp_path / "pipe")
    found = {path: size for path, size, _ in list_files(tmp_path)}
    assert found == {"a": 1, "gone": 0, "itself": 0, "pipe": 0}
    assert list(list_files(tmp_path / "nowhere")) == [(".", 0, 0)]


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind the root user")
def test_a_directory_that_cannot_be_listed_is_listed_itself(tmp_path: Path) -> None:
    make(tmp_path, "locked/a", "open/b")
    (tmp_path / "locked").chmod(0)
    try:
        assert paths(tmp_path) == ["locked", "open/b"]
    finally:
        (tmp_path / "locked").chmod(0o700)


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xe9.dcm")
    make(tmp_path, name)
    assert paths(tmp_path) == [name]

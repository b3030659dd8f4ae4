from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cohort.store import layout
from cohort.store.publish import publishing, sweep_temporary

EXAM = "abcdefghijklmnopqrstuvwxyz"
KILLED = """
import os, signal, sys
from pathlib import Path
from cohort.store.publish import publishing
with publishing(Path(sys.argv[1])) as building:
    building.mkdir()
    (building / "half").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_directory_and_a_file_appear_as_a_whole(tmp_path: Path) -> None:
    with publishing(tmp_path / "a" / "x.zarr") as building:
        building.mkdir()
        (building / "part").write_text("1")
        assert not (tmp_path / "a" / "x.zarr").exists()
        assert building.parent == tmp_path / "a"
    with publishing(tmp_path / "a" / "x.json") as building:
        building.write_text("{}")
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["x.json", "x.zarr"]
    assert (tmp_path / "a" / "x.zarr" / "part").read_text() == "1"


def test_after_an_error_nothing_is_left(tmp_path: Path) -> None:
    def fail() -> None:
        with publishing(tmp_path / "x.zarr") as building:
            building.mkdir()
            (building / "part").write_text("1")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_kept(tmp_path: Path) -> None:
    for content in ("first", "second"):
        with publishing(tmp_path / "x.zarr") as building:
            building.mkdir()
            (building / "part").write_text(content)
    assert (tmp_path / "x.zarr" / "part").read_text() == "first"
    assert len(list(tmp_path.iterdir())) == 1


def test_two_workers_at_once_end_with_one_result(tmp_path: Path) -> None:
    target = tmp_path / "x.zarr"
    with publishing(target) as slow:
        slow.mkdir()
        (slow / "part").write_text("slow")
        with publishing(target) as fast:
            fast.mkdir()
            (fast / "part").write_text("fast")
    assert (target / "part").read_text() == "fast"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_a_killed_worker_leaves_nothing_visible(tmp_path: Path) -> None:
    target = layout.exam_store_path(tmp_path, EXAM, "0123456789abcdef")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(target)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not target.exists()
    assert [path.name[:5] for path in target.parent.iterdir()] == [".tmp-"]
    assert sweep_temporary(tmp_path) == 0  # it might still be at work
    assert sweep_temporary(tmp_path, older_than_s=0) == 1
    assert list(target.parent.iterdir()) == []


def test_layout(tmp_path: Path) -> None:
    fingerprint = "0123456789abcdef"
    directory = tmp_path / "exams" / "ab" / EXAM
    assert layout.exam_store_path(tmp_path, EXAM, fingerprint) == directory / "exam-0123456789ab.zarr"
    assert layout.label_store_path(tmp_path, EXAM, fingerprint) == directory / "labels-0123456789ab.zarr"
    assert layout.measure_path(tmp_path, EXAM, fingerprint) == directory / "measure-0123456789ab.json"
    assert layout.review_directory(tmp_path, EXAM) == tmp_path / "review" / "ab" / EXAM


@pytest.mark.parametrize(("exam_id", "fingerprint"), [("../../etc", "0" * 64), (EXAM, "0" * 11), (EXAM, "../" * 6)])
def test_layout_takes_pseudonyms_and_fingerprints_only(tmp_path: Path, exam_id: str, fingerprint: str) -> None:
    with pytest.raises(ValueError, match=r"pseudonym|fingerprint"):
        layout.exam_store_path(tmp_path, exam_id, fingerprint)

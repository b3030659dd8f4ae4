from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cohort.errors import ConfigurationError
from cohort.store import layout
from cohort.store.publish import publishing, replacing, sweep_temporary
from cohort.tables.buckets import create_tables

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

WRITES_AN_EXAM = """
import logging, sys
from pathlib import Path
import numpy as np
from cohort.geometry import StackGeometry
from cohort.stacks import ImageStack
from cohort.store.exam import write_exam
from pipelines.outcome import Result, WorkItem, guarded
logging.disable()
limit = int(sys.argv[2])
if limit:
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
position = np.array([[4.0 * k, 0, 0] for k in range(5)])
geometry = StackGeometry(position, np.array([0, 1.0, 0]), np.array([0, 0, -1.0]), (1.0, 1.0), (200, 200), 4.0)
noise = np.random.default_rng(0).integers(0, 65536, (5, 200, 200), dtype=np.uint16)
def write(item):
    write_exam(Path(sys.argv[1]), [ImageStack("sagittal", k, noise, geometry, None) for k in range(2)], {})
    return Result()
outcome = guarded(write, WorkItem("exam", "convert", "fingerprint"))
print(outcome.status, outcome.reason, outcome.error_type)
"""
ON_A_SMALL_DISK = 'mount -t tmpfs -o size=600k none "$0" && { "$1" -c "$2" "$0/exams/x.zarr" 0; ls -A "$0/exams"; }'
"""Shell: what the child says, and what is visible where it published."""


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


def test_what_vanishes_while_it_is_swept_disturbs_nobody(tmp_path: Path) -> None:
    create_tables(tmp_path)
    left = tmp_path / "tables" / ".tmp-snapshot"
    left.symlink_to(tmp_path / "nowhere")  # found, and gone when it is looked at
    create_tables(tmp_path)
    assert sweep_temporary(tmp_path) == 0
    assert sweep_temporary(tmp_path, older_than_s=0) == 1
    assert not left.is_symlink()


def test_a_file_size_limit_leaves_nothing_visible(tmp_path: Path) -> None:
    pytest.importorskip("resource", reason="no limits of resources on this system")
    target = tmp_path / "exams" / "x.zarr"
    for limit, said, left in ((100_000, "failed disk_full OSError", []), (10_000_000, "ok None None", ["x.zarr"])):
        command = [sys.executable, "-c", WRITES_AN_EXAM, str(target), str(limit)]
        child = subprocess.run(command, capture_output=True, text=True, check=True)
        assert (child.stdout.strip(), child.stderr) == (said, "")
        assert [path.name for path in target.parent.iterdir()] == left


def test_a_full_disk_leaves_nothing_visible(tmp_path: Path) -> None:
    """On a disk of 600 kB, in a mount namespace of the child's own: one stack fits, the second does not."""
    unshare = ["unshare", "--user", "--map-root-user", "--mount"]
    try:
        subprocess.run([*unshare, "mount", "-t", "tmpfs", "none", str(tmp_path)], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a file system of its own cannot be mounted here")
    command = [*unshare, "sh", "-c", ON_A_SMALL_DISK, str(tmp_path), sys.executable, WRITES_AN_EXAM]
    child = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (child.stdout, child.stderr) == ("failed disk_full OSError\n", "")


def test_a_store_is_a_folder_or_a_file_url() -> None:
    assert layout.store_path("relative/store") == Path("relative/store")
    assert layout.store_path("/data/a b#c") == Path("/data/a b#c")
    assert layout.store_path("file:///data/a%20b%23c") == Path("/data/a b#c")
    assert layout.store_path("FILE://localhost/data") == Path("/data")


@pytest.mark.parametrize(
    "url", ["s3://bucket/key", "gs://b", "https://host/x", "file://host/x", "file:///x?y", "file://"]
)
def test_a_store_elsewhere_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigurationError, match="store") as caught:
        layout.store_path(url)
    assert "bucket" not in str(caught.value)
    assert "host" not in str(caught.value)


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


def _write_half(path: Path) -> None:
    path.write_text("ha")
    raise OSError("disk full")


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "curve.csv"
    with replacing(path) as temporary:
        temporary.write_text("old")
    with pytest.raises(OSError, match="full"), replacing(path) as temporary:
        _write_half(temporary)
    assert [(left.name, left.read_text()) for left in tmp_path.iterdir()] == [("curve.csv", "old")]
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"

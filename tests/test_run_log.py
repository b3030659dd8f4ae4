"""The files that a run writes as it goes, and what never gets into them."""

# ruff: noqa: G003, G004, TRY301, TRY400, TRY401 - code of other people logs in every way

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from pipelines.outcome import Outcome, log_failure
from pipelines.run_log import RunLog, run_folder

NAME = "Geheimrat"
RUN = "20260101T000000-abcdef"


def outcome(**changes: object) -> Outcome:
    values = {"exam_id": "abcd", "stage": "convert", "fingerprint": "0123456789abcdef", "status": "ok", "seconds": 1.5}
    return Outcome(**{**values, **changes})  # type: ignore[arg-type]


def log_text(store: Path) -> str:
    return (run_folder(store, RUN) / "run.log").read_text()


def test_one_line_for_each_outcome_readable_before_the_end(tmp_path: Path) -> None:
    with RunLog(tmp_path, RUN) as log:
        log.outcome(outcome(worker="cpu-0", rss_mib=312.5, path=f"exams/{NAME}"))
        log.outcome(outcome(stage="load", status="failed", reason="internal_error", error_type="ValueError"))
        lines = (run_folder(tmp_path, RUN) / "outcomes.jsonl").read_text().splitlines()
    first, second = map(json.loads, lines)
    assert first.pop("finished_at").endswith("+00:00")
    assert first == {
        "run_id": RUN,
        "exam_id": "abcd",
        "stage": "convert",
        "status": "ok",
        "reason": None,
        "error_type": None,
        "seconds": 1.5,
        "rss_mib": 312.5,
        "worker": "cpu-0",
        "fingerprint": "0123456789ab",
    }
    assert (second["reason"], second["error_type"]) == ("internal_error", "ValueError")


def test_notes_and_warnings_have_a_time_and_a_line(tmp_path: Path) -> None:
    with RunLog(tmp_path, RUN) as log:
        log.note("device cpu")
        logging.getLogger("distributed.nanny").warning("Restarting worker")
        logging.getLogger("distributed.nanny").info("Start Nanny")
    logging.getLogger("distributed.nanny").warning("too late")
    first, second = log_text(tmp_path).splitlines()
    assert first[10] == "T"
    assert first.endswith("Z INFO    device cpu")
    assert second.endswith("Z WARNING distributed.nanny: Restarting worker")


def test_numbers_and_addresses_of_other_code_are_kept_and_other_values_are_not(tmp_path: Path) -> None:
    with RunLog(tmp_path, RUN):
        logger = logging.getLogger("distributed.scheduler")
        logger.warning("Worker %s killed by signal %d: %s", "tcp://127.0.0.1:41234", 9, f"/data/{NAME}/1.dcm")
        logger.warning("lost %(n)d of %(what)r", {"n": 3, "what": NAME})
    assert "Worker tcp://127.0.0.1:41234 killed by signal 9: ..." in log_text(tmp_path)
    assert "lost 3 of '...'" in log_text(tmp_path)
    assert NAME not in log_text(tmp_path)


class Seconds:
    """A number of another kind."""

    def __float__(self) -> float:
        return 3.0


def test_a_record_that_cannot_be_put_together_disturbs_nobody(tmp_path: Path) -> None:
    with RunLog(tmp_path, RUN):
        logger = logging.getLogger("distributed.scheduler")
        logger.warning("lost %d workers of %d", np.int64(3), 4)
        logger.warning("the limit is %.1f seconds", Seconds())
    lines = log_text(tmp_path).splitlines()
    assert lines[0].endswith("lost 3 workers of 4")
    assert lines[1].endswith("the limit is %.1f seconds")


def test_a_full_disk_is_raised_and_leaves_nothing_behind(tmp_path: Path) -> None:
    before = list(logging.getLogger().handlers)
    folder = run_folder(tmp_path, RUN)
    folder.mkdir(parents=True)
    for name in ("outcomes.jsonl", "run.log"):
        (folder / name).symlink_to("/dev/full")
    with RunLog(tmp_path, RUN):
        logging.getLogger("distributed").warning("is not written, and disturbs nobody")
    with pytest.raises(OSError, match="No space left"), RunLog(tmp_path, RUN) as log:
        log.outcome(outcome())
    assert logging.getLogger().handlers == before


def careless(path: str) -> None:
    """Log a path in all the ways that occur, and end with it."""
    logger = logging.getLogger("distributed.core")
    try:
        raise ValueError(f"cannot read {path}")
    except ValueError as error:
        logger.exception(error)
        logger.exception("Exception while handling op %s", error)
        logger.error(f"could not open {path} after {3} attempts")
        logger.warning("could not open " + path)
        logger.warning(f"{path}")
        log_failure("convert of abcd", error)
    logging.getLogger().error("odd message %s", {"file": path})
    raise KeyboardInterrupt(path)


def test_no_text_of_an_exception_and_no_path_gets_into_the_log(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), RunLog(tmp_path, RUN):
        careless(f"/data/{NAME}/image.dcm")
    lines = log_text(tmp_path).splitlines()
    assert NAME not in log_text(tmp_path)
    assert len(lines) == 8
    assert "distributed.core: see test_run_log.py, line " in lines[0]
    assert "(ValueError at test_run_log:" in lines[0]
    assert "distributed.core: Exception while handling op ... (ValueError at test_run_log:" in lines[1]
    assert lines[2].endswith("distributed.core: could not open ... after ... attempts")
    assert lines[3].endswith("distributed.core: could not open")
    assert "distributed.core: see test_run_log.py, line " in lines[4]
    assert "pipelines.outcome: convert of abcd failed: ValueError at test_run_log:" in lines[5]
    assert lines[7].endswith("the run was ended by KeyboardInterrupt")

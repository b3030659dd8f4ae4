"""Masks of old networks against those of new ones: the part of a change report that looks at masks, not at numbers.

Both label stores of an exam are read, measured and compared as `cohort agreement --first automatic --second candidate`
does it. An archive has a million exams, so some are drawn: by vendor, one of each person, always the same ones.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from cohort.annotations.store import AUTOMATIC, CANDIDATE
from cohort.errors import CohortError
from cohort.store.layout import candidate_path
from cohort.tables.buckets import table_dataset
from cohort.tables.sql import in_memory
from pipelines.agreement import Agreement, agree, write_agreement
from pipelines.change import SEED, ChangeReport, MaskAgreement
from pipelines.study.examples import store_masks
from pipelines.study.report import PAGE, write_study_report

MAX_EXAMS: Final = 60
"""Own choice: at a standard deviation of 0.05 between exams the 95 % interval of a mean Dice is +- 0.013, and the
comparison takes minutes, whatever the archive."""
FOLDER: Final = "masks"
"""Beside the change report: tables of the agreement, and the report of the study kind."""
PROCESSES: Final = 2
"""As `cohort agreement` has it; each holds one exam."""

Note = Callable[[str], None]


@dataclass(frozen=True)
class Drawn:
    """Exams that masks are compared of."""

    exam_ids: tuple[str, ...]
    n_with_both: int
    n_other_images: int


def with_masks(
    report: ChangeReport, store: Path, folder: Path, *, config: Path | None, note: Note, at_most: int = MAX_EXAMS
) -> ChangeReport:
    """The report with the agreement of masks, whose own tables and page are written into folder/masks.

    Nothing is raised: where masks cannot be compared the report says why, and the numbers are judged all the same.

    Parameters
    ----------
    folder : of the change report
    config : for loads, of both masks alike; None: that of the store's latest run
    """
    out = folder / FOLDER
    shutil.rmtree(out, ignore_errors=True)  # of an earlier look
    if "segment" not in {one.stage for one in report.stages}:
        return report
    if report.exams.n_waiting:
        return replace(report, masks=MaskAgreement(reason="Masks are compared when all exams have been redone."))
    try:
        return replace(report, masks=_compared(store, out, config, note, at_most))
    except Exception as error:  # a run must not be lost for its report
        return replace(report, masks=_failed(MaskAgreement(), error))


def _failed(masks: MaskAgreement, error: Exception) -> MaskAgreement:
    return replace(masks, failed=True, reason=f"Masks could not be compared: {_in_words(error)}.")


def _in_words(error: Exception) -> str:
    """Other texts than our own may name a path."""
    return str(error) if isinstance(error, CohortError) else f"internal error, {type(error).__name__}"


def _compared(store: Path, out: Path, config: Path | None, note: Note, at_most: int) -> MaskAgreement:
    drawn = drawn_exams(store, at_most)
    counts = MaskAgreement(n_with_both=drawn.n_with_both, n_other_images=drawn.n_other_images)
    if not drawn.exam_ids:
        return replace(counts, reason="No exam has masks of both versions on the same images.")
    note(f"comparing the masks of both versions in {len(drawn.exam_ids)} of {drawn.n_with_both} exams")
    try:
        found = agree(store, first=AUTOMATIC, second=CANDIDATE, config=config, test_part=None, processes=PROCESSES,
                      report=note, exams=drawn.exam_ids)  # fmt: skip
    except Exception as error:
        return _failed(counts, error)
    return _written(replace(counts, n_compared=found.n_exams, problems=dict(found.problems)), found, store, out)


def _written(counts: MaskAgreement, found: Agreement, store: Path, out: Path) -> MaskAgreement:
    if not found.n_exams:
        return replace(counts, failed=True, reason="None of the exams that were drawn could be compared.")
    whole = tuple(row for row in found.rows["overlap_summary"] if row.slice_bin is None)
    masks = replace(counts, overlaps=whole)
    try:
        write_agreement(out, found.rows)
        write_study_report(out, out, masks=store_masks(store, {row.exam_id for row in found.rows["overlaps"]}))
    except Exception as error:  # the figures are there all the same
        return replace(masks, page_problem=f"The full report could not be written: {_in_words(error)}.")
    return replace(masks, page=f"{FOLDER}/{PAGE}")


def drawn_exams(store: Path, at_most: int) -> Drawn:
    """Exams to compare the masks of: in proportion to the exams of each vendor, but of each vendor one, and one of each
    person. The order within a vendor is that of the MD5 of seed and exam, so that the same store gives the same exams.

    `StoreError` when the store, or its candidate, has no tables.
    """
    with in_memory() as db:
        for side, folder in (("old", store), ("new", candidate_path(store))):
            for table in ("ledger", "exams"):
                db.register(f"{side}_{table}", table_dataset(folder, table))
        db.execute(_REMADE)
        row = db.execute(
            "SELECT count(*) FILTER (same_images), count(*) FILTER (NOT same_images) FROM remade"
        ).fetchone()
        found = db.execute(_DRAWN, [f"{SEED} ", at_most]).fetchall()
    n_with_both, n_other_images = row or (0, 0)
    return Drawn(tuple(sorted(exam_id for (exam_id,) in found)), n_with_both, n_other_images)


_REMADE: Final = """
    CREATE TEMP TABLE remade AS
    SELECT exam_id, coalesce(c.vendor, e.vendor, 'unknown') AS vendor,
        coalesce(c.subject_id, e.subject_id, exam_id) AS person,
        coalesce(coalesce(c.store_path, e.store_path) = e.store_path, false) AS same_images
    FROM old_ledger o JOIN new_ledger n USING (exam_id, stage)
    JOIN (SELECT exam_id, vendor, subject_id, store_path FROM old_exams) e USING (exam_id)
    LEFT JOIN (SELECT exam_id, vendor, subject_id, store_path FROM new_exams) c USING (exam_id)
    WHERE stage = 'segment' AND o.path IS NOT NULL AND n.path IS NOT NULL
        AND (o.stage_version, o.artefacts) IS DISTINCT FROM (n.stage_version, n.artefacts)
"""
"""Exams with masks of both versions."""

_DRAWN: Final = """
    WITH persons AS (
        SELECT exam_id, vendor, md5($1 || exam_id) AS place FROM remade WHERE same_images
        QUALIFY row_number() OVER (PARTITION BY person ORDER BY place) = 1),
    placed AS (
        SELECT exam_id, place, row_number() OVER (PARTITION BY vendor ORDER BY place) AS number,
            count(*) OVER (PARTITION BY vendor) AS n
        FROM persons)
    SELECT exam_id FROM placed ORDER BY number > 1, (number - 0.5) / n, place LIMIT $2
"""
"""The k-th of n exams of a vendor lies at (k - 1/2) / n of the way: a line through all vendors at once, cut off where
there are enough, takes of each in proportion."""

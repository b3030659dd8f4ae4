"""Tables of a store for many exams that nobody scanned: one phantom's file rows, again and again under other names."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cohort.archive.listing import list_files
from cohort.archive.pseudonym import Pseudonyms
from cohort.archive.scan import read_file_rows
from cohort.rows import TABLES, FileRow
from cohort.tables.buckets import N_BUCKETS, bucket_of, create_tables, key_columns
from cohort.tables.schema import arrow_schema, rows_to_table
from cohort.tables.stages import STAGES
from models.phantom.dicom import write_exam
from models.phantom.exam import ExamPlan, make_exam
from pipelines.exams import Artefacts, plan_exam
from pipelines.exams import make_exam as choose

PSEUDONYMS: Final = Pseudonyms(bytes(32))
NAMES: Final = ("file_id", "exam_id", "subject_id", "accession_id", "series_id", "instance_id", "frame_of_reference_id")
"""Columns of `files` that tell one exam from another."""


def phantom_rows() -> list[FileRow]:
    """File rows of one phantom exam with sagittal and axial series, with hashes."""
    with tempfile.TemporaryDirectory() as folder:
        write_exam(
            Path(folder), make_exam(ExamPlan(1, "F", 44, 1.64, 61.0, "per_disc", 7)), patient_name="A", patient_id="1"
        )
        rows = [row for file in list_files(Path(folder)) for row in read_file_rows(Path(folder), *file, PSEUDONYMS)]
    return [FileRow(**{**vars(row), "content_sha256": row.file_id}) for row in rows if row.reason is None]


def exam_ids(n: int) -> list[str]:
    """Pseudonyms."""
    return [PSEUDONYMS.exam_id(str(k)) for k in range(n)]


def write_files(store: Path, ids: Sequence[str], rows: Sequence[FileRow]) -> int:
    """Give every exam the rows of the phantom; returns how many rows that makes."""
    one = rows_to_table("files", rows)
    n, n_rows = len(ids), len(rows)
    table = one.take(pa.array(np.tile(np.arange(n_rows), n)))
    exam = np.repeat(np.array(ids), n_rows)
    for name in NAMES:
        if name == "exam_id":
            values = pa.array(exam)
        elif name == "file_id":
            values = pa.array([f"{exam_id[:20]}{k:06d}" for exam_id in ids for k in range(n_rows)])
        else:
            old = one[name].to_pylist()
            names = {value: str(k) for k, value in enumerate(dict.fromkeys(old))}
            values = pa.array([f"{exam_id[:20]}{names[value]}" for exam_id in ids for value in old])
        table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), values)
    _write_buckets(store, "files", table)
    return int(table.num_rows)


def write_done(
    store: Path,
    ids: Sequence[str],
    rows: Sequence[FileRow],
    artefacts: Artefacts,
    states: Mapping[str, tuple[str, str]],
) -> None:
    """`wanted`, `ledger` and `exams` of a store in which every exam has been through all stages.

    Parameters
    ----------
    rows : of the exam that all are copies of
    states : exam -> index digest and selection digest, for `wanted`
    """
    plan = plan_exam(choose(rows, None), artefacts)
    n = len(ids)
    made = {stage: [hashlib.sha256(f"{stage}{one}".encode()).hexdigest() for one in ids] for stage in STAGES}
    inputs = {f"{stage}_inputs": [plan.parts[stage].inputs] * n for stage in ("convert", "measure", "load")}
    wanted = {
        "exam_id": ids,
        "index_digest": [states[one][0] for one in ids],
        "selection_digest": [states[one][1] for one in ids],
        "newest_ns": list(range(n)),
        "recipe": [artefacts.recipe] * n,
        "sex": ["F"] * n,
        "selected_status": ["ok"] * n,
        **made,
        **inputs,
    }
    _write_columns(store, "wanted", wanted, n)
    each = {
        "stage": list(STAGES) * n,
        "fingerprint": [made[stage][k] for k in range(n) for stage in STAGES],
        "exam_id": [one for one in ids for _ in STAGES],
        "path": [f"exams/{one[:2]}/{one}/result" for one in ids for _ in STAGES],
    }
    same = {"status": "ok", "seconds": 1.0, "worker": "cpu-0", "run_id": "run", "finished_at": "2026-01-01T00:00:00"}
    parts = {"stage_version": 1, "inputs": "a" * 32, "parameters": "b" * 32, "artefacts": "c" * 32, "rss_mib": 500.0}
    _write_columns(store, "ledger", each | {name: [value] * 4 * n for name, value in (same | parts).items()}, 4 * n)
    _write_columns(store, "exams", {"exam_id": ids, "subject_id": ids, "status": ["ok"] * n}, n)


def filled_row(table: str, exam_id: str) -> Any:
    """A row of a table with a value in every column."""
    of_type = {"string": "text", "int64": 7, "double": 7.25, "bool": True}
    values = {column.name: of_type.get(str(column.type), [7.25]) for column in arrow_schema(table)}
    known = {"exam_id": exam_id, "engine": "batch"}
    return TABLES[table](**{name: known.get(name, value) for name, value in values.items()})


def write_filled(store: Path, table: str, ids: Sequence[str], per_exam: int) -> None:
    """Rows of a feature table, `per_exam` for every exam."""
    (row,) = rows_to_table(table, [filled_row(table, "")]).to_pylist()
    n = len(ids) * per_exam
    columns = {name: [value] * n for name, value in row.items()}
    _write_columns(store, table, columns | {"exam_id": [one for one in ids for _ in range(per_exam)]}, n)


def _write_columns(store: Path, table: str, columns: Mapping[str, Sequence[Any]], n: int) -> None:
    schema = arrow_schema(table)
    arrays = [
        pa.array(columns[column.name], column.type) if column.name in columns else pa.nulls(n, column.type)
        for column in schema
    ]
    _write_buckets(store, table, pa.Table.from_arrays(arrays, schema=schema))


def _write_buckets(store: Path, table: str, content: pa.Table) -> None:
    create_tables(store)
    keys = content[key_columns(table)[0]].to_pylist()
    known = {key: bucket_of(key, N_BUCKETS) for key in set(keys)}
    buckets = np.array([known[key] for key in keys])
    order = np.argsort(buckets, kind="stable")
    edges = np.searchsorted(buckets[order], np.arange(N_BUCKETS + 1))
    content = content.take(pa.array(order))
    for bucket in range(N_BUCKETS):
        folder = store / "tables" / table / f"bucket-{bucket:02d}"
        folder.mkdir(parents=True, exist_ok=True)
        part = content.slice(edges[bucket], edges[bucket + 1] - edges[bucket])
        pq.write_table(part, folder / "part-0.parquet", compression="zstd")

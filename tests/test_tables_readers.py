"""pandas, polars and DuckDB read the plain files, beside a process that commits all the time."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pytest

from cohort.rows import TABLES
from cohort.tables.snapshot import snapshot
from cohort.tables.sql import query
from tests.synthetic_tables import write_synthetic_store

ROOT = Path(__file__).parents[1]

READERS: dict[str, Callable[[Path], pl.DataFrame]] = {
    "pandas": lambda folder: pl.from_pandas(pd.read_parquet(folder, dtype_backend="pyarrow")),
    "polars": lambda folder: pl.read_parquet(folder),
    "polars, lazily": lambda folder: pl.scan_parquet(folder / "**/*.parquet").collect(),
    "DuckDB": lambda folder: pl.from_arrow(duckdb.sql(f"select * from '{folder}/*/*.parquet'").to_arrow_table()),
}


def polars_of_open_files(folder: Path) -> pl.DataFrame:
    """polars opens a file several times by its name, and may find another one the second time: here it cannot."""
    with ExitStack() as files:
        return pl.read_parquet([files.enter_context(path.open("rb")) for path in sorted(folder.glob("*/*.parquet"))])


def cohort_sql(folder: Path) -> pl.DataFrame:
    return pl.from_arrow(query(folder.parent.parent, f"select * from {folder.name} where exam_id is not null"))


BESIDE_A_COMMIT = {
    "pandas": READERS["pandas"],
    "polars": polars_of_open_files,
    "DuckDB": READERS["DuckDB"],
    "cohort sql": cohort_sql,
}

COMMITS = """
import dataclasses, sys
from pathlib import Path
from cohort.tables.commit import commit
from tests.synthetic_tables import synthetic_rows
store, run = Path(sys.argv[1]), 0
while True:
    run += 1
    rows = synthetic_rows(4, seed=run)
    marked = [dataclasses.replace(row, central_slice=run) for row in rows["discs"]]
    commit(store, "r", {"discs": marked, "curvature": rows["curvature"], "ledger": rows["ledger"]}, touched={})
    print(run, flush=True)
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readers") / "store"
    write_synthetic_store(folder, 10)
    return folder


@pytest.fixture
def committing(store: Path) -> Iterator[Path]:
    """The store, while another process commits into it without a pause."""
    child = subprocess.Popen([sys.executable, "-c", COMMITS, str(store)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    child.stdout.readline()
    yield store
    assert child.poll() is None  # it was at it all the time
    child.kill()
    child.communicate()


def in_order(frame: pl.DataFrame) -> pl.DataFrame:
    """Rows sorted by all columns that can be."""
    return frame.sort([name for name, kind in frame.schema.items() if not kind.is_nested()])


def test_all_readers_give_the_same_rows_of_every_table(store: Path) -> None:
    for table in TABLES:
        frames = {name: in_order(read(store / "tables" / table)) for name, read in READERS.items()}
        ours = in_order(pl.from_arrow(query(store, f"select * from {table}")))
        for name, frame in frames.items():
            assert frame.equals(ours), (table, name)


def test_readers_beside_a_commit_never_see_half_an_exam(committing: Path) -> None:
    """A file is the old one or the new one: within an exam all rows are of one commit, and none is missing."""
    seen, until = set(), time.monotonic() + 4.0
    while time.monotonic() < until or len(seen) < 3:
        for name, read in BESIDE_A_COMMIT.items():
            discs = read(committing / "tables" / "discs")
            by_exam = discs.group_by("exam_id").agg(pl.len(), pl.col("central_slice").n_unique().alias("n_commits"))
            assert by_exam["len"].unique().to_list() == [5], name
            assert by_exam["n_commits"].unique().to_list() == [1], name
            seen.add(discs["central_slice"].max())


def test_a_snapshot_beside_commits_is_of_one_moment_for_all_readers_and_tables(committing: Path) -> None:
    for _ in range(3):
        with snapshot(committing) as moment:
            for table in ("discs", "curvature", "ledger"):
                frames = [in_order(read(moment / "tables" / table)) for read in READERS.values()]
                assert all(frame.equals(frames[0]) for frame in frames)
            touched = frames_of_commits(moment)
            assert touched.n_unique() == 1  # every exam of the loop is of the same commit
            assert len(pl.read_parquet(moment / "tables" / "ledger").filter(pl.col("stage") == "measure")) == 9


def frames_of_commits(moment: Path) -> pl.Series:
    """Number of the commit of every row that the other process writes."""
    discs = pl.read_parquet(moment / "tables" / "discs")
    changed = discs.filter(pl.col("central_slice") != 7)  # what the store began with
    return changed["central_slice"] if len(changed) else discs["central_slice"]

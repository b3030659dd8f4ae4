"""The plan: what every exam should have against what the ledger says was done, in columns.

A million exams are compared in seconds because nothing becomes an object: table `wanted` keeps the fingerprints, the
ledger those of the latest attempts, and DuckDB joins the two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import duckdb
import pyarrow as pa

from cohort.tables.buckets import table_dataset
from cohort.tables.sql import in_memory
from cohort.tables.stages import STAGES

if TYPE_CHECKING:
    from pipelines.exams import Artefacts

PASSING_REASONS: Final = ("disk_full",)
"""Failures of the surroundings, not of the exam: the next run tries again."""
INPUTS: Final = {"convert": "new data", "segment": "", "measure": "new count of vertebrae", "load": "new demographics"}
ARTEFACTS: Final = {"convert": "", "segment": "new weights", "measure": "", "load": "new base model"}


@dataclass(frozen=True, eq=False)
class Plan:
    """What to do."""

    todo: pa.Table
    """exam_id, stage (the first to be done again; all later ones follow), newest exam first."""
    stages: Counter[str]
    """Stage -> exams that it will work on, if nothing is refused."""

    @property
    def exam_ids(self) -> list[str]:
        """Exams that need work, newest first."""
        return list(self.todo["exam_id"].to_pylist())


def make_plan(ledgers: Sequence[Path], store: Path, *, retry_failed: bool = False) -> Plan:
    """Compare wanted fingerprints with the latest attempts.

    A stage is done again when its fingerprint is new, or when a stage before it is done again. A failed fingerprint is
    tried again only with `retry_failed` or when it failed for one of `PASSING_REASONS`; a refused one never is.

    Parameters
    ----------
    ledgers : folders with the table `ledger`; of two attempts at the same stage of the same exam the last folder's
        counts
    store : where the table `wanted` is
    """
    with _connect(ledgers, store) as connection:
        connection.execute(f"CREATE TABLE standing AS {_standing_query(retry_failed)}")
        todo = connection.sql(f"SELECT exam_id, {_first_todo()} AS stage FROM standing WHERE {_any_todo()} "
                              "ORDER BY newest_ns DESC, exam_id").to_arrow_table()  # fmt: skip
        counts = [f"count(*) FILTER ({stage}_is = 'todo')" for stage in STAGES]
        (row,) = connection.sql(f"SELECT {', '.join(counts)} FROM standing").fetchall()
    return Plan(todo, Counter({stage: n for stage, n in zip(STAGES, row, strict=True) if n}))


def why(ledgers: Sequence[Path], store: Path, artefacts: Artefacts, plan: Plan) -> pa.Table:
    """Why each exam of a plan is to be done: exam_id, stage, why, and whether a sound result is being replaced.

    One row for each reason; stages that are done again only because one before them is have none.
    """
    with _connect(ledgers, store) as connection:
        connection.register("todo", plan.todo)
        parts = " UNION ALL ".join(_wanted_parts(stage, artefacts) for stage in STAGES)
        return connection.sql(
            f"""
            SELECT exam_id, stage, unnest(string_split({_reasons()}, ',')) AS why,
                   coalesce(l.status IN ('ok', 'flagged'), false) AS replaces
            FROM ({parts}) AS p LEFT JOIN latest AS l USING (exam_id, stage)
            WHERE coalesce(l.status, '') NOT IN ('ok', 'flagged') OR l.fingerprint <> p.fingerprint
            """
        ).filter("why <> ''").order("exam_id, stage, why").to_arrow_table()  # fmt: skip


def _connect(ledgers: Sequence[Path], store: Path) -> duckdb.DuckDBPyConnection:
    """Tables `wanted`, and `latest` with the attempts that count."""
    connection = in_memory()
    connection.register("wanted", table_dataset(store, "wanted"))
    for number, folder in enumerate(ledgers):
        connection.register(f"ledger{number}", table_dataset(folder, "ledger"))
    latest = "SELECT * FROM ledger0"
    for number in range(1, len(ledgers)):
        newer = f"ledger{number}"
        latest = f"SELECT * FROM ({latest}) ANTI JOIN {newer} USING (exam_id, stage) UNION ALL SELECT * FROM {newer}"
    connection.execute(f"CREATE VIEW latest AS {latest}")
    return connection


def _standing_query(retry_failed: bool) -> str:
    """One row an exam: for each stage todo, done, settled (refused or failed, nothing has changed) or blocked."""
    before = ("'done'", *(f"{stage}_is" for stage in STAGES))
    standing = [_standing(stage, before[k], retry_failed) for k, stage in enumerate(STAGES)]
    last = [
        f"max({name}) FILTER (stage = '{stage}') AS {stage}_{name}"
        for stage in STAGES
        for name in ("fingerprint", "status", "reason")
    ]
    return f"""
        SELECT exam_id, newest_ns, {", ".join(standing)}
        FROM wanted LEFT JOIN (SELECT exam_id, {", ".join(last)} FROM latest GROUP BY exam_id) USING (exam_id)
        WHERE "convert" IS NOT NULL"""


def _standing(stage: str, before: str, retry_failed: bool) -> str:
    passing = ", ".join(f"'{reason}'" for reason in PASSING_REASONS)
    again = "true" if retry_failed else f"coalesce({stage}_reason, '') IN ({passing})"
    return f"""CASE
        WHEN {before} IN ('settled', 'blocked') THEN 'blocked'
        WHEN {before} = 'todo' OR {stage}_fingerprint IS DISTINCT FROM "{stage}" THEN 'todo'
        WHEN {stage}_status = 'refused' THEN 'settled'
        WHEN {stage}_status = 'failed' THEN CASE WHEN {again} THEN 'todo' ELSE 'settled' END
        ELSE 'done' END AS {stage}_is"""


def _any_todo() -> str:
    return " OR ".join(f"{stage}_is = 'todo'" for stage in STAGES)


def _first_todo() -> str:
    return "CASE " + " ".join(f"WHEN {stage}_is = 'todo' THEN '{stage}'" for stage in STAGES) + " END"


def _wanted_parts(stage: str, artefacts: Artefacts) -> str:
    """What a stage of the exams of a plan should be made of, if it is to be done."""
    by_sex = {sex: artefacts.parts(stage, "", sex) for sex in (None, *artefacts.base_models)}
    cases = " ".join(f"WHEN sex = '{sex}' THEN '{parts.artefacts}'" for sex, parts in by_sex.items() if sex)
    own = f"CASE {cases} ELSE '{by_sex[None].artefacts}' END" if cases else f"'{by_sex[None].artefacts}'"
    order = "CASE todo.stage " + " ".join(f"WHEN '{one}' THEN {k}" for k, one in enumerate(STAGES)) + " END"
    inputs = "''" if stage == "segment" else f"{stage}_inputs"
    return f"""
        SELECT exam_id, '{stage}' AS stage, {stage} AS fingerprint, {by_sex[None].version} AS version,
               {inputs} AS inputs, '{by_sex[None].parameters}' AS parameters, {own} AS artefacts,
               todo.stage = '{stage}' AS is_first
        FROM todo JOIN wanted USING (exam_id) WHERE {order} <= {STAGES.index(stage)}"""


def _reasons() -> str:
    """SQL text with the reasons of one row of `why`, joined by commas."""
    of_inputs = " ".join(f"WHEN '{stage}' THEN '{text}'" for stage, text in INPUTS.items())
    of_artefacts = " ".join(f"WHEN '{stage}' THEN '{text}'" for stage, text in ARTEFACTS.items())
    return f"""CASE
        WHEN l.exam_id IS NULL THEN
            CASE WHEN NOT is_first THEN '' WHEN stage = 'convert' THEN 'new exam' ELSE 'not done yet' END
        WHEN l.fingerprint = p.fingerprint THEN CASE WHEN is_first THEN 'tried again' ELSE '' END
        ELSE concat_ws(',',
            CASE WHEN l.stage_version IS DISTINCT FROM p.version THEN 'new code' END,
            CASE WHEN stage <> 'segment' AND l.inputs <> p.inputs THEN CASE stage {of_inputs} END END,
            CASE WHEN l.parameters <> p.parameters THEN 'new parameters' END,
            CASE WHEN l.artefacts <> p.artefacts THEN CASE stage {of_artefacts} END END)
        END"""

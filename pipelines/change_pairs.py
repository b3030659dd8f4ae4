"""Pairs of old and new numbers, joined in DuckDB: old rows are those of STORE/tables, new ones of STORE/candidate.

One column of one muscle, or of one task and convention, is in memory at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import pandas as pd
import pyarrow.dataset as ds

from cohort import __version__
from cohort.store.layout import candidate_path
from cohort.tables.buckets import bucket_files
from cohort.tables.schema import arrow_schema
from cohort.tables.sql import in_memory
from cohort.tables.stages import STAGES
from pipelines.candidate import require_candidate
from pipelines.run_facts import SOFTWARE
from pipelines.run_log import run_folder

ALL: Final = "all"
"""Levels, or vendors, together."""
UNDECIDED: Final = "undecided"
SAME_PLACE_MM: Final = 10.0
"""Centroids of one vertebra or disc in two segmentations are nearer than this; neighbours are 28 mm apart or more
(own choice)."""

_TABLES: Final = (
    "exams",
    "vertebrae",
    "discs",
    "muscle_levels",
    "curvature",
    "loads",
    "ledger",
    "wanted",
    "runs",
)
_ORDER: Final = f"[{', '.join(repr(stage) for stage in STAGES)}]"
_SOUND: Final = "('ok', 'flagged')"
_SETTLED: Final = "('refused', 'failed')"


@dataclass(frozen=True)
class StageDifference:
    """A stage whose results of compared exams were made by another version or by other artefacts."""

    stage: str
    old_version: int | None
    new_version: int | None
    old_artefacts: str | None
    """Digest of the weights or of the base model."""
    new_artefacts: str | None
    n_exams: int


@dataclass(frozen=True)
class Exams:
    """How the exams of the candidate stand against what they were."""

    n_compared: int
    """Exams that had been processed before."""
    n_new: int
    """Exams that came in since."""
    n_waiting: int
    """Exams that the change has not been through yet: the comparison is not complete."""
    n_lost: int
    """Compared exams with a sound result of a stage that is now refused or failed."""
    lost_reasons: Mapping[str, int]
    lost_examples: tuple[str, ...]
    """Up to ten of them."""
    n_recovered: int
    """Compared exams with a refused or failed stage that is now sound."""
    n_renamed: int
    """Compared exams in which a vertebra or disc has another name."""


@dataclass(frozen=True)
class Renamed:
    """Structures that lie where they lay and have another name."""

    structure: str
    """vertebra or disc."""
    old: str
    new: str
    n: int


class ChangePairs:
    """The joins behind a change report; a context manager.

    Raises
    ------
    ConfigurationError
        when no numbers wait for acceptance
    StoreError
        when the store has no tables
    """

    def __init__(self, store: Path) -> None:
        require_candidate(store)
        self._store = store
        self._db = in_memory()
        for side, folder in (("old", store), ("new", candidate_path(store))):
            for table in _TABLES:
                files = [str(path) for path in bucket_files(folder, table)]
                content = ds.dataset(files, schema=arrow_schema(table), partitioning=None)
                self._db.register(f"{side}_{table}", content)
        for statement in _SETUP:
            self._db.execute(statement)

    def __enter__(self) -> ChangePairs:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()

    def parts(self, table: str) -> list[str]:
        """What the rows of a table are of: muscles, or tasks and conventions; one empty text where they are of one."""
        if table not in _NAMED:
            return [""]
        named = _NAMED[table]
        either = " UNION ".join(f"SELECT {named.of} FROM {side}_{table} WHERE {named.where}" for side in ("old", "new"))
        return sorted(str(row[0]) for row in self._rows(either))

    def frame(self, table: str, column: str, scale: str, of: str) -> pd.DataFrame:
        """Pairs of one column and part: exam_id, person, level, vendor, old, new, scale, renamed, newly_flagged,
        no_longer_flagged.

        `old` and `new` are NaN where the number is not there or not sound; `scale` is the old value of that column.
        """
        sql = f"""
            SELECT who.exam, who.person, who.vendor, p.level, p.renamed,
                CASE WHEN p.old_status IN {_SOUND} THEN p.old_value END AS old,
                CASE WHEN p.new_status IN {_SOUND} THEN p.new_value END AS new,
                coalesce(p.old_scale, 0) AS scale,
                coalesce(p.old_status = 'ok' AND p.new_status = 'flagged', false) AS newly_flagged,
                coalesce(p.old_status = 'flagged' AND p.new_status = 'ok', false) AS no_longer_flagged
            FROM ({_join(table, column, scale, of)}) p JOIN who USING (exam_id)
            WHERE old IS NOT NULL OR new IS NOT NULL
            ORDER BY who.exam, p.level
        """
        found = self._db.sql(sql).to_arrow_table()
        for name in ("level", "vendor"):  # as categories: a text for each of millions of rows is too much
            found = found.set_column(found.column_names.index(name), name, found[name].dictionary_encode())
        frame = found.to_pandas()
        return frame.assign(exam_id=pd.Categorical.from_codes(frame.pop("exam"), categories=self._exam_ids))

    @cached_property
    def _exam_ids(self) -> list[str]:
        return [str(row[0]) for row in self._rows("SELECT exam_id FROM who ORDER BY exam")]

    def stages(self) -> tuple[StageDifference, ...]:
        """What made the old and the new results of compared exams, in the order of the chain."""
        found = self._rows("""
            SELECT n.stage, o.stage_version, n.stage_version, o.artefacts, n.artefacts, count(*)
            FROM new_ledger n JOIN old_ledger o ON o.exam_id = n.exam_id AND o.stage = n.stage
            WHERE (o.stage_version, o.artefacts) IS DISTINCT FROM (n.stage_version, n.artefacts)
            GROUP BY ALL ORDER BY ALL
        """)
        return tuple(StageDifference(*row) for row in sorted(found, key=lambda row: STAGES.index(row[0])))

    def exams(self) -> Exams:
        """How the exams of the candidate stand."""
        lost = self._rows("SELECT reason, count(*) FROM lost GROUP BY reason ORDER BY count(*) DESC, reason")
        return Exams(
            n_compared=self._count("SELECT count(DISTINCT exam_id) FROM new_ledger SEMI JOIN known USING (exam_id)"),
            n_new=self._count("SELECT count(DISTINCT exam_id) FROM new_ledger ANTI JOIN known USING (exam_id)"),
            n_waiting=self._count(_WAITING),
            n_lost=self._count("SELECT count(*) FROM lost"),
            lost_reasons={str(reason or "unknown"): int(n) for reason, n in lost},
            lost_examples=tuple(row[0] for row in self._rows("SELECT exam_id FROM lost ORDER BY exam_id LIMIT 10")),
            n_recovered=self._count(f"""
                SELECT count(DISTINCT exam_id) FROM new_ledger n JOIN old_ledger o USING (exam_id, stage)
                WHERE o.status IN {_SETTLED} AND n.status IN {_SOUND}
            """),
            n_renamed=self._count("SELECT count(DISTINCT exam_id) FROM renamed"),
        )

    def renamed(self) -> tuple[Renamed, ...]:
        """Which names became which, most frequent first."""
        sql = "SELECT structure, old, new, count(*) AS n FROM renamed GROUP BY ALL ORDER BY n DESC, structure, old, new"
        return tuple(Renamed(*row) for row in self._rows(sql))

    def software(self) -> tuple[str, str]:
        """Versions of the software that made old and new results; a run without a row yet is the one that asks."""
        return self._versions("old", "unknown"), self._versions("new", __version__)

    def models(self) -> tuple[str, str]:
        """Networks and base models of the runs that made old and new results."""
        return _models(self._store, self._runs("old")), _models(self._store, self._runs("new"))

    def _versions(self, side: str, otherwise: str) -> str:
        found = {row[0]: row[1] for row in self._rows("SELECT run_id, version FROM old_runs")}
        return ", ".join(sorted({str(found.get(run_id, otherwise)) for run_id in self._runs(side)}))

    def _runs(self, side: str) -> list[str]:
        """Runs whose results are compared."""
        of_redone = "SEMI JOIN new_ledger USING (exam_id, stage)" if side == "old" else ""
        return [row[0] for row in self._rows(f"SELECT DISTINCT run_id FROM {side}_ledger {of_redone} ORDER BY run_id")]

    def _rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self._db.execute(sql).fetchall()

    def _count(self, sql: str) -> int:
        return int(self._rows(sql)[0][0])


def _models(store: Path, run_ids: Iterable[str]) -> str:
    """Networks and base models by name and the beginning of their sha256."""
    found: dict[str, None] = {}
    for run_id in run_ids:
        path = run_folder(store, run_id) / SOFTWARE
        if path.exists():
            facts = json.loads(path.read_text())
            found |= {f"{one['name']} {one['sha256'][:8]}": None for one in facts["networks"].values()}
            found |= {f"base model {sex} {sha256[:8]}": None for sex, sha256 in facts["base_models"].items()}
    return ", ".join(found) or "unknown"


def _match(table: str) -> str:
    """Structures of one exam that lie at the same place, each with its nearest."""
    return f"""
        CREATE TEMP TABLE match_{table} AS
        SELECT exam_id, o.ordinal AS old_ordinal, n.ordinal AS new_ordinal, o.level AS old_level, n.level AS new_level,
            (o.x_mm - n.x_mm) ** 2 + (o.y_mm - n.y_mm) ** 2 + (o.z_mm - n.z_mm) ** 2 AS squared_mm
        FROM old_{table} o JOIN new_{table} n USING (exam_id) SEMI JOIN measured USING (exam_id)
        WHERE squared_mm < {SAME_PLACE_MM**2}
        QUALIFY row_number() OVER (PARTITION BY exam_id, o.ordinal ORDER BY squared_mm) = 1
            AND row_number() OVER (PARTITION BY exam_id, n.ordinal ORDER BY squared_mm) = 1
    """


def _renamed(table: str, structure: str) -> str:
    return f"""
        SELECT exam_id, '{structure}' AS structure, coalesce(old_level, '{UNDECIDED}') AS old,
            coalesce(new_level, '{UNDECIDED}') AS new
        FROM match_{table} WHERE old_level IS DISTINCT FROM new_level
    """


def _scope(name: str, stage: str) -> str:
    """Exams known before whose rows of a stage the change has replaced, or ended before them."""
    return f"""
        CREATE TEMP TABLE {name} AS
        SELECT DISTINCT exam_id FROM new_ledger SEMI JOIN known USING (exam_id)
        WHERE stage = '{stage}' OR (status IN {_SETTLED}
            AND list_position({_ORDER}, stage) < list_position({_ORDER}, '{stage}'))
    """


_SETUP: Final = (
    "CREATE TEMP TABLE known AS SELECT DISTINCT exam_id FROM old_ledger",
    _scope("measured", "measure"),
    _scope("loaded", "load"),
    """
        CREATE TEMP TABLE who AS
        SELECT exam_id, coalesce(n.vendor, o.vendor, 'unknown') AS vendor,
            dense_rank() OVER (ORDER BY coalesce(n.subject_id, o.subject_id, exam_id)) AS person,
            CAST(row_number() OVER (ORDER BY exam_id) - 1 AS INTEGER) AS exam
        FROM known
        LEFT JOIN (SELECT exam_id, vendor, subject_id FROM old_exams) o USING (exam_id)
        LEFT JOIN (SELECT exam_id, vendor, subject_id FROM new_exams) n USING (exam_id)
    """,
    _match("vertebrae"),
    _match("discs"),
    f"CREATE TEMP TABLE renamed AS {_renamed('vertebrae', 'vertebra')} UNION ALL {_renamed('discs', 'disc')}",
    "CREATE TEMP TABLE misnamed AS SELECT exam_id, old AS level FROM renamed UNION SELECT exam_id, new FROM renamed",
    f"""
        CREATE TEMP TABLE lost AS
        SELECT exam_id, any_value(n.reason ORDER BY list_position({_ORDER}, stage)) AS reason
        FROM new_ledger n JOIN old_ledger o USING (exam_id, stage)
        WHERE o.status IN {_SOUND} AND n.status IN {_SETTLED} GROUP BY exam_id
    """,
)


_SIDES: Final = "o.status AS old_status, n.status AS new_status, o.v AS old_value, n.v AS new_value, o.s AS old_scale"


def _join(table: str, column: str, scale: str, of: str) -> str:
    """Old and new rows of a table: exam_id, level, renamed, and status, value and scale of both sides."""
    values = f"status, {column} AS v, {scale} AS s"  # no others: rows are wide, and there are millions of them
    return _by_name(_NAMED[table], values, of) if table in _NAMED else _by_place(table, values)


def _by_place(table: str, values: str) -> str:
    """Vertebrae or discs of both sides, matched by place, under their old names."""
    return f"""
        SELECT coalesce(o.exam_id, n.exam_id) AS exam_id, {_SIDES},
            coalesce(CASE WHEN o.exam_id IS NULL THEN n.level ELSE o.level END, '{UNDECIDED}') AS level,
            o.exam_id IS NOT NULL AND n.exam_id IS NOT NULL AND o.level IS DISTINCT FROM n.level AS renamed
        FROM (SELECT t.exam_id, t.level, {values}, m.new_ordinal
            FROM old_{table} t SEMI JOIN measured USING (exam_id)
            LEFT JOIN match_{table} m ON m.exam_id = t.exam_id AND m.old_ordinal = t.ordinal) o
        FULL JOIN (SELECT exam_id, ordinal, level, {values} FROM new_{table} SEMI JOIN measured USING (exam_id)) n
            ON n.exam_id = o.exam_id AND n.ordinal = o.new_ordinal
    """


@dataclass(frozen=True)
class _Named:
    """A table whose rows are paired by name."""

    table: str
    keys: str
    scope: str
    """Table of the exams whose rows the change has replaced."""
    of: str
    level: str
    renamed: str
    """When a name means another place on the two sides."""
    where: str = "true"


_AT_LEVEL: Final = "(exam_id, level) IN (SELECT exam_id, level FROM misnamed)"
_NAMED: Final = {
    "muscle_levels": _Named(
        "muscle_levels",
        "exam_id, level, muscle, side",
        "measured",
        of="muscle",
        level=f"CASE WHEN level LIKE 'disc-%' THEN '{UNDECIDED}' ELSE level END",
        renamed=_AT_LEVEL,
    ),
    "curvature": _Named(
        "curvature",
        "exam_id",
        "measured",
        of="''",
        level=f"'{ALL}'",
        renamed="exam_id IN (SELECT exam_id FROM renamed WHERE structure = 'vertebra')",
    ),
    "loads": _Named(
        "loads",
        "exam_id, task, level, convention",
        "loaded",
        of="task || ', ' || convention",
        level="level",
        renamed=_AT_LEVEL,
        where="engine = 'batch'",
    ),
}


def _by_name(named: _Named, values: str, of: str) -> str:
    """Rows of both sides with equal keys, of one part."""
    part = of.replace("'", "''")
    old, new = (
        f"""(SELECT {named.keys}, {values} FROM {side}_{named.table} SEMI JOIN {named.scope} USING (exam_id)
            WHERE {named.where} AND {named.of} = '{part}')"""
        for side in ("old", "new")
    )
    return f"""
        SELECT exam_id, {named.level} AS level, {named.renamed} AS renamed, {_SIDES}
        FROM {old} o FULL JOIN {new} n USING ({named.keys})
    """


_WAITING: Final = f"""
    WITH standing AS (SELECT * FROM new_ledger UNION ALL SELECT * FROM old_ledger ANTI JOIN new_ledger
            USING (exam_id, stage)),
        wish AS (UNPIVOT (SELECT exam_id, {", ".join(STAGES)} FROM old_wanted) ON {", ".join(STAGES)}
            INTO NAME stage VALUE wanted),
        stage_of_exam AS (SELECT exam_id, list_position({_ORDER}, stage) AS place,
            coalesce(fingerprint = wanted, false) AS tried, status
            FROM wish LEFT JOIN standing USING (exam_id, stage))
    SELECT count(*) FROM (
        SELECT min(place) FILTER (WHERE NOT tried) AS untried,
            min(place) FILTER (WHERE tried AND status IN {_SETTLED}) AS ended
        FROM stage_of_exam GROUP BY exam_id)
    WHERE untried IS NOT NULL AND (ended IS NULL OR untried < ended)
"""
"""Exams with a stage that has not been tried as it is wanted, and that nothing before it stands in the way of."""

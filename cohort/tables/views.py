"""SQL views over the tables, for statistics: stable names with units, and no refused number in any of them.

Rules that hold for every view:

- A number of a refused row is null; a flagged one stays, and a status says so. Where statuses do not fit (`exams_wide`)
  there are counts, and a twin (`exams_wide_ok`) in which flagged numbers are null, too.
- Structures without a name (levels undecided) are in none of them: an ordinal position is no level.
- Loads are those of engine `batch` and of one convention, `vertebra_mean`; the other one is in table `loads`.
- Exams that left the archive are in none of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import duckdb

from cohort.tables.schema import description
from cohort.tables.view import (
    AGE_BAND,
    CONVENTION,
    CURVATURE_FEATURES,
    DISC_FEATURES,
    LOAD_FEATURES,
    MIN_SUBJECTS,
    MUSCLE_FEATURES,
    VERTEBRA_FEATURES,
    WORST,
    Column,
    View,
    unless_refused,
)
from cohort.tables.wide import exams_wide, levels_view


def _struct(feature: str, value: str) -> str:
    return f"{{'feature': {feature}, 'value': {value}}}"


def _long(table: str, pairs: Mapping[str, str], *, level: str = "level", where: str = "true") -> str:
    """SELECT of one row per exam, level and feature; `pairs`: SQL of the feature's name -> column of the value."""
    structs = ", ".join(_struct(name, f"{value}::DOUBLE") for name, value in pairs.items())
    return (
        f"SELECT exam_id, '{table}' AS source, {level} AS level, status, reasons, "
        f"unnest([{structs}], recursive := true) FROM {table} WHERE {where}"
    )


def _side_differences() -> str:
    """As `_long`, of both sides of a muscle at once."""
    struct = _struct("'side_difference_' || muscle", "any_value(side_difference)")
    return (
        "SELECT exam_id, 'muscle_levels' AS source, level, "
        f"{WORST} AS status, string_agg(DISTINCT reasons, '+') AS reasons, unnest([{struct}], recursive := true) "
        "FROM muscle_levels WHERE level NOT LIKE 'disc-%' GROUP BY exam_id, level, muscle"
    )


def _features() -> View:
    quoted = "'{}'".format
    parts = (
        _long("vertebrae", {quoted(f): c for f, c in VERTEBRA_FEATURES.items()}, where="level IS NOT NULL"),
        _long("discs", {quoted(f): c for f, c in DISC_FEATURES.items()}, where="level IS NOT NULL"),
        _long(
            "muscle_levels",
            {f"'{f}_' || muscle || '_' || side": f for f in MUSCLE_FEATURES},
            where="level NOT LIKE 'disc-%'",
        ),
        _side_differences(),
        _long("curvature", {quoted(f): f for f in CURVATURE_FEATURES}, level="NULL::VARCHAR"),
        _long(
            "loads",
            {f"'{f}_' || task": c for f, c in LOAD_FEATURES.items()},
            where=f"engine = 'batch' AND convention = '{CONVENTION}'",
        ),
    )
    together = "\n  UNION ALL ".join(parts)
    return View(
        "features",
        "Every number in one row: exam, level, feature, value. All tasks, user's own ones too, and all named levels.",
        (
            Column("exam_id", "exam_id", "exam pseudonym"),
            Column("source", "source", "table that the number comes from"),
            Column("level", "level", "vertebra or disc; null for curvature, which belongs to the whole spine"),
            Column("feature", "feature", "name with unit, as in `exams_wide` without the level"),
            Column("value", unless_refused("value"), "the number; null where it was refused"),
            Column("status", "status", "ok, flagged or refused; of `side_difference` the worse of both sides"),
            Column("reasons", "reasons", "reason codes joined by '+'"),
        ),
        f"({together}\n) WHERE value IS NOT NULL OR status = 'refused'",
    )


def _exam_pairs() -> View:
    return View(
        "exam_pairs",
        "Two exams of one subject. Tables hold no dates (privacy): order and interval rest on whole years of age.",
        (
            Column("subject_id", "a.subject_id", description("exams", "subject_id")),
            Column("earlier_exam_id", "a.exam_id", "exam at the lower age"),
            Column("later_exam_id", "b.exam_id", "exam at the higher age"),
            Column("order_known", "coalesce(a.age_years < b.age_years, false)",
                   "false where both ages are equal or one is unknown: earlier and later are then arbitrary"),
            Column("earlier_age_years", "a.age_years", "age at the earlier exam"),
            Column("later_age_years", "b.age_years", "age at the later exam"),
            Column("years_between", "b.age_years - a.age_years",
                   "difference of the ages: right to within one year; nothing above 89, where all are 90"),
            Column("same_vendor", "a.vendor IS NOT DISTINCT FROM b.vendor", "both scanners are of one vendor"),
        ),
        "exams a JOIN exams b ON a.subject_id = b.subject_id AND a.exam_id <> b.exam_id "
        "AND coalesce(a.age_years < b.age_years, false) >= coalesce(b.age_years < a.age_years, false) "
        "AND (coalesce(a.age_years < b.age_years, false) OR a.exam_id < b.exam_id) "
        "WHERE a.status <> 'gone' AND b.status <> 'gone'",
    )  # fmt: skip


def _pairs() -> View:
    return View(
        "pairs",
        "Change of every number between two exams of one subject; only where both exams have it.",
        (
            Column("subject_id", "subject_id", description("exams", "subject_id")),
            Column("earlier_exam_id", "earlier_exam_id", "as in `exam_pairs`"),
            Column("later_exam_id", "later_exam_id", "as in `exam_pairs`"),
            Column("order_known", "order_known", "as in `exam_pairs`"),
            Column("years_between", "years_between", "as in `exam_pairs`"),
            Column("same_vendor", "same_vendor", "as in `exam_pairs`"),
            Column("level", "e.level", "vertebra or disc; null for curvature"),
            Column("feature", "e.feature", "as in `features`"),
            Column("earlier_value", "e.value", "at the earlier exam"),
            Column("later_value", "l.value", "at the later exam"),
            Column("difference", "CASE WHEN order_known THEN l.value - e.value END",
                   "later - earlier; null where the order is unknown"),
            Column("absolute_difference", "abs(l.value - e.value)", "its size, which needs no order"),
            Column("status", "CASE WHEN e.status = 'ok' AND l.status = 'ok' THEN 'ok' ELSE 'flagged' END",
                   "ok where both numbers are, else flagged; refused numbers have no row"),
        ),
        "exam_pairs JOIN features e ON e.exam_id = earlier_exam_id JOIN features l ON l.exam_id = later_exam_id "
        "AND l.feature = e.feature AND l.level IS NOT DISTINCT FROM e.level "
        "WHERE e.value IS NOT NULL AND l.value IS NOT NULL",
    )  # fmt: skip


def _percentiles() -> View:
    enough = f"count(DISTINCT subject_id) >= {MIN_SUBJECTS}"
    found = [
        Column(f"p{p}", f"CASE WHEN {enough} THEN quantile_cont(value, {p / 100}) END",
               f"null below {MIN_SUBJECTS} subjects", "p5, p25, p50, p75, p95")
        for p in (5, 25, 50, 75, 95)
    ]  # fmt: skip
    return View(
        "percentiles",
        f"How every number is distributed by sex and decade of age: ok rows only, from {MIN_SUBJECTS} subjects on.",
        (
            Column("feature", "feature", "as in `features`"),
            Column("level", "level", "vertebra or disc; null for curvature"),
            Column("sex", "sex", "F or M"),
            Column("age_band", AGE_BAND, "decade of age: 20-29, ..., 90+"),
            Column("n", "count(*)", "exams"),
            Column("n_subjects", "count(DISTINCT subject_id)", "subjects; one with two exams counts twice in n"),
            *found,
        ),
        "features JOIN exams USING (exam_id) "
        "WHERE features.status = 'ok' AND value IS NOT NULL AND sex IS NOT NULL AND age_years IS NOT NULL GROUP BY ALL",
    )  # fmt: skip


@cache
def views() -> dict[str, View]:
    """Name -> view, in an order in which each rests only on tables and on views before it."""
    wide = "One row per exam, one column per level and number; levels and tasks that every store knows have columns. "
    found = (
        _features(),
        exams_wide(
            "exams_wide", "'ok', 'flagged'", f"{wide}Refused numbers are null, flagged ones stand: see the counts."
        ),
        exams_wide("exams_wide_ok", "'ok'", "The same columns as `exams_wide`, with flagged numbers null, too."),
        levels_view(),
        _exam_pairs(),
        _pairs(),
        _percentiles(),
    )
    return {view.name: view for view in found}


def create_views(connection: duckdb.DuckDBPyConnection, *, temporary: bool) -> None:
    """Create all views in a connection that has the tables; `temporary` where the tables are registered objects."""
    kind = "TEMP VIEW" if temporary else "VIEW"
    for view in views().values():
        connection.execute(f"CREATE {kind} {view.name} AS {view.sql}")

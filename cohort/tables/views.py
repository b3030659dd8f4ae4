"""SQL views over the tables, for statistics: stable names with units, and no refused number in any of them.

Rules that hold for every view:

- A number of a refused row is null; a flagged one stays, and a status says so. Where statuses do not fit (`exams_wide`)
  there are counts, and a twin (`exams_wide_ok`) in which flagged numbers are null, too.
- Structures without a name (levels undecided) are in none of them: an ordinal position is no level.
- Loads are those of engine `batch` and of one convention, `vertebra_mean`; the other one is in table `loads`.
- Exams that left the archive are in none of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

import duckdb

from cohort.loading.tasks import DEFAULT_TASKS
from cohort.tables.schema import description
from cohort.terms import LUMBAR_VERTEBRAE, MUSCLES, SIDES

CONVENTION: Final = "vertebra_mean"
"""Of the loads in all views: that of Bruno et al. 2015, with which published loads can be compared."""

MIN_SUBJECTS: Final = 20
"""Below it a percentile is null (own choice): with fewer values the 5th and the 95th are the smallest and the largest,
and a cell of few people says too much about each of them."""

VERTEBRAE: Final = ("S1", *reversed(LUMBAR_VERTEBRAE), "T12")
DISCS: Final = ("L5-S1", "L4-L5", "L3-L4", "L2-L3", "L1-L2", "T12-L1")
"""Levels with columns in the wide views. Others (L6, T11, L4-S1, ...) are in `levels` and `features`."""

VERTEBRA_FEATURES: Final = {
    f"vertebra_{column}": column
    for column in (
        "anterior_height_mm",
        "middle_height_mm",
        "posterior_height_mm",
        "depth_mm",
        "wedge_deg",
        "tilt_deg",
        "inferior_tilt_deg",
        "compression_ratio",
        "volume_cm3",
    )
}
DISC_FEATURES: Final = {
    f"disc_{column}": column
    for column in (
        "height_mm",
        "outline_height_mm",
        "mean_height_mm",
        "anterior_height_mm",
        "middle_height_mm",
        "posterior_height_mm",
        "height_index",
        "width_mm",
        "area_mm2",
        "wedge_deg",
        "endplate_wedge_deg",
        "segmental_deg",
        "volume_cm3",
    )
}
MUSCLE_FEATURES: Final = ("csa_cm2", "csa_corrected_cm2", "lean_fraction")
CURVATURE_FEATURES: Final = (
    "lordosis_l1_s1_deg",
    "lordosis_l1_l5_deg",
    "lordosis_centroid_deg",
    "sacral_slope_deg",
    "coronal_deviation_mm",
)
LOAD_FEATURES: Final = {f"load_{column}": column for column in ("axial_n", "shear_ap_n", "shear_lateral_n")}
EXAM_COLUMNS: Final = (
    "exam_id",
    "subject_id",
    "status",
    "reason",
    "sex",
    "age_years",
    "height_m",
    "weight_kg",
    "vendor",
    "field_t",
    "axial_weighting",
)
STRUCTURES: Final = ("vertebrae", "discs", "muscle_levels", "curvature", "loads")

_WORST: Final = (
    "CASE WHEN bool_or(status = 'refused') THEN 'refused' WHEN bool_or(status = 'flagged') THEN 'flagged' "
    "WHEN count(status) > 0 THEN 'ok' END"
)
_DECADE: Final = "floor(age_years / 10)::INT * 10"  # not age_years // 10, which divides a double without rounding down
_AGE_BAND: Final = (
    f"CASE WHEN age_years >= 90 THEN '90+' ELSE format('{{0:02d}}-{{1:02d}}', {_DECADE}, {_DECADE} + 9) END"
)
_LOADS: Final = f"loads WHERE engine = 'batch' AND convention = '{CONVENTION}'"


@dataclass(frozen=True)
class Column:
    """One column of a view."""

    name: str
    sql: str
    """Expression that makes it."""
    text: str
    """What it means, for the data dictionary."""
    pattern: str = ""
    """How the dictionary names it together with its likes, for example `disc_height_mm_<disc>`; empty: by its name."""


@dataclass(frozen=True)
class View:
    """One view."""

    name: str
    summary: str
    columns: tuple[Column, ...]
    source: str
    """What follows FROM."""
    before: str = ""
    """Common table expressions."""

    @property
    def sql(self) -> str:
        """The SELECT behind the view."""
        shown = ",\n  ".join(f"{column.sql} AS {column.name}" for column in self.columns)
        return f"{self.before}SELECT\n  {shown}\nFROM {self.source}"


def level_name(level: str) -> str:
    """A level as part of a column's name: `L4-L5` is `L4_L5`."""
    return level.replace("-", "_")


def _same(table: str, names: Iterable[str], *, of: str = "") -> tuple[Column, ...]:
    """Columns of a table as they are."""
    return tuple(Column(name, f"{of}{name}", description(table, name)) for name in names)


def _unless_refused(column: str) -> str:
    return f"CASE WHEN status <> 'refused' THEN {column} END"


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
        f"{_WORST} AS status, string_agg(DISTINCT reasons, '+') AS reasons, unnest([{struct}], recursive := true) "
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
            Column("value", _unless_refused("value"), "the number; null where it was refused"),
            Column("status", "status", "ok, flagged or refused; of `side_difference` the worse of both sides"),
            Column("reasons", "reasons", "reason codes joined by '+'"),
        ),
        f"({together}\n) WHERE value IS NOT NULL OR status = 'refused'",
    )


def _at(column: str, where: str) -> str:
    return f"max({column}) FILTER (WHERE {where})"


def _wide_groups() -> dict[str, tuple[str, list[Column]]]:
    """Table -> (what follows FROM, columns gathered per exam)."""
    vertebrae = [
        Column(f"{f}_{v}", _at(c, f"level = '{v}'"), description("vertebrae", c), f"{f}_<vertebra>")
        for f, c in VERTEBRA_FEATURES.items()
        for v in VERTEBRAE
    ]
    discs = [
        Column(f"{f}_{level_name(d)}", _at(c, f"level = '{d}'"), description("discs", c), f"{f}_<disc>")
        for f, c in DISC_FEATURES.items()
        for d in DISCS
    ]
    muscles = [
        Column(f"{name}_{level_name(d)}", _at(c, f"level = '{d}' AND {where}"), text, f"{pattern}_<disc>")
        for name, c, where, text, pattern in _muscle_columns()
        for d in DISCS[:-1]
    ]
    loads = [
        Column(
            f"{f}_{v}_{task}",
            _at(c, f"level = '{v}' AND task = '{task}'"),
            f"{description('loads', c)}; {CONVENTION}",
            f"{f}_<lumbar>_<task>",
        )
        for f, c in LOAD_FEATURES.items()
        for task in DEFAULT_TASKS
        for v in reversed(LUMBAR_VERTEBRAE)
    ]
    curvature = [Column(f, f"max({f})", description("curvature", f)) for f in CURVATURE_FEATURES]
    return {
        "vertebrae": ("vertebrae WHERE true", vertebrae),
        "discs": ("discs WHERE true", discs),
        "muscle_levels": ("muscle_levels WHERE true", muscles),
        "curvature": ("curvature WHERE true", curvature),
        "loads": (_LOADS, loads),
    }


def _muscle_columns() -> list[tuple[str, str, str, str, str]]:
    """Name, column, condition, text and pattern of what a disc's level has of the muscles."""
    of_sides = [
        (
            f"{feature}_{muscle}_{side}",
            feature,
            f"muscle = '{muscle}' AND side = '{side}'",
            description("muscle_levels", feature),
            f"{feature}_<muscle>_<side>",
        )
        for feature in MUSCLE_FEATURES
        for muscle in MUSCLES
        for side in SIDES
    ]
    text = description("muscle_levels", "side_difference")
    return of_sides + [
        (f"side_difference_{muscle}", "side_difference", f"muscle = '{muscle}'", text, "side_difference_<muscle>")
        for muscle in MUSCLES
    ]


def _exams_wide(name: str, statuses: str, summary: str) -> View:
    groups = _wide_groups()
    parts = []
    for table, (source, columns) in groups.items():
        gathered = ", ".join(f"{column.sql} AS {column.name}" for column in columns)
        parts.append(f"w_{table} AS (SELECT exam_id, {gathered} FROM {source} AND status IN ({statuses}) GROUP BY ALL)")
        counts = ", ".join(f"count(*) FILTER (WHERE status = '{s}') AS {s}" for s in ("ok", "flagged", "refused"))
        parts.append(f"n_{table} AS (SELECT exam_id, {counts} FROM {source} GROUP BY ALL)")
    parts.append("named AS (SELECT exam_id, min(level_confidence) FILTER (WHERE level IS NOT NULL) AS c "
                 "FROM vertebrae GROUP BY ALL)")  # fmt: skip
    counted = [
        Column(
            f"n_{table}_{s}",
            f"coalesce(n_{table}.{s}, 0)",
            f"rows of `{table}` with the status {s}",
            f"n_{table}_<status>",
        )
        for table in groups
        for s in ("ok", "flagged", "refused")
    ]
    values = [
        Column(column.name, f"w_{table}.{column.name}", column.text, column.pattern)
        for table, (_, columns) in groups.items()
        for column in columns
    ]
    joins = " ".join(f"LEFT JOIN {k}_{table} USING (exam_id)" for table in groups for k in ("w", "n"))
    return View(
        name,
        summary,
        (
            *_same("exams", EXAM_COLUMNS[:1]),
            *_same("exams", EXAM_COLUMNS[1:], of="exams."),
            Column("age_band", _AGE_BAND, "decade of age: 20-29, ..., 90+"),
            Column("bmi_kg_m2", "weight_kg / (height_m * height_m)", "body mass index"),
            Column(
                "level_confidence", "named.c", "probability of the least certain name; null where levels are undecided"
            ),
            *counted,
            *values,
        ),
        f"exams LEFT JOIN named USING (exam_id) {joins} WHERE exams.status <> 'gone'",
        "WITH " + ",\n".join(parts) + "\n",
    )


def _levels() -> View:
    """Everything of one level side by side."""
    muscles = [(name, _at(c, where), text, pattern) for name, c, where, text, pattern in _muscle_columns()]
    loads = [
        (f"{f}_{task}", _at(c, f"task = '{task}'"), f"{description('loads', c)}; {CONVENTION}", f"{f}_<task>")
        for f, c in LOAD_FEATURES.items()
        for task in DEFAULT_TASKS
    ]
    status_text = "status of the loads of this task"
    load_status = [
        (f"load_status_{task}", f"max(status) FILTER (WHERE task = '{task}')", status_text, "load_status_<task>")
        for task in DEFAULT_TASKS
    ]
    worst, why = f"{_WORST} AS status", "string_agg(DISTINCT reasons, '+') AS reasons"
    # numbers of refused rows are already null here, so that every aggregate over them is
    null_muscles = ", ".join(f"{_unless_refused(c)} AS {c}" for c in (*MUSCLE_FEATURES, "side_difference"))
    null_loads = ", ".join(f"{_unless_refused(c)} AS {c}" for c in LOAD_FEATURES.values())
    before = f"""WITH v AS (SELECT * FROM vertebrae WHERE level IS NOT NULL),
d AS (SELECT *, split_part(level, '-', 1) AS above FROM discs WHERE level IS NOT NULL),
m0 AS (SELECT exam_id, split_part(level, '-', 1) AS above, level, muscle, side, status, reasons, {null_muscles}
  FROM muscle_levels WHERE level NOT LIKE 'disc-%'),
m AS (SELECT exam_id, above, any_value(level) AS disc, {worst}, {why}, {_as_list(muscles)} FROM m0 GROUP BY ALL),
l0 AS (SELECT exam_id, level, task, status, reasons, {null_loads} FROM {_LOADS}),
l AS (SELECT exam_id, level, {why}, {_as_list([*loads, *load_status])} FROM l0 GROUP BY ALL),
k AS (SELECT exam_id, level FROM v UNION SELECT exam_id, above FROM d UNION SELECT exam_id, above FROM m
  UNION SELECT exam_id, level FROM l)
"""
    source = """k
JOIN exams ON exams.exam_id = k.exam_id AND exams.status <> 'gone'
LEFT JOIN v ON v.exam_id = k.exam_id AND v.level = k.level
LEFT JOIN d ON d.exam_id = k.exam_id AND d.above = k.level
LEFT JOIN m ON m.exam_id = k.exam_id AND m.above = k.level
LEFT JOIN l ON l.exam_id = k.exam_id AND l.level = k.level"""
    return View(
        "levels",
        "One row per exam and vertebra: its shape, the disc below it, the muscles at that disc, the loads on it.",
        (
            Column("exam_id", "k.exam_id", "exam pseudonym"),
            Column("level", "k.level", "vertebra"),
            Column("disc", "coalesce(d.level, m.disc)", "disc below it (L4-L5 for L4); null where there is none"),
            Column("level_confidence", "coalesce(v.level_confidence, d.level_confidence)", "probability of the name"),
            Column("vertebra_status", "v.status", "ok, flagged or refused; null where not measured"),
            Column("vertebra_reasons", "v.reasons", "reason codes joined by '+'"),
            *_values_of("v", "vertebrae", VERTEBRA_FEATURES),
            Column("disc_status", "d.status", "as vertebra_status"),
            Column("disc_reasons", "d.reasons", "reason codes joined by '+'"),
            *_values_of("d", "discs", DISC_FEATURES),
            Column("muscle_status", "m.status", "worst status of the muscles at the disc; refused numbers are null"),
            Column("muscle_reasons", "m.reasons", "reason codes joined by '+'"),
            *(Column(name, f"m.{name}", text, pattern) for name, _, text, pattern in muscles),
            *(Column(name, f"l.{name}", text, pattern) for name, _, text, pattern in [*load_status, *loads]),
            Column("load_reasons", "l.reasons", "reason codes of all tasks joined by '+'"),
        ),
        source,
        before,
    )


def _as_list(columns: Iterable[tuple[str, str, str, str]]) -> str:
    return ", ".join(f"{sql} AS {name}" for name, sql, _, _ in columns)


def _values_of(alias: str, table: str, features: Mapping[str, str]) -> Iterable[Column]:
    return (
        Column(name, f"CASE WHEN {alias}.status <> 'refused' THEN {alias}.{c} END", description(table, c))
        for name, c in features.items()
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
        "WHERE a.status IN ('ok', 'flagged') AND b.status IN ('ok', 'flagged')",
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
            Column("age_band", _AGE_BAND, "decade of age: 20-29, ..., 90+"),
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
        _exams_wide(
            "exams_wide", "'ok', 'flagged'", f"{wide}Refused numbers are null, flagged ones stand: see the counts."
        ),
        _exams_wide("exams_wide_ok", "'ok'", "The same columns as `exams_wide`, with flagged numbers null, too."),
        _levels(),
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

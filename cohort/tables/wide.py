"""Views with many columns: one row per exam, and one per exam and level."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cohort.loading.tasks import DEFAULT_TASKS
from cohort.tables.schema import description
from cohort.tables.view import (
    AGE_BAND,
    CONVENTION,
    CURVATURE_FEATURES,
    DISC_FEATURES,
    DISCS,
    EXAM_COLUMNS,
    LOAD_FEATURES,
    LOADS,
    MUSCLE_FEATURES,
    VERTEBRA_FEATURES,
    VERTEBRAE,
    WORST,
    Column,
    View,
    level_name,
    same,
    unless_refused,
)
from cohort.terms import LUMBAR_VERTEBRAE, MUSCLES, SIDES


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
        "loads": (LOADS, loads),
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


def exams_wide(name: str, statuses: str, summary: str) -> View:
    """One row per exam; `statuses`: SQL list of those whose numbers are shown. Counts are always of all."""
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
            *same("exams", EXAM_COLUMNS[:1]),
            *same("exams", EXAM_COLUMNS[1:], of="exams."),
            Column("age_band", AGE_BAND, "decade of age: 20-29, ..., 90+"),
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


def levels_view() -> View:
    """One row per exam and vertebra; the disc, and the muscles at it, are those below it."""
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
    worst, why = f"{WORST} AS status", "string_agg(DISTINCT reasons, '+') AS reasons"
    # numbers of refused rows are already null here, so that every aggregate over them is
    null_muscles = ", ".join(f"{unless_refused(c)} AS {c}" for c in (*MUSCLE_FEATURES, "side_difference"))
    null_loads = ", ".join(f"{unless_refused(c)} AS {c}" for c in LOAD_FEATURES.values())
    before = f"""WITH v AS (SELECT * FROM vertebrae WHERE level IS NOT NULL),
d AS (SELECT *, split_part(level, '-', 1) AS above FROM discs WHERE level IS NOT NULL),
m0 AS (SELECT exam_id, split_part(level, '-', 1) AS above, level, muscle, side, status, reasons, {null_muscles}
  FROM muscle_levels WHERE level NOT LIKE 'disc-%'),
m AS (SELECT exam_id, above, any_value(level) AS disc, {worst}, {why}, {_as_list(muscles)} FROM m0 GROUP BY ALL),
l0 AS (SELECT exam_id, level, task, status, reasons, {null_loads} FROM {LOADS}),
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

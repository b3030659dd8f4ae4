"""Stage load: measured rows and demographics -> loads of L1 to L5, by the batch engine, and by OpenSim for a sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from cohort.anatomy.levels import LOW_CONFIDENCE
from cohort.anatomy.vertebral_count import USUAL
from cohort.archive.demographics import Demographics
from cohort.errors import RefusedError
from cohort.loading.assumptions import Assumptions, Personalisation
from cohort.loading.base_model import BaseModel, read_base_model
from cohort.loading.opensim_engine import solve_with_opensim
from cohort.loading.personalise import EVERYTHING
from cohort.loading.solve import STANDARD, solve_loads
from cohort.loading.subject import LoadingSubject
from cohort.loading.tasks import Task
from cohort.rows import LoadRow, MuscleLevelRow, QualityRow
from cohort.terms import MUSCLES
from pipelines.measure import read_rows
from pipelines.outcome import Result, WorkItem

AGREEMENT_LIMIT = 0.005
"""Largest relative difference of axial load between the engines that is not flagged (docs/loads.md)."""

WHOLE_EXAM = frozenset(
    {
        "axial_conflict",
        "components_removed",
        "count_mismatch",
        "ghosting",
        "levels_low_confidence",
        "low_contrast",
        "lumbar_variant",
        "network_uncertain",
    }
)
"""Doubts about all names or a whole mask, which no single row carries."""
MIN_VERTEBRAE = 3
"""Fewer named vertebrae are no curve."""
IMPUTED = "imputed"
"""Source of a height or mass that nobody measured."""


@dataclass(frozen=True)
class LoadTask:
    """Whose loads, in which tasks."""

    store: Path
    measured_path: str
    """Measured rows relative to STORE."""
    demographics: Demographics
    tasks: tuple[Task, ...]
    base_models: Mapping[str, Path]
    """Sex -> .osim file."""
    with_opensim: bool
    """Solve again with OpenSim itself."""
    opensim_timeout_s: float
    use: Personalisation = EVERYTHING
    """Which measurements change the base model."""
    impute: bool = False
    """Whether a typical height or mass stands in for an unknown one."""
    assumptions: Assumptions = STANDARD


def load(item: WorkItem) -> Result:
    """Compute the loads of one exam in all tasks.

    Raises
    ------
    RefusedError
        `no_demographics` without sex, or without height and weight unless the configuration lets typical ones stand in
    """
    task: LoadTask = item.task
    demographics = task.demographics
    if task.impute and demographics.sex is not None:
        demographics = impute_demographics(demographics, _base_model(str(task.base_models[demographics.sex])))
    subject, doubts = loading_subject(
        item.exam_id, demographics, read_rows(task.store / task.measured_path), use=task.use
    )
    base_path = task.base_models[subject.sex]
    base = _base_model(str(base_path))
    rows = [
        row
        for one in task.tasks
        for row in solve_loads(base, [subject], one, use=task.use, assumptions=task.assumptions)
    ]
    unchecked: list[QualityRow] = []
    if task.with_opensim:
        checked, unchecked = _opensim_rows(subject, base_path, task)
        rows += checked
    rows = [_with_doubts(row, doubts) for row in rows]
    quality = [*_flags(item.exam_id, rows), *_disagreement(item.exam_id, rows), *unchecked]
    flagged = next((row.reasons for row in rows if row.status != "ok" and row.reasons), None)
    reason = quality[0].reason if quality else flagged.split("+")[0] if flagged else None
    return Result(rows={"loads": rows, "quality": quality}, status="flagged" if reason else "ok", reason=reason)


def _opensim_rows(subject: LoadingSubject, base_path: Path, task: LoadTask) -> tuple[list[LoadRow], list[QualityRow]]:
    """Rows of the reference engine, and flags for tasks that it could not solve: those lose the check, not the load."""
    rows: list[LoadRow] = []
    flags: list[QualityRow] = []
    for one in task.tasks:
        try:
            rows += solve_with_opensim(
                base_path,
                subject,
                one,
                use=task.use,
                assumptions=task.assumptions,
                timeout_s=task.opensim_timeout_s,
            )
        except RefusedError as error:
            structure = f"opensim {one.name}"
            flags.append(QualityRow(exam_id=subject.exam_id, stage="load", reason=error.reason, structure=structure))
    return rows, flags


@lru_cache(maxsize=4)
def _base_model(path: str) -> BaseModel:
    return read_base_model(Path(path))


def impute_demographics(demographics: Demographics, base: BaseModel) -> Demographics:
    """Fill an unknown height with the base model's of that sex, and an unknown mass with the base model's body mass
    index times height squared; their source is then `imputed`."""
    if demographics.height_m is None:
        demographics = replace(demographics, height_m=base.height_m, height_source=IMPUTED)
    if demographics.weight_kg is None and demographics.height_m is not None:
        mass = base.total_mass_kg * (demographics.height_m / base.height_m) ** 2
        demographics = replace(demographics, weight_kg=mass, weight_source=IMPUTED)
    return demographics


def loading_subject(
    exam_id: str, demographics: Demographics, rows: Mapping[str, Sequence[Any]], *, use: Personalisation = EVERYTHING
) -> tuple[LoadingSubject, tuple[str, ...]]:
    """What personalises the model, and the reasons to doubt it.

    Only named vertebrae and discs, and areas and centroids of muscles, that were not refused are used; a flag on any of
    them that `use` makes count, or on the exam as a whole, is passed on.

    Raises
    ------
    RefusedError
        `no_demographics`; `lumbar_variant` for a person whose vertebrae are not those of the base models
    """
    if demographics.sex is None or demographics.height_m is None or demographics.weight_kg is None:
        missing = [name for name in ("sex", "height_m", "weight_kg") if getattr(demographics, name) is None]
        raise RefusedError("no_demographics", f"{', '.join(missing)} unknown")
    _require_usual_vertebrae([row.level for row in rows["vertebrae"] if row.level])
    vertebrae = [row for row in rows["vertebrae"] if row.level and row.status != "refused" and not row.touches_border]
    discs = [row for row in rows["discs"] if row.level and row.status != "refused" and not row.touches_border]
    areas = [row for row in rows["muscle_levels"] if row.status != "refused" and not row.level.startswith("disc-")]
    if len(vertebrae) < MIN_VERTEBRAE:
        vertebrae, discs = [], []
    subject = LoadingSubject(
        exam_id=exam_id,
        sex="M" if demographics.sex == "M" else "F",
        height_m=demographics.height_m,
        mass_kg=demographics.weight_kg,
        height_source="imputed" if demographics.height_source == IMPUTED else "measured",
        mass_source="imputed" if demographics.weight_source == IMPUTED else "measured",
        vertebra_centroids_mm={row.level: (row.x_mm, row.y_mm, row.z_mm) for row in vertebrae},
        disc_centroids_mm={row.level: (row.x_mm, row.y_mm, row.z_mm) for row in discs},
        csa_cm2={(row.muscle, row.side, row.level): row.csa_corrected_cm2 for row in areas},
        muscle_centroids_mm={(row.muscle, row.side, row.level): (row.x_mm, row.y_mm, row.z_mm) for row in areas},
    )
    spine = (*vertebrae, *discs) if use.curvature or use.position else ()
    muscles = areas if use.strength or use.position else ()
    flagged = any(row.status == "flagged" for row in (*spine, *muscles))
    unsure = any(row.level_confidence < LOW_CONFIDENCE for row in vertebrae)
    doubted = any(_is_about(row, muscles) for row in rows["quality"] if row.reason in WHOLE_EXAM)
    return subject, ("upstream_untrusted",) if flagged or unsure or doubted else ()


def _is_about(flag: QualityRow, muscles: Sequence[MuscleLevelRow]) -> bool:
    """Whether a doubt about a whole mask or picture is one about what is used: those about a muscle or an axial stack
    where no row of it is, are not. Muscles that contradict the names of levels speak against the names."""
    structure = flag.structure or ""
    if flag.reason == "axial_conflict" or not (structure in MUSCLES or structure.startswith("axial stack")):
        return True
    return any(structure in (row.muscle, f"axial stack {row.stack}") for row in muscles)


def _require_usual_vertebrae(names: Sequence[str]) -> None:
    """Names follow each other from S1 upward as in the base models, which have five lumbar and twelve thoracic."""
    usual = [USUAL.name(place) for place in range(len(names))]
    if names and names[0] == "S1" and list(names) != usual:
        raise RefusedError("lumbar_variant", "the base models have five lumbar and twelve thoracic vertebrae")


def _with_doubts(row: LoadRow, doubts: tuple[str, ...]) -> LoadRow:
    if not doubts:
        return row
    reasons = [*(row.reasons.split("+") if row.reasons else []), *doubts]
    return replace(row, status="refused" if row.status == "refused" else "flagged", reasons="+".join(reasons))


def _flags(exam_id: str, rows: Sequence[LoadRow]) -> list[QualityRow]:
    """One flag per reason and task."""
    seen = {(reason, row.task) for row in rows for reason in (row.reasons or "").split("+") if reason}
    return [QualityRow(exam_id=exam_id, stage="load", reason=reason, structure=task) for reason, task in sorted(seen)]


def _disagreement(exam_id: str, rows: Sequence[LoadRow]) -> list[QualityRow]:
    difference = engine_difference(rows)
    if difference is None or difference <= AGREEMENT_LIMIT:
        return []
    return [
        QualityRow(exam_id=exam_id, stage="load", reason="engines_disagree", value=difference, limit=AGREEMENT_LIMIT)
    ]


def engine_difference(rows: Sequence[LoadRow]) -> float | None:
    """Largest relative difference of axial load between batch and opensim rows; None without a pair.

    Refused rows do not count: where an engine did not converge, that is its own reason.
    """
    by_engine: dict[str, dict[tuple[str, str, str], float]] = {"batch": {}, "opensim": {}}
    for row in rows:
        if row.status == "refused":
            continue
        by_engine[row.engine][row.task, row.level, row.convention] = row.axial_n
    pairs = [
        (by_engine["batch"][key], value) for key, value in by_engine["opensim"].items() if key in by_engine["batch"]
    ]
    if not pairs:
        return None
    return max(abs(ours - theirs) / max(abs(theirs), 1.0) for ours, theirs in pairs)

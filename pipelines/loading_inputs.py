"""What the loads of an exam rest on: its measured rows and demographics, and which of them are doubtful."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cohort.anatomy.levels import LOW_CONFIDENCE
from cohort.anatomy.vertebral_count import USUAL
from cohort.archive.demographics import Demographics
from cohort.errors import RefusedError
from cohort.loading.assumptions import Personalisation
from cohort.loading.base_model import BaseModel
from cohort.loading.personalise import EVERYTHING
from cohort.loading.subject import LoadingSubject
from cohort.rows import DiscRow, MuscleLevelRow, QualityRow, VertebraRow
from cohort.terms import MUSCLES

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


def impute_demographics(demographics: Demographics, base: BaseModel) -> Demographics:
    """Fill an unknown height with the base model's of that sex, and an unknown mass with the base model's body mass
    index times height squared; their source is then `imputed`."""
    if demographics.height_m is None:
        demographics = replace(demographics, height_m=base.height_m, height_source=IMPUTED)
    if demographics.weight_kg is None and demographics.height_m is not None:
        mass = base.total_mass_kg * (demographics.height_m / base.height_m) ** 2
        demographics = replace(demographics, weight_kg=mass, weight_source=IMPUTED)
    return demographics


@dataclass(frozen=True)
class LoadingInputs:
    """What personalises the model of one exam."""

    subject: LoadingSubject
    without_doubted: LoadingSubject | None
    """The same without measurements that are flagged themselves; None where none is."""
    doubted: bool
    """Whether the names or the spine's masks as a whole are in doubt."""


def loading_inputs(
    exam_id: str, demographics: Demographics, rows: Mapping[str, Sequence[Any]], *, use: Personalisation = EVERYTHING
) -> LoadingInputs:
    """Gather what personalises the model, and what of it is doubtful.

    Only named vertebrae and discs, and areas and centroids of muscles, that were not refused are used; flags on parts
    that `use` switches off do not count.

    Raises
    ------
    RefusedError
        `no_demographics`; `lumbar_variant` for a person whose vertebrae are not those of the base models
    """
    _require_usual_vertebrae([row.level for row in rows["vertebrae"] if row.level])
    spine = [
        row
        for row in (*rows["vertebrae"], *rows["discs"])
        if row.level and row.status != "refused" and not row.touches_border
    ]
    muscles = [row for row in rows["muscle_levels"] if row.status != "refused" and not row.level.startswith("disc-")]
    flags = [row for row in rows["quality"] if row.reason in WHOLE_EXAM]
    bones_count, muscles_count = use.curvature or use.position, use.strength or use.position
    sound_spine = [row for row in spine if row.status == "ok" or not bones_count]
    sound_muscles = [row for row in muscles if not (muscles_count and _is_doubted(row, flags))]
    unflagged = (sound_spine, sound_muscles) == (spine, muscles)
    unsure = any(row.level_confidence < LOW_CONFIDENCE for row in spine if isinstance(row, VertebraRow))
    return LoadingInputs(
        subject=_subject(exam_id, demographics, spine, muscles),
        without_doubted=None if unflagged else _subject(exam_id, demographics, sound_spine, sound_muscles),
        doubted=unsure or any(_is_about_spine(flag) for flag in flags),
    )


def _subject(
    exam_id: str, demographics: Demographics, spine: Sequence[Any], muscles: Sequence[MuscleLevelRow]
) -> LoadingSubject:
    if demographics.sex is None or demographics.height_m is None or demographics.weight_kg is None:
        missing = [name for name in ("sex", "height_m", "weight_kg") if getattr(demographics, name) is None]
        raise RefusedError("no_demographics", f"{', '.join(missing)} unknown")
    vertebrae = [row for row in spine if isinstance(row, VertebraRow)]
    centroids = {
        kind: {row.level: (row.x_mm, row.y_mm, row.z_mm) for row in spine if isinstance(row, kind)}
        for kind in (VertebraRow, DiscRow)
        if len(vertebrae) >= MIN_VERTEBRAE
    }
    return LoadingSubject(
        exam_id=exam_id,
        sex="M" if demographics.sex == "M" else "F",
        height_m=demographics.height_m,
        mass_kg=demographics.weight_kg,
        height_source="imputed" if demographics.height_source == IMPUTED else "measured",
        mass_source="imputed" if demographics.weight_source == IMPUTED else "measured",
        vertebra_centroids_mm=centroids.get(VertebraRow, {}),
        disc_centroids_mm=centroids.get(DiscRow, {}),
        csa_cm2={(row.muscle, row.side, row.level): row.csa_corrected_cm2 for row in muscles},
        muscle_centroids_mm={(row.muscle, row.side, row.level): (row.x_mm, row.y_mm, row.z_mm) for row in muscles},
    )


def _is_about_spine(flag: QualityRow) -> bool:
    """Whether a doubt about a whole mask or picture is about the names or the spine, not about a muscle or an axial
    stack. Muscles that contradict the names of levels speak against the names."""
    structure = flag.structure or ""
    return flag.reason == "axial_conflict" or not (structure in MUSCLES or structure.startswith("axial stack"))


def _is_doubted(row: MuscleLevelRow, flags: Sequence[QualityRow]) -> bool:
    """Whether a muscle's area is flagged, or its muscle's mask or its axial stack as a whole."""
    structures = {flag.structure for flag in flags if not _is_about_spine(flag)}
    return row.status == "flagged" or not structures.isdisjoint((row.muscle, f"axial stack {row.stack}"))


def _require_usual_vertebrae(names: Sequence[str]) -> None:
    """Names follow each other from S1 upward as in the base models, which have five lumbar and twelve thoracic."""
    usual = [USUAL.name(place) for place in range(len(names))]
    if names and names[0] == "S1" and list(names) != usual:
        raise RefusedError("lumbar_variant", "the base models have five lumbar and twelve thoracic vertebrae")

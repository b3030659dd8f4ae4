"""How far loads move when an assumption, or an input, is another one; and how women differ from men."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from cohort.loading.assumptions import Assumptions
from cohort.loading.base_model import BaseModel, Floats
from cohort.loading.curvature import CHAIN, DISCS
from cohort.loading.solve import STANDARD, solve_loads
from cohort.loading.subject import LoadingSubject, Point
from cohort.loading.tasks import FLEXION60_5KG, STANDING, Task
from cohort.terms import LUMBAR_VERTEBRAE
from pipelines.validation.loads_in_vivo import HIDDEN_ACTIVATION
from pipelines.validation.loads_models import (
    NamedModel,
    Table,
    axial_n,
    by_level,
    distinct_reasons,
    level_columns,
)
from pipelines.validation.loads_people import SEED, measured_person, person

HEIGHT_M: Final = 1.75
MASS_KG: Final = 75.0
TASKS_VARIED: Final = (STANDING, FLEXION60_5KG)
RHYTHMS: Final = {
    "AnyBody": (0.157, 0.174, 0.176, 0.168, 0.167, 0.087),
    "Christophy": (0.125, 0.185, 0.204, 0.231, 0.255, 0.0),
}
"""Shares of L5/S1 .. T12/L1: the lumbar rhythm of AnyBody's managed model repository, read from its cumulative table;
Christophy et al. 2012 (Biomech Model Mechanobiol 11:19), L5/S1 by difference."""

DRAWS: Final = 200
CENTROID_ERRORS_MM: Final = (0.5, 1.0)
"""Standard deviations along each axis; half a millimetre is about the mean distance that degraded masks leave
(docs/validation/anatomy.md)."""
PLACE_ERRORS_MM: Final = (1.0, 3.0)
"""Of the centroids of muscles, along each axis (own choice)."""
AREA_ERRORS: Final = (0.05, 0.18)
"""Relative standard deviations: about what masks leave, and the mean error of degraded masks (docs/validation)."""

OF_FLEXION: Final = ("rhythm", "lumbar share")
"""Kinds of variations that change nothing upright."""

HEIGHT_BOTH_M: Final = 1.70
MASS_BOTH_KG: Final = 70.0


@dataclass(frozen=True, eq=False)
class Variation:
    """One assumption changed; everything else as shipped."""

    name: str
    kind: str
    base: Callable[[BaseModel], BaseModel] = lambda base: base
    task: Callable[[Task], Task] = lambda task: task
    assumptions: Assumptions = STANDARD
    mass_kg: float = MASS_KG
    height_m: float = HEIGHT_M


@dataclass(frozen=True, kw_only=True)
class _OtherRhythm(Task):
    """A task whose lumbar flexion is shared otherwise."""

    rhythm: tuple[float, ...]

    @property
    def joint_angles_rad(self) -> npt.NDArray[np.float64]:
        angles = super().joint_angles_rad
        extension = angles[:, 0].sum() * np.array(self.rhythm) / sum(self.rhythm)
        return np.column_stack([extension, angles[:, 1:]])


def with_rhythm(task: Task, rhythm: tuple[float, ...]) -> Task:
    """Share lumbar flexion by `rhythm` [6], L5/S1 to T12/L1."""
    return _OtherRhythm(**vars(task), rhythm=rhythm)


def _stronger(ratio: float) -> Callable[[BaseModel], BaseModel]:
    return lambda base: replace(base, strength_n=base.strength_n * ratio)


def variations() -> list[Variation]:
    """All variations, the shipped assumptions first."""
    return [
        Variation("as shipped", "as shipped"),
        *(
            Variation(f"strength x {ratio:g} ({100 * ratio:.0f} N/cm2)", "strength", base=_stronger(ratio))
            for ratio in (0.46, 0.8, 1.2)
        ),
        *(
            Variation(f"rhythm of {name}", "rhythm", task=lambda task, shares=shares: with_rhythm(task, shares))
            for name, shares in RHYTHMS.items()
        ),
        *(
            Variation(
                f"lumbar share {share:g}", "lumbar share", task=lambda task, s=share: replace(task, lumbar_share=s)
            )
            for share in (0.0, 0.5, 1.0)
        ),
        Variation("passive stiffness", "passive stiffness", assumptions=replace(STANDARD, passive_stiffness=True)),
        Variation("force-length relation", "force-length", assumptions=replace(STANDARD, force_length=True)),
        Variation(
            f"least activation {HIDDEN_ACTIVATION:g}",
            "least activation",
            assumptions=replace(STANDARD, min_activation=HIDDEN_ACTIVATION),
        ),
        *(Variation(f"mass {mass:g} kg", "mass", mass_kg=mass) for mass in (60.0, 90.0, 110.0)),
        *(Variation(f"height {height:g} m", "height", height_m=height) for height in (1.65, 1.85)),
    ]


def sensitivity_table(base: BaseModel) -> Table:
    """Axial loads at the joints below L1 to L5 of a man of 1.75 m and 75 kg under every variation."""
    table: Table = []
    for task in TASKS_VARIED:
        shipped: Floats | None = None
        for one in variations():
            if one.kind in OF_FLEXION and not task.trunk_flexion_deg:
                continue
            subject = person("M", one.height_m, one.mass_kg)
            rows = solve_loads(one.base(base), [subject], one.task(task), assumptions=one.assumptions)
            load = by_level(rows, "joint_below")[0]
            shipped = load if shipped is None else shipped
            change = 100.0 * (load / shipped - 1.0)
            table.append(
                {
                    "task": task.name,
                    "variation": one.name,
                    "kind": one.kind,
                    **level_columns(load),
                    **{
                        f"{level} %": round(float(change[LUMBAR_VERTEBRAE.index(level)]), 1)
                        for level in ("L1", "L4", "L5")
                    },
                    "state": distinct_reasons(rows),
                }
            )
    return table


def input_table(base: BaseModel, draws: int = DRAWS) -> Table:
    """Error of loads from errors of what is measured, for a typical measured man: mean and 95th percentile, %."""
    truth = measured_person(base, "M", HEIGHT_M, MASS_KG)
    disturbed = {
        **{
            f"spine, centroids, {mm:g} mm": [_moved_centroids(truth, mm, k) for k in range(draws)]
            for mm in CENTROID_ERRORS_MM
        },
        **{
            f"areas, {100 * error:.0f} %": [_other_areas(truth, error, k) for k in range(draws)]
            for error in AREA_ERRORS
        },
        **{
            f"muscles, centroids, {mm:g} mm": [_moved_muscles(truth, mm, k) for k in range(draws)]
            for mm in PLACE_ERRORS_MM
        },
        "mass, 5 %": [_other_mass(truth, 0.05, k) for k in range(draws)],
        "all names one level too high": [_renamed(truth, 1)],
        "all names one level too low": [_renamed(truth, -1)],
    }
    return [
        _input_row(base, truth, task, name, people) for task, (name, people) in product(TASKS_VARIED, disturbed.items())
    ]


def _input_row(
    base: BaseModel, truth: LoadingSubject, task: Task, name: str, people: Sequence[LoadingSubject]
) -> dict[str, Any]:
    true = axial_n(base, [truth], task)[0]
    error = 100.0 * np.abs(axial_n(base, people, task) / true - 1.0)
    mean = zip(LUMBAR_VERTEBRAE, error.mean(axis=0), strict=True)
    return {
        "task": task.name,
        "error of": name,
        "n": len(people),
        **{f"{level} %": round(float(value), 1) for level, value in mean},
        "all levels, 95th percentile %": round(float(np.percentile(error, 95)), 1),
        "largest %": round(float(error.max()), 1),
    }


def _moved_centroids(subject: LoadingSubject, error_mm: float, number: int) -> LoadingSubject:
    rng = np.random.default_rng([SEED, number])

    return replace(
        subject,
        vertebra_centroids_mm=_moved(subject.vertebra_centroids_mm, error_mm, rng),
        disc_centroids_mm=_moved(subject.disc_centroids_mm, error_mm, rng),
    )


def _other_areas(subject: LoadingSubject, error: float, number: int) -> LoadingSubject:
    rng = np.random.default_rng([SEED, number])
    return replace(
        subject, csa_cm2={key: area * float(1.0 + error * rng.normal()) for key, area in subject.csa_cm2.items()}
    )


def _moved_muscles(subject: LoadingSubject, error_mm: float, number: int) -> LoadingSubject:
    rng = np.random.default_rng([SEED, number])
    return replace(subject, muscle_centroids_mm=_moved(subject.muscle_centroids_mm, error_mm, rng))


def _moved(points: Mapping[Any, Point], error_mm: float, rng: np.random.Generator) -> dict[Any, Point]:
    return {key: tuple(np.array(at) + rng.normal(0.0, error_mm, 3)) for key, at in points.items()}


def _other_mass(subject: LoadingSubject, error: float, number: int) -> LoadingSubject:
    rng = np.random.default_rng([SEED, number])
    return replace(subject, mass_kg=subject.mass_kg * float(1.0 + error * rng.normal()))


def _renamed(subject: LoadingSubject, up: int) -> LoadingSubject:
    """Every vertebra and disc under the name of its neighbour; those whose new name is outside the chain are lost."""
    vertebra = dict(zip(CHAIN, _shifted(CHAIN, up), strict=True))
    disc = dict(zip(DISCS, _shifted(DISCS, up), strict=True))
    return replace(
        subject,
        vertebra_centroids_mm={vertebra[k]: at for k, at in subject.vertebra_centroids_mm.items() if vertebra[k]},
        disc_centroids_mm={disc[k]: at for k, at in subject.disc_centroids_mm.items() if disc[k]},
        csa_cm2={(m, s, disc[k]): area for (m, s, k), area in subject.csa_cm2.items() if disc[k]},
        muscle_centroids_mm={(m, s, disc[k]): at for (m, s, k), at in subject.muscle_centroids_mm.items() if disc[k]},
    )


def _shifted(names: Sequence[str], up: int) -> list[str]:
    return [names[k + up] if 0 <= k + up < len(names) else "" for k in range(len(names))]


def sex_table(models: Sequence[NamedModel]) -> Table:
    """Loads of a man and a woman of equal height and mass, and of a man with one thing after the other of a woman's."""
    man, woman = (next(one.base for one in models if one.sex == sex and not one.public) for sex in "MF")
    steps = {"man": man, **_towards(man, woman), "woman": woman}
    table: Table = []
    for task in TASKS_VARIED:
        loads = {name: axial_n(base, [_same("F" if name == "woman" else "M")], task)[0] for name, base in steps.items()}
        for name, load in loads.items():
            change = {f"{level} % of man": round(float(100.0 * load[k] / loads["man"][k]), 1) for k, level in _ENDS}
            table.append({"task": task.name, "model": name, **level_columns(load), **change})
    return table


_ENDS: Final = tuple((LUMBAR_VERTEBRAE.index(level), level) for level in ("L1", "L4", "L5"))


def _same(sex: Any) -> LoadingSubject:
    return person(sex, HEIGHT_BOTH_M, MASS_BOTH_KG)


def _towards(man: BaseModel, woman: BaseModel) -> dict[str, BaseModel]:
    """The man's model with the woman's muscles, or masses; nothing where the two have other bodies or fascicles.

    Lengths are brought to the man's stature; the person's own height and mass scale all models alike.
    """
    if man.fascicles != woman.fascicles or man.bodies != woman.bodies:
        return {}
    stature = man.height_m / woman.height_m
    masses = {"mass_kg": woman.mass_kg, "com_m": woman.com_m * stature}
    return {
        "man with a woman's strengths": replace(man, strength_n=woman.strength_n),
        "man with a woman's segment masses": replace(man, **masses),
        "man with both": replace(man, strength_n=woman.strength_n, **masses),
    }

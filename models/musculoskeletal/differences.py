"""What makes a woman's loads differ from a man's, and what the carrier of the abdominal wall does to loads.

`python -m models.musculoskeletal.differences` prints the figures of README.md as Markdown tables: loads of the batch
engine, axial force at the joint below each vertebra, newtons.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from cohort.loading.base_model import BaseModel, read_base_model
from cohort.loading.equilibrium import gravity_wrenches, pose_models
from cohort.loading.personalise import personalise
from cohort.loading.solve import solve_loads
from cohort.loading.subject import LoadingSubject
from cohort.loading.tasks import FLEXION60_5KG, STANDING, Task
from models.musculoskeletal.build import build_laid_out
from models.musculoskeletal.tables import Layout, Sex, Traits, lay_out

HEIGHT_M: Final = 1.70
MASS_KG: Final = 68.0
TASKS: Final = (STANDING, FLEXION60_5KG)
LEVELS: Final = ("L1", "L2", "L3", "L4", "L5")
MAN: Final = Traits.of("male")
WOMAN: Final = Traits.of("female")
STEPS: Final = {
    "man": MAN,
    "his with her mass distribution": replace(MAN, mass="female"),
    "his with her body sizes": replace(MAN, size="female"),
    "his with her lordosis": replace(MAN, lordosis="female"),
    "his with her muscle areas": replace(MAN, strength="female"),
    "woman": WOMAN,
}
CARRIERS: Final = ("L3", "L4", "L2", "L1", "thorax", "pelvis")


def main() -> None:
    """Print both studies, and loads and moments of gravity of the default models."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.osim"
        _print_table("Default model", _defaults(path))
        _print_table(f"Equal height ({HEIGHT_M:.2f} m) and mass ({MASS_KG:.0f} kg)", _sexes(path))
        _print_table("Default man, abdominal wall carried by", _carriers(path))
        _print_table("Moment of gravity at the joint below, N m", _moments(path), digits=1)


def _defaults(path: Path) -> Iterator[tuple[str, Task, list[float]]]:
    for traits in (MAN, WOMAN):
        base = _base(lay_out(traits), path)
        for task in TASKS:
            loads = axial_n(base, traits.size, task, height_m=base.height_m, mass_kg=base.total_mass_kg)
            yield f"{traits.size}, {base.height_m:.2f} m, {base.total_mass_kg:.0f} kg", task, loads


def _sexes(path: Path) -> Iterator[tuple[str, Task, list[float]]]:
    for name, traits in STEPS.items():
        base = _base(lay_out(traits), path)
        for task in TASKS:
            yield name, task, axial_n(base, traits.strength, task, height_m=HEIGHT_M, mass_kg=MASS_KG)


def _carriers(path: Path) -> Iterator[tuple[str, Task, list[float]]]:
    for carrier in CARRIERS:
        base = _base(lay_out(MAN, abdomen_carrier=carrier), path)
        for task in TASKS:
            yield carrier, task, axial_n(base, "male", task, height_m=base.height_m, mass_kg=base.total_mass_kg)


def _moments(path: Path) -> Iterator[tuple[str, Task, list[float]]]:
    for traits in (MAN, WOMAN):
        base = _base(lay_out(traits), path)
        for task in TASKS:
            yield f"default {traits.size} model", task, _gravity_nm(base, traits.size, task)


def axial_n(base: BaseModel, sex: Sex, task: Task, *, height_m: float, mass_kg: float) -> list[float]:
    """Axial force [5] at the joints below L1..L5 of a subject of whom nothing but stature and mass is known."""
    rows = solve_loads(base, [_subject(sex, height_m, mass_kg)], task)
    axial = {row.level: row.axial_n for row in rows if row.convention == "joint_below"}
    return [axial[level] for level in LEVELS]


def _gravity_nm(base: BaseModel, sex: Sex, task: Task) -> list[float]:
    """Flexing moment [5] of weight and hand loads at L1/L2 .. L5/S1."""
    models = personalise(base, [_subject(sex, base.height_m, base.total_mass_kg)])
    pose = pose_models(base, models, task)
    wrench = gravity_wrenches(base, models, pose, hand_kg=(task.right_hand_kg, task.left_hand_kg))
    return [-float(value) for value in wrench[0, 4::-1, 5]]


def _subject(sex: Sex, height_m: float, mass_kg: float) -> LoadingSubject:
    return LoadingSubject(exam_id="-", sex="M" if sex == "male" else "F", height_m=height_m, mass_kg=mass_kg)


def _base(layout: Layout, path: Path) -> BaseModel:
    return read_base_model(build_laid_out(layout, path, "study"))


def _print_table(title: str, rows: Iterator[tuple[str, Task, list[float]]], *, digits: int = 0) -> None:
    print(f"\n| {title} | task | {' | '.join(LEVELS)} |\n|---|---|{'---|' * len(LEVELS)}")
    for name, task, values in rows:
        print(f"| {name} | {task.name} | {' | '.join(f'{value:.{digits}f}' for value in values)} |")


if __name__ == "__main__":
    main()

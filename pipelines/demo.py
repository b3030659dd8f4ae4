"""`cohort demo`: write a synthetic archive as DICOM, run the whole chain on it, ask it three questions, show two
pictures."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from cohort.processes import process_pool
from cohort.store.layout import review_directory
from cohort.tables.sql import query
from models.phantom.dicom import write_exam
from models.phantom.exam import ExamPlan, make_exam

PLANS = (
    ExamPlan(9001, "M", 34, 1.78, 79.0, "block", 13),
    ExamPlan(9002, "F", 52, 1.63, 64.0, "per_disc", 13),
    ExamPlan(9003, "M", 61, 1.70, 88.0, "per_disc", 15, reversed_order=True),
    ExamPlan(9004, "F", 29, 1.71, 58.0, "block", 11),
    ExamPlan(9005, "M", 47, 1.86, 97.0, "block", 15),
    ExamPlan(9006, "F", 71, 1.58, 72.0, "per_disc", 13, reversed_order=True),
    ExamPlan(9007, "M", 23, 1.74, 68.0, "none", 13),
    ExamPlan(9008, "F", 39, 1.66, 81.0, "block", 12),
)
"""Both sexes; axial as one block, as one oblique stack per disc, and absent."""

CORRUPT = 9005
"""Seed of the exam in which one file is cut short and one overwritten."""

QUERIES = (
    ("Mean disc height by level", "select level, round(avg(height_mm), 1) as height_mm, count(*) as n from discs "
     "where level like 'L%' group by level order by level"),
    ("Muscle area at L3-L4, left and right", "select muscle, side, round(avg(csa_corrected_cm2), 1) as csa_cm2, "
     "count(*) as n from muscle_levels where level = 'L3-L4' group by muscle, side order by muscle, side"),
    ("Compression in 60 degrees flexion with 5 kg a hand, by sex",
     "select sex, l.level, round(avg(axial_n)) as axial_n, count(*) as n from loads l join exams using (exam_id) "
     "where task = 'flexion60_5kg' and engine = 'batch' and convention = 'vertebra_mean' "
     "group by sex, l.level order by sex, l.level"),
)  # fmt: skip
"""Example questions and their SQL."""


@dataclass(frozen=True)
class DemoPictures:
    """Where the two pictures are."""

    overlay: Path | None
    plot: Path


def write_demo_archive(folder: Path, *, processes: int, report: Callable[[str], None]) -> None:
    """Write the archive below `folder`, unless it is there already."""
    marker = folder / "complete"
    if marker.exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    with process_pool(processes) as executor:
        for done, _ in enumerate(executor.map(_write_one, [folder] * len(PLANS), PLANS), start=1):
            report(f"synthetic archive: exam {done} of {len(PLANS)} written")
    _damage(folder / f"study{CORRUPT}")
    (folder / "README.TXT").write_text("Not every file in an archive is an image.\n")
    marker.touch()


def _write_one(folder: Path, plan: ExamPlan) -> None:
    name, number = f"Phantom^{plan.seed}", f"PID-{plan.seed}"
    write_exam(folder / f"study{plan.seed}", make_exam(plan), patient_name=name, patient_id=number)


def _damage(study: Path) -> None:
    """Cut one T1 sagittal file short, and overwrite another file of the study with noise."""
    victim = sorted((study / "series03").iterdir())[2]
    victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 3])
    other = sorted((study / "series02").iterdir())[0]
    other.write_bytes(np.random.default_rng(0).bytes(4096))


def answers(store: Path) -> list[tuple[str, str, str]]:
    """Title, SQL and answer of the example questions."""
    return [(title, sql, query(store, sql).to_pandas().to_string(index=False)) for title, sql in QUERIES]


def draw_pictures(store: Path, folder: Path) -> DemoPictures:
    """Copy one overlay, and plot disc heights and loads of all exams."""
    folder.mkdir(parents=True, exist_ok=True)
    return DemoPictures(_copy_overlay(store, folder), _plot(store, folder / "cohort.png"))


def _copy_overlay(store: Path, folder: Path) -> Path | None:
    """Overlay of the first exam that has areas at levels."""
    found = query(store, "select exam_id from muscle_levels order by exam_id limit 1").to_pylist()
    source = review_directory(store, found[0]["exam_id"]) / "sagittal.png" if found else None
    if source is None or not source.exists():
        return None
    return Path(shutil.copyfile(source, folder / "overlay.png"))


def _plot(store: Path, path: Path) -> Path:
    discs = query(
        store, "select level, height_mm from discs where level is not null and height_mm is not null"
    ).to_pandas()
    loads = query(
        store,
        "select sex, l.level, axial_n from loads l join exams using (exam_id) where task = 'flexion60_5kg' "
        "and engine = 'batch' and convention = 'vertebra_mean'",
    ).to_pandas()
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    levels = ["T12-L1", "L1-L2", "L2-L3", "L3-L4", "L4-L5", "L5-S1"]
    left.boxplot([discs.height_mm[discs.level == level] for level in levels], tick_labels=levels)
    left.set(title="Disc height", ylabel="mm", xlabel="disc")
    for sex, colour in (("F", "tab:red"), ("M", "tab:blue")):
        chosen = loads[loads.sex == sex]
        right.plot(chosen.level, chosen.axial_n, "o", color=colour, alpha=0.6, label={"F": "women", "M": "men"}[sex])
    right.set(title="Compression, 60 degrees flexion, 5 kg a hand", ylabel="N", xlabel="vertebra", ylim=(0, None))
    right.legend()
    figure.suptitle("Synthetic archive: these are phantom figures, not anatomy")
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path

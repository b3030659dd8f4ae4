"""Seconds per subject and task, in one run: the batch engine, its solver with OpenSim's geometry, and OpenSim's own
static optimisation with joint reactions. Then seconds per exam of stage load itself, one by one and in batches.

python benchmarks/loads.py [--sizes 1 10 100 1000 10000] [--opensim 4] [--stage-sizes 1 8 32 100] [--json]

People of both sexes with random height, mass, curvature and muscle areas, each in flexion60_5kg. The batch engine's
time includes personalisation and rows; that of the second, opening the model, personalising and posing it; that of
OpenSim, all files that its tools read and write. The stage reads files of measured rows, a tenth of whose areas are
flagged, solves the default tasks with all counterfactual loads and makes rows and flags; `stage_ratio` is its time one
by one over that in the batches of a run. One core.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise, product
from pathlib import Path
from typing import Any, Final, Literal

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one core for everybody

import numpy as np
import opensim

from cohort.archive.demographics import Demographics
from cohort.loading.assumptions import Assumptions
from cohort.loading.base_model import BaseModel, Floats, read_base_model, vector
from cohort.loading.equilibrium import Pose, balance_pulls, pose_models
from cohort.loading.opensim_engine import run_opensim, statics_model
from cohort.loading.personalise import personalise
from cohort.loading.solve import solve_loads
from cohort.loading.subject import LoadingSubject, Point
from cohort.loading.tasks import DEFAULT_TASKS, FLEXION60_5KG, TASKS
from cohort.rows import DiscRow, MuscleLevelRow, VertebraRow
from cohort.terms import LUMBAR_VERTEBRAE, MUSCLES, SIDES
from models.musculoskeletal.build import build_base_model
from pipelines.load import BATCH_SIZE, LoadTask, load_batch
from pipelines.measure import write_rows
from pipelines.outcome import WorkItem

TASK: Final = FLEXION60_5KG
SIZES: Final = (1, 10, 100, 1_000, 10_000)
GOAL_SIZE: Final = 1_000
"""The number of subjects whose time is reported as the engine's."""
STAGE_SIZES: Final = (1, 8, 32, 100)
ALONE: Final = 16
"""Exams that are solved one by one."""
FLAGGED: Final = 0.1
PLACE: Final = ("x_mm", "y_mm", "z_mm")
SEXES: Final[dict[str, Literal["male", "female"]]] = {"M": "male", "F": "female"}
TYPICAL_CM2: Final = {"multifidus": 6.0, "erector_spinae": 18.0, "psoas": 11.0, "quadratus_lumborum": 5.0}
CHAIN: Final = ("S1", *LUMBAR_VERTEBRAE[::-1], "T12")
DISCS: Final = tuple(f"{upper}-{lower}" for lower, upper in pairwise(CHAIN))


def subjects(n: int) -> list[LoadingSubject]:
    """Men and women in turn."""
    rng = np.random.default_rng(0)
    return [_subject(rng, number, "MF"[number % 2]) for number in range(n)]


def _subject(rng: np.random.Generator, number: int, sex: str) -> LoadingSubject:
    height_m = float(rng.normal(1.76 if sex == "M" else 1.63, 0.06))
    scale = (height_m / 1.76) ** 2
    vertebrae, discs = _centroids(rng, height_m)
    return LoadingSubject(
        exam_id=f"subject{number}",
        sex="M" if sex == "M" else "F",
        height_m=height_m,
        mass_kg=float(rng.normal(24.5, 2.5) * height_m**2),
        vertebra_centroids_mm=vertebrae,
        disc_centroids_mm=discs,
        csa_cm2={
            (muscle, side, disc): float(TYPICAL_CM2[muscle] * scale * rng.uniform(0.8, 1.2))
            for muscle, side, disc in product(MUSCLES, SIDES, DISCS[:5])
        },
    )


def _centroids(rng: np.random.Generator, height_m: float) -> tuple[dict[str, Point], dict[str, Point]]:
    """Centroids of S1 to T12 and of the discs between, LPS mm, along a lordosis of random depth."""
    angle = np.radians(np.array([40.0, 22.0, 8.0, -2.0, -9.0, -13.0, -14.0]) * rng.uniform(0.6, 1.3))
    step = np.stack([0.0 * angle, -np.sin(angle), np.cos(angle)], axis=1) * 17.5 * height_m / 1.76
    discs = np.cumsum(step[:-1] + step[1:], axis=0)
    vertebrae = np.vstack([discs - step[:-1], discs[-1] + step[-1]])
    return (
        {level: (float(x), float(y), float(z)) for level, (x, y, z) in zip(CHAIN, vertebrae, strict=True)},
        {disc: (float(x), float(y), float(z)) for disc, (x, y, z) in zip(DISCS, discs, strict=True)},
    )


def batch_seconds(bases: dict[str, BaseModel], people: Sequence[LoadingSubject], *, counterfactuals: bool) -> float:
    """Seconds per subject of the batch engine."""
    started = time.perf_counter()
    for sex, base in bases.items():
        same = [person for person in people if person.sex == sex]
        solve_loads(base, same, TASK, counterfactuals=counterfactuals)
    return (time.perf_counter() - started) / len(people)


def opensim_geometry_axial(base: BaseModel, person: LoadingSubject) -> Floats:
    """Axial reactions [6] by the batch engine's equations with lines of action from OpenSim's paths."""
    models = personalise(base, [person])
    model = statics_model(base, models, TASK, Assumptions()).model
    state = model.initSystem()
    model.realizePosition(state)
    pose = pose_models(base, models, TASK)
    pull = np.stack([_wrench(base, model, state, pose, name) for name in base.fascicles], axis=-1)[None]
    found = balance_pulls(base, models, TASK, Assumptions(), pose, pull)
    axes = pose.rotation[0, base.joint_body]
    return np.asarray(np.matmul(axes.transpose(0, 2, 1), found.reaction_n[0, :, :, None])[:, 1, 0])


def _wrench(base: BaseModel, model: Any, state: Any, pose: Pose, name: str) -> Floats:
    """Wrench [joint, 6] of one fascicle at unit tension from the forces on bodies that OpenSim gives for its path."""
    path = opensim.PathActuator.safeDownCast(model.getForceSet().get(name)).getGeometryPath()
    forces = opensim.ArrayPointForceDirection()
    path.getPointForceDirections(state, forces)
    wrench = np.zeros((len(base.joint_body), 6))
    for index in range(forces.getSize()):
        one = forces.get(index)
        body = base.body(one.frame().findBaseFrame().getName())
        place = pose.origin_m[0, body] + pose.rotation[0, body] @ vector(one.point())
        force = vector(one.direction())
        for joint in np.flatnonzero(base.distal[:, body]):
            wrench[joint] += np.concatenate([force, np.cross(place - pose.origin_m[0, base.joint_body[joint]], force)])
    return wrench


@contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """OpenSim writes warnings to standard output, where the JSON is to stand alone."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def exam_rows(person: LoadingSubject, rng: np.random.Generator) -> dict[str, list[Any]]:
    """Rows of stage measure from which `loading_inputs` makes this person; every tenth area is flagged."""
    exam_id = person.exam_id
    body = {
        "exam_id": exam_id, "level_confidence": 1.0, "volume_cm3": 30.0, "slices_seen": 9, "slices_expected": 9,
        "touches_border": False, "status": "ok",
    }  # fmt: skip
    vertebrae, discs = (
        [(k, level, dict(zip(PLACE, place, strict=True))) for k, (level, place) in enumerate(centroids.items())]
        for centroids in (person.vertebra_centroids_mm, person.disc_centroids_mm)
    )
    muscles = [
        MuscleLevelRow(
            exam_id=exam_id, level=disc, muscle=muscle, side=side, stack=1, slice=1, distance_mm=0.0, angle_deg=0.0,
            csa_cm2=area, csa_corrected_cm2=area, status="flagged" if rng.random() < FLAGGED else "ok",
            **dict(zip(PLACE, person.disc_centroids_mm[disc], strict=True)),
        )
        for (muscle, side, disc), area in person.csa_cm2.items()
    ]  # fmt: skip
    return {
        "vertebrae": [VertebraRow(ordinal=k, level=name, level_evidence="", **at, **body) for k, name, at in vertebrae],
        "discs": [DiscRow(ordinal=k + 1, level=name, central_slice=4, **at, **body) for k, name, at in discs],
        "muscle_levels": muscles,
        "quality": [],
    }


def exam_items(store: Path, base_models: dict[str, Path], people: Sequence[LoadingSubject]) -> list[WorkItem]:
    """Write the measured rows of all people, and return the items of stage load."""
    rng = np.random.default_rng(0)
    return [_item(store, base_models, person, exam_rows(person, rng)) for person in people]


def _item(store: Path, base_models: dict[str, Path], person: LoadingSubject, rows: dict[str, list[Any]]) -> WorkItem:
    write_rows(store / f"{person.exam_id}.json", rows)
    size = (person.height_m, "dicom", person.mass_kg, "dicom")
    task = LoadTask(
        store=store,
        measured_path=f"{person.exam_id}.json",
        demographics=Demographics(person.sex, "dicom", 50.0, "dicom", *size),
        tasks=tuple(TASKS[name] for name in DEFAULT_TASKS),
        base_models=base_models,
        with_opensim=False,
        opensim_timeout_s=600.0,
    )
    return WorkItem(person.exam_id, "load", "f" * 64, task)


def stage_seconds(items: Sequence[WorkItem], size: int) -> float:
    """Processor seconds per exam of stage load in batches of `size`."""
    started = time.process_time()
    outcomes = [outcome for at in range(0, len(items), size) for outcome in load_batch(items[at : at + size])]
    elapsed = time.process_time() - started
    if any(outcome.status not in ("ok", "flagged") for outcome in outcomes):
        raise RuntimeError("an exam of the benchmark has no loads")
    return elapsed / len(items)


def measure_stage(sizes: Sequence[int], bases: dict[str, Path], folder: Path) -> dict[str, Any]:
    """Time stage load on the same files, one by one and in batches."""
    items = exam_items(folder, bases, subjects(max(sizes)))
    load_batch(items[:2])  # reads the base models
    alone = stage_seconds(items[:ALONE], 1)
    seconds = {size: alone if size == 1 else stage_seconds(items, size) for size in sizes}
    in_run = stage_seconds(items, BATCH_SIZE)
    return {
        "stage_batch": BATCH_SIZE,
        "stage_alone_s_per_exam": alone,
        "stage_s_per_exam": in_run,
        "stage_ratio": alone / in_run,
        "stage_scaling": [{"exams": size, "s_per_exam": seconds[size]} for size in sizes],
    }


def measure(sizes: Sequence[int], n_opensim: int, stage_sizes: Sequence[int]) -> dict[str, Any]:
    """Time the three ways and compare axial loads on the subjects that all of them solved; time the stage."""
    with tempfile.TemporaryDirectory() as folder, _stdout_to_stderr():
        paths = {sex: build_base_model(name, Path(folder) / f"{name}.osim") for sex, name in SEXES.items()}
        bases = {sex: read_base_model(path) for sex, path in paths.items()}
        people = subjects(max(*sizes, n_opensim))
        batch_seconds(bases, people[:2], counterfactuals=True)
        plain = {n: batch_seconds(bases, people[:n], counterfactuals=False) for n in sizes}
        full = {n: batch_seconds(bases, people[:n], counterfactuals=True) for n in sizes}
        shown = GOAL_SIZE if GOAL_SIZE in sizes else max(sizes)
        rivals = [_rival(bases[person.sex], paths[person.sex], person, Path(folder)) for person in people[:n_opensim]]
        stage = measure_stage(stage_sizes, paths, Path(folder))
    geometry_s, opensim_s, geometry_difference, difference = np.array(rivals).T
    return {
        "task": TASK.name,
        "batch_s_per_subject_task": plain[shown],
        "batch_with_counterfactuals_s_per_subject_task": full[shown],
        "opensim_geometry_s_per_subject_task": float(geometry_s.mean()),
        "opensim_s_per_subject_task": float(opensim_s.mean()),
        "ratio": float(opensim_s.mean() / plain[shown]),
        "ratio_opensim_geometry": float(geometry_s.mean() / plain[shown]),
        "max_relative_difference": float(difference.max()),
        "max_relative_difference_opensim_geometry": float(geometry_difference.max()),
        "subjects_opensim": n_opensim,
        "scaling": [
            {"subjects": n, "s_per_subject_task": plain[n], "with_counterfactuals_s_per_subject_task": full[n]}
            for n in sizes
        ],
        **stage,
    }


def _rival(base: BaseModel, path: Path, person: LoadingSubject, folder: Path) -> tuple[float, float, float, float]:
    """Seconds with OpenSim's geometry and with OpenSim alone, and their largest relative differences to our loads."""
    ours = solve_loads(base, [person], TASK, counterfactuals=False)
    started = time.perf_counter()
    reaction = opensim_geometry_axial(base, person)
    between = time.perf_counter()
    work = Path(tempfile.mkdtemp(dir=folder))
    theirs = run_opensim(path, person, TASK, work)
    ended = time.perf_counter()
    below = np.array([row.axial_n for row in ours if row.convention == "joint_below"])
    geometry = np.abs(reaction[:5][::-1] / below - 1.0).max()
    difference = max(abs(mine.axial_n / row.axial_n - 1.0) for mine, row in zip(ours, theirs, strict=True))
    return between - started, ended - between, float(geometry), difference


def main() -> None:
    """Print a table, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="numbers of subjects")
    parser.add_argument("--opensim", type=int, default=4, help="subjects solved with OpenSim, too")
    parser.add_argument("--stage-sizes", type=int, nargs="+", default=list(STAGE_SIZES), help="exams of a batch")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = measure(options.sizes, options.opensim, options.stage_sizes)
    if options.json:
        print(json.dumps(found))
        return
    print(f"{'engine':42} {'s per subject and task':>22} {'ratio':>7} {'largest difference':>19}")
    rows = (
        ("batch", found["batch_s_per_subject_task"], 1.0, 0.0),
        ("batch with counterfactual loads", found["batch_with_counterfactuals_s_per_subject_task"], None, 0.0),
        (
            "batch equations, OpenSim geometry",
            found["opensim_geometry_s_per_subject_task"],
            found["ratio_opensim_geometry"],
            found["max_relative_difference_opensim_geometry"],
        ),
        (
            "OpenSim static optimisation and reactions",
            found["opensim_s_per_subject_task"],
            found["ratio"],
            found["max_relative_difference"],
        ),
    )
    for name, seconds, ratio, difference in rows:
        print(f"{name:42} {seconds:22.5f} {'' if ratio is None else f'{ratio:.0f}':>7} {difference:19.2e}")
    print(f"\n{'subjects':>8} {'ms each':>9} {'with counterfactuals':>21}")
    for row in found["scaling"]:
        plain, full = row["s_per_subject_task"], row["with_counterfactuals_s_per_subject_task"]
        print(f"{row['subjects']:8d} {plain * 1e3:9.2f} {full * 1e3:21.2f}")
    print(f"\nstage load, {len(DEFAULT_TASKS)} tasks\n{'batch of':>8} {'ms per exam':>12} {'ratio':>7}")
    for row in found["stage_scaling"]:
        each_s = row["s_per_exam"]
        print(f"{row['exams']:8d} {each_s * 1e3:12.1f} {found['stage_alone_s_per_exam'] / each_s:7.1f}")


if __name__ == "__main__":
    main()

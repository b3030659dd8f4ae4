"""Seconds per subject and task: our batch engine beside OpenSim's static optimisation and joint reaction, in one run.

python benchmarks/loads.py [--subjects 200] [--opensim 2] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from itertools import product
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one core for everybody

import numpy as np

from cohort.loading.base_model import read_base_model
from cohort.loading.opensim_engine import run_opensim
from cohort.loading.solve import solve_loads
from cohort.loading.subject import LoadingSubject
from cohort.loading.tasks import FLEXION60_5KG
from cohort.terms import LUMBAR_VERTEBRAE, MUSCLES, SIDES
from models.musculoskeletal.build import build_base_model


def subjects(n: int) -> list[LoadingSubject]:
    """Men of random height, mass and muscle areas."""
    rng = np.random.default_rng(0)
    discs = [f"{a}-{b}" for a, b in zip(LUMBAR_VERTEBRAE, (*LUMBAR_VERTEBRAE[1:], "S1"), strict=True)]
    typical = {"multifidus": 6.0, "erector_spinae": 18.0, "psoas": 11.0, "quadratus_lumborum": 5.0}
    return [
        LoadingSubject(
            exam_id=f"subject{k}",
            sex="M",
            height_m=float(rng.normal(1.76, 0.07)),
            mass_kg=float(rng.normal(80, 10)),
            csa_cm2={key: float(typical[key[0]] * rng.uniform(0.8, 1.2)) for key in product(MUSCLES, SIDES, discs)},
        )
        for k in range(n)
    ]


def measure(n_batch: int, n_opensim: int) -> dict[str, float]:
    """Time both engines and compare their axial loads on the subjects that both solved."""
    with tempfile.TemporaryDirectory() as folder:
        path = build_base_model("male", Path(folder) / "male.osim")
        base, people = read_base_model(path), subjects(n_batch)
        solve_loads(base, people[:1], FLEXION60_5KG)
        started = time.perf_counter()
        rows = solve_loads(base, people, FLEXION60_5KG)
        batch_s = (time.perf_counter() - started) / n_batch
        ours = {(row.exam_id, row.level, row.convention): row.axial_n for row in rows}
        differences, started = [], time.perf_counter()
        for k, person in enumerate(people[:n_opensim]):
            work = Path(folder) / str(k)
            work.mkdir()
            for row in run_opensim(path, person, FLEXION60_5KG, work):
                mine = ours[row.exam_id, row.level, row.convention]
                differences.append(abs(mine - row.axial_n) / abs(row.axial_n))
        opensim_s = (time.perf_counter() - started) / n_opensim
    return {
        "batch_s_per_subject_task": batch_s,
        "opensim_s_per_subject_task": opensim_s,
        "ratio": opensim_s / batch_s,
        "max_relative_difference": max(differences),
    }


def main() -> None:
    """Print a table, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subjects", type=int, default=200)
    parser.add_argument("--opensim", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = measure(options.subjects, options.opensim)
    if options.json:
        print(json.dumps(found))
        return
    batch_s, opensim_s = found["batch_s_per_subject_task"], found["opensim_s_per_subject_task"]
    print(f"batch engine      {batch_s:.5f} s per subject and task ({options.subjects} subjects)")
    print(f"OpenSim SO + JRA  {opensim_s:.2f} s per subject and task ({options.opensim} subjects)")
    print(f"ratio {found['ratio']:.0f}, largest difference of axial load {found['max_relative_difference']:.4%}")


if __name__ == "__main__":
    main()

"""Cost of a model-change report and of its acceptance, on synthetic tables of a known change.

    python benchmarks/change.py --exams 100000 --json
    python benchmarks/change.py --exams 60 --picture docs/model-change.png

Every exam has 5 vertebrae, 5 discs, 40 muscle areas and 40 loads, of which the disc heights change by 0.2 mm (0.5 mm on
one vendor's scanners) with a noise of 0.4 mm, and the loads by 1 %.
"""

from __future__ import annotations

import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa

from cohort.store.layout import candidate_path
from cohort.tables.buckets import N_BUCKETS, bucket_file, bucket_of, create_tables, staging
from cohort.tables.schema import arrow_schema
from cohort.tables.stages import STAGES
from cohort.terms import MUSCLES
from pipelines.candidate import open_candidate, promote
from pipelines.change import compare_change
from pipelines.change_plots import change_figures
from pipelines.change_report import write_change_report
from pipelines.config import GateConfig
from pipelines.fingerprint import NOTHING

VENDORS = np.array(["siemens", "philips", "ge"])
BIAS_MM = {"siemens": 0.2, "philips": 0.2, "ge": 0.5}
NOISE_MM, LOAD_FACTOR = 0.4, 1.01
LEVELS = ("L1", "L2", "L3", "L4", "L5")
DISCS = ("L1-L2", "L2-L3", "L3-L4", "L4-L5", "L5-S1")
TASKS = ("standing", "standing_5kg", "flexion30", "flexion60_5kg")
CONVENTIONS = ("joint_below", "vertebra_mean")
Values = dict[str, Any]


def filled(table: str, n: int, values: Values) -> pa.Table:
    """Rows of a table with the given columns; others are null, or a constant where they must have a value."""
    constants = {pa.string(): "x", pa.float64(): 1.0, pa.int64(): 1, pa.bool_(): False}
    columns = []
    for column in arrow_schema(table):
        constant = None if column.nullable else constants[column.type]
        value = values.get(column.name, constant)
        whole = [value] * n if value is None or isinstance(value, str | float | int | bool) else value
        columns.append(pa.array(whole, type=column.type))
    return pa.Table.from_arrays(columns, schema=arrow_schema(table))


def exams_of(numbers: np.ndarray, *, new: bool) -> dict[str, pa.Table]:
    """All tables of some exams, before or after the change."""
    n, random = len(numbers), np.random.default_rng([int(numbers[0]), int(new)])
    ids, vendors = np.array([f"exam{k}" for k in numbers]), VENDORS[numbers % 3]
    own = np.random.default_rng(int(numbers[0])).normal(size=(n, 5))
    place = {"z_mm": np.tile(35.0 * np.arange(5), n), "exam_id": np.repeat(ids, 5), "status": "ok"}
    names = {"level": np.tile(LEVELS, n), "ordinal": np.tile(np.arange(5, 0, -1), n)}
    shift = np.array([BIAS_MM[vendor] for vendor in vendors])[:, None] + random.normal(0, NOISE_MM, (n, 5))
    heights = 9.0 + own + 0.4 * np.arange(5) + new * shift
    areas = np.repeat(8.0 + own, 8, axis=0).ravel()
    axial = (600.0 + 60 * own + 40 * np.arange(5)).ravel() * (LOAD_FACTOR if new else 1.0)
    at_level = {"muscle": np.tile(np.repeat(MUSCLES, 10), n), "side": np.tile(np.repeat(["left", "right"], 5), 4 * n)}
    done = {"stage": np.tile(STAGES, n), "stage_version": np.tile([2, 2 + new, 2, 2], n), "artefacts": NOTHING,
            "fingerprint": np.tile([f"{stage}{int(new)}" for stage in STAGES], n)}  # fmt: skip
    forty = {"exam_id": np.repeat(ids, 40), "status": "ok"}
    loads = {"task": np.tile(np.repeat(TASKS, 10), n), "convention": np.tile(np.repeat(CONVENTIONS, 5), 4 * n)}
    return {
        "exams": filled("exams", n, {"exam_id": ids, "subject_id": ids, "vendor": vendors, "status": "ok"}),
        "vertebrae": filled("vertebrae", 5 * n, place | names | {"anterior_height_mm": 28 + own.ravel()}),
        "discs": filled("discs", 5 * n, place | names | {"level": np.tile(DISCS, n), "height_mm": heights.ravel()}),
        "muscle_levels": filled("muscle_levels", 40 * n, forty | at_level
                                | {"level": np.tile(DISCS, 8 * n), "csa_corrected_cm2": areas}),
        "curvature": filled("curvature", n, {"exam_id": ids, "status": "ok", "lordosis_l1_s1_deg": 45 + own[:, 0]}),
        "loads": filled("loads", 40 * n, forty | loads | {"level": np.tile(LEVELS, 8 * n), "engine": "batch",
                                                          "axial_n": np.repeat(axial, 8)}),
        "ledger": filled("ledger", 4 * n, done | {"exam_id": np.repeat(ids, 4), "status": "ok"}),
    }  # fmt: skip


def write_store(store: Path, n_exams: int) -> None:
    """A store whose exams have all been redone in the candidate."""
    create_tables(store)
    open_candidate(store, "benchmark", note=str)
    buckets: dict[int, list[int]] = {}
    for number in range(n_exams):
        buckets.setdefault(bucket_of(f"exam{number}", N_BUCKETS), []).append(number)
    for folder, new in ((store, False), (candidate_path(store), True)):
        with staging(folder) as area:
            for bucket, numbers in buckets.items():
                for table, rows in exams_of(np.array(numbers), new=new).items():
                    area.add(bucket_file(folder, table, bucket), rows)
            area.publish()


@click.command()
@click.option("--exams", default=2000, show_default=True)
@click.option("--picture", type=click.Path(path_type=Path, dir_okay=False), help="Write the plot of disc heights.")
@click.option("--json", "as_json", is_flag=True)
def main(exams: int, picture: Path | None, as_json: bool) -> None:
    """Time the comparison, the report and the acceptance of a change of all exams."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder)
        write_store(store, exams)
        started = time.perf_counter()
        report = compare_change(store)
        compared = time.perf_counter()
        page = write_change_report(report, GateConfig(), store / "report")
        written = time.perf_counter()
        if picture:
            picture.write_bytes({feature.column: png for feature, png in change_figures(report)}["height_mm"])
        size, before = page.stat().st_size, time.perf_counter()
        promote(store, "benchmark")
        accepted = time.perf_counter()
    found = {
        "exams": exams,
        "agreements": len(report.agreements),
        "compare_s": round(compared - started, 2),
        "report_s": round(written - compared, 2),
        "page_kib": size // 1024,
        "promote_s": round(accepted - before, 2),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    click.echo(json.dumps(found) if as_json else "\n".join(f"{name:12} {value}" for name, value in found.items()))


if __name__ == "__main__":
    main()

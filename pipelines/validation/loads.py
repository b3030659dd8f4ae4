"""`cohort validate loads`: our loads against OpenSim, measurements in people and public models; and what moves them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from cohort.loading.tasks import TASKS
from pipelines.validation.loads_agreement import Pair, agreement_table, compare_engines, scatter_points
from pipelines.validation.loads_in_vivo import flexion_trend, in_vivo_table, tilt_line
from pipelines.validation.loads_models import NamedModel, Table, adopt_public_models, shipped_models
from pipelines.validation.loads_public import capacity_table, moment_arm_table, public_table, strength_table
from pipelines.validation.loads_sensitivity import input_table, sensitivity_table, sex_table
from pipelines.validation.real_scans import Report

Results = dict[str, Any]

SECTIONS: Final = {
    "agreement": "Our engine against OpenSim",
    "in_vivo": "Load L4/L5 of a man of 70 kg against pressures measured in people",
    "flexion_trend": "Load of L1 by trunk inclination against forces on vertebral implants",
    "tilt_line": "Load L4/L5 over tilt up to 30 degrees",
    "public": "A man of 1.75 m and 75 kg in all models, axial load, N",
    "moment_arms": "Moment arms in standing, mm",
    "capacity": "What muscles can give and gravity asks for",
    "strength": "Strength of the base models, kN on both sides (fascicles)",
    "sensitivity": "Assumptions: axial load at the joint below, N, and change, %",
    "inputs": "Errors of what is measured: error of the axial load, %",
    "sexes": "A man and a woman of 1.70 m and 70 kg: axial load at the joint below, N",
}
"""Key of a table in the results -> title; in the order of the report."""


def loads_results(
    n: int, report: Report, *, public: Path | None = None, tasks: Sequence[str] = tuple(TASKS)
) -> Results:
    """Everything that is measured, as one object that JSON can hold.

    Parameters
    ----------
    n : random people for each model and task that OpenSim solves, too; 0 leaves OpenSim out
    public : folder of public models; None leaves them out
    tasks : names of the shipped tasks that OpenSim solves
    """
    with TemporaryDirectory(prefix="validate-loads-") as name:
        folder = Path(name)
        models = [*shipped_models(folder), *adopt_public_models(public, folder, report)]
        pairs, unsolved = compare_engines(models, [TASKS[task] for task in tasks], n, report)
        tables = _tables(models)
    engines = {
        "agreement": agreement_table(models, pairs, unsolved) if n else [],
        "scatter": scatter_points(pairs),
    }
    return {"personalisations": n, **_figures(models, pairs), **engines, **tables}


def _tables(models: Sequence[NamedModel]) -> dict[str, Table]:
    man = models[0].base
    return {
        "in_vivo": in_vivo_table(man),
        "flexion_trend": flexion_trend(man),
        "tilt_line": tilt_line(man),
        "public": public_table(models),
        "moment_arms": moment_arm_table(models),
        "capacity": capacity_table(models),
        "strength": strength_table(models),
        "sensitivity": sensitivity_table(man),
        "inputs": input_table(man),
        "sexes": sex_table(models),
    }


def _figures(models: Sequence[NamedModel], pairs: Sequence[Pair]) -> Results:
    """Largest relative difference of axial load between the engines, in shipped and in public models."""
    kinds = {model.name: "public" if model.public else "shipped" for model in models}
    return {
        f"max_relative_difference_{kind}": max(
            (float(pair.axial_difference.max()) for pair in pairs if kinds[pair.model] == kind), default=None
        )
        for kind in ("shipped", "public")
    }


def loads_tables(results: Results) -> str:
    """The results as Markdown."""
    parts = [
        "Newtons, compression positive; `joint_below` unless a table says otherwise. "
        f"{results['personalisations']} random people for each model and task in the comparison with OpenSim."
    ]
    parts += [f"### {title}\n\n{markdown(results[key])}" for key, title in SECTIONS.items()]
    return "\n\n".join(parts)


def markdown(table: Table) -> str:
    """Rows as a Markdown table; text to the left, numbers to the right."""
    if not table:
        return "not measured"
    columns = list(table[0])
    text = [any(isinstance(row[column], str) for row in table) for column in columns]
    lines = [columns, ["---" if left else "---:" for left in text]]
    lines += [[_cell(row[column]) for column in columns] for row in table]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)

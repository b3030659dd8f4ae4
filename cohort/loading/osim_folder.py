"""A person's model in one task as a folder that opens and runs in OpenSim, with a README of what it should show."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Final

from cohort import __version__
from cohort.loading.opensim_engine import statics_model
from cohort.loading.opensim_setup import (
    ACTIVATIONS,
    EXTERNAL_LOADS,
    HAND_LOADS,
    INVERSE_DYNAMICS,
    JOINT_REACTION,
    MOMENTS,
    POSTURE,
    REACTIONS,
    RESERVES,
    STATIC_OPTIMIZATION,
    STATICS_MODEL,
    write_setup,
)
from cohort.loading.osim_export import personal_opensim_model
from cohort.loading.posed_subject import PosedSubject
from cohort.terms import LUMBAR_VERTEBRAE

MODEL: Final = "model.osim"
PICTURE: Final = "posture.png"
README: Final = "README.txt"

BELOW_ABOVE: Final = {"L5": ("L5_S1", "L4_L5"), "L4": ("L4_L5", "L3_L4"), "L3": ("L3_L4", "L2_L3"),
                      "L2": ("L2_L3", "L1_L2"), "L1": ("L1_L2", "T12_L1")}  # fmt: skip
"""Vertebra -> joint below and joint above."""


def write_osim_folder(folder: Path, posed: PosedSubject) -> None:
    """Write model, posture, hand loads, set-up files and README.txt; no file holds a path or another name than the
    exam's pseudonym.

    The set-up files solve `model_statics.osim`, exactly what the reference engine solves; `model.osim` has the muscles.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{posed.base.name}_{posed.subject.exam_id}"
    model = personal_opensim_model(posed.base, posed.models)
    model.setName(name)
    if not model.printToXML(str(folder / MODEL)):
        raise OSError(f"OpenSim could not write {MODEL}")
    statics, _ = statics_model(posed.base, posed.models, posed.task, posed.assumptions)
    statics.setName(f"{name}_statics")
    write_setup(folder, statics, posed.task, posed.assumptions)
    (folder / README).write_text(readme(posed), encoding="utf-8")


def readme(posed: PosedSubject) -> str:
    """Text of README.txt: the files, the loads of the table, how to run OpenSim, and what it then shows."""
    return "\n".join((_heading(posed), _files(posed), _table(posed), _running(), _expected(posed)))


def _heading(posed: PosedSubject) -> str:
    row = posed.rows[0]
    return f"""\
LUMBAR SPINE MODEL IN ONE POSTURE
exam {posed.subject.exam_id}, task {posed.task.name}, base model {row.base_model}
{posture_in_words(posed)}
written by Lumbar Cohort {__version__}: research software, not for clinical use

What the model rests on: height {row.height_source}, mass {row.mass_source}, curvature {row.curvature_source},
strength of muscles {row.strength_source}, places of muscles {row.position_source} ("default": the base model's own).
Assumptions: {_assumptions(posed)}.
The folder names nobody, but stature, mass and shape of a spine are in it: treat it as pseudonymous data of a patient.
"""


def _assumptions(posed: PosedSubject) -> str:
    words = {True: "yes", False: "no"}
    chosen = asdict(posed.assumptions).items()
    return ", ".join(
        f"{name.replace('_', ' ')} {words[value] if isinstance(value, bool) else value}" for name, value in chosen
    )


def posture_in_words(posed: PosedSubject) -> str:
    """The task's angles and hand loads, with units; what is zero is left out but for the flexion."""
    task = posed.task
    parts = [f"trunk flexion {task.trunk_flexion_deg:g} degrees"]
    others = (
        ("pelvis tilted back", task.pelvic_retroversion_deg),
        ("bent to the right", task.lateral_bend_deg),
        ("turned to the left", task.axial_turn_deg),
        ("arms raised", task.arm_elevation_deg),
    )
    parts += [f"{words} {angle:g} degrees" for words, angle in others if angle]
    loads = ((side, load) for side, load in (("right", task.right_hand_kg), ("left", task.left_hand_kg)) if load)
    carried = [f"{load:g} kg in the {side} hand" for side, load in loads]
    return ", ".join([*parts, *(carried or ["empty hands"])])


def _files(posed: PosedSubject) -> str:
    bound = posed.assumptions.min_activation
    return f"""\
FILES
{MODEL:26}the person's model with Thelen 2003 muscles, all coordinates free: for looking, and for
{"":26}your own simulations. It opens standing; load {POSTURE} for the posture.
{STATICS_MODEL:26}the same model as statics solves it: in the posture, pelvis and arms locked, and in the
{"":26}place of each muscle a path actuator of the same path and strength, least activation {bound:g}.
{"":26}Inertias are 1 kg m2 (at rest without effect; it keeps the optimiser steady).
{"":26}The set-up files use this one. Why: OpenSim gives each of its muscles a least activation
{"":26}of 0.01, which is a load of its own, largest in standing, and not in the table.
{POSTURE:26}the posture (motion format, degrees, the same in every row; OpenSim wants six rows)
{EXTERNAL_LOADS:26}hand loads: a point force at the centre of mass of each hand, in
{HAND_LOADS:26}newtons (ground frame) and metres (hand frame). Hands keep their own mass.
{RESERVES:26}a reserve of 1 N m about each axis of each joint, as dear as a whole muscle fascicle
{STATIC_OPTIMIZATION:26}set-up of the Analyze tool: muscle activations
{JOINT_REACTION:26}set-up of the Analyze tool: forces in the joints, from the forces of the former
{INVERSE_DYNAMICS:26}set-up of the inverse dynamics tool: moments that muscles have to balance
{PICTURE:26}the posture, muscles by activation, and the loads
Axes: x forward, y up, z to the right; a vertebra's own y axis runs from the joint below to the joint above it.
"""


def _table(posed: PosedSubject) -> str:
    row = posed.rows[0]
    lines = [
        f"LOADS IN THE TABLE (table `loads`, exam_id {posed.subject.exam_id}, task {posed.task.name}, engine batch)",
        f"status {row.status}{f', reasons {row.reasons}' if row.reasons else ''}",
        f"{'level':7}{'convention':15}{'axial_n':>10}{'shear_ap_n':>12}{'shear_lateral_n':>17}",
    ]
    for convention in ("joint_below", "vertebra_mean"):
        for level in LUMBAR_VERTEBRAE:
            load = posed.load(level, convention)
            axial, forward, right = (round(n, 1) + 0.0 for n in (load.axial_n, load.shear_ap_n, load.shear_lateral_n))
            lines.append(f"{level:7}{convention:15}{axial:10.1f}{forward:12.1f}{right:17.1f}")
    lines.append(
        f"Largest activation {row.max_activation:.3f}, fascicles at their limit {row.n_saturated}, "
        f"largest reserve {row.reserve_max_nm:.3f} N m.\n"
    )
    return "\n".join(lines)


def _running() -> str:
    return f"""\
IN THE WINDOW OF OPENSIM (4.x)
1. File > Open Model: {STATICS_MODEL}. It must be the current model.
2. File > Load Motion: {POSTURE}.
3. Tools > Analyze > Load: {STATIC_OPTIMIZATION}, then Run.
4. Tools > Analyze > Load: {JOINT_REACTION}, then Run. It reads what step 3 wrote.
5. Tools > Inverse Dynamics > Load: {INVERSE_DYNAMICS}, then Run (if wanted).
6. Tools > Plot, or a spreadsheet: the files in results/.
To see the muscles themselves, open {MODEL} and load {POSTURE}.

FROM PYTHON, in this folder (it may be copied anywhere, all names in it are relative)
    import opensim
    opensim.AnalyzeTool("{STATIC_OPTIMIZATION}", True).run()
    opensim.AnalyzeTool("{JOINT_REACTION}", True).run()
    opensim.InverseDynamicsTool("{INVERSE_DYNAMICS}", True).run()
or with opensim-cmd run-tool and the names of the same three files, in this order.
Where OpenSim's log says that the optimiser could not find a solution, what it writes all the same is none.
"""


def _expected(posed: PosedSubject) -> str:
    return f"""\
WHAT OPENSIM SHOULD SHOW (within 0.1 % of the table)
{REACTIONS}, newtons:
{_reaction_lines(posed)}
These are axial_n; the same columns ending in fx and fz give shear_ap_n and shear_lateral_n with the other sign.
{ACTIVATIONS}:
the largest value of all muscles is {posed.rows[0].max_activation:.3f}; the columns reserve_... are the reserves in N m.
{MOMENTS}: what muscles have to balance about each coordinate, N m.
"""


def _reaction_lines(posed: PosedSubject) -> str:
    lines = []
    for level in LUMBAR_VERTEBRAE:
        below, above = BELOW_ABOVE[level]
        own = f"{below}_on_{level}_in_{level}_fy"
        mean = f"({own} - {above}_on_{level}_in_{level}_fy) / 2"
        lines.append(f"{level} joint_below    {own:67} = {posed.load(level, 'joint_below').axial_n:8.1f}")
        lines.append(f"{level} vertebra_mean  {mean:67} = {posed.load(level, 'vertebra_mean').axial_n:8.1f}")
    return "\n".join(lines)

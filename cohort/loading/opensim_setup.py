"""A posed problem of statics as a folder of files that OpenSim's tools solve, from a program or in its window.

Both the reference engine and the export write this folder. A few things that OpenSim 4.6 needs, each found by trial:

- a tool made in Python does not find its states; written to XML and read back it does;
- the motion file needs at least six rows even for one frame (spline of fifth degree);
- a JointReaction analysis without a name writes no file;
- file names in a set-up file are taken from the folder of that file, so the folder can be moved;
- with springs in the model JointReaction now and then gives nonsense, of another kind each time: moments of discs and
  ligaments are therefore given as pairs of torques from outside.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import opensim

from cohort.errors import RefusedError
from cohort.loading.base_model import HANDS, SPINAL_JOINTS, Floats, vector
from cohort.loading.equilibrium import GRAVITY_M_PER_S2
from cohort.loading.tasks import Task

STATICS_MODEL: Final = "model_statics.osim"
POSTURE: Final = "posture.mot"
RESERVES: Final = "reserve_actuators.xml"
EXTERNAL_LOADS: Final = "external_loads.xml"
EXTERNAL_LOADS_DATA: Final = "external_loads.mot"
STATIC_OPTIMIZATION: Final = "static_optimization.xml"
JOINT_REACTION: Final = "joint_reaction.xml"
INVERSE_DYNAMICS: Final = "inverse_dynamics.xml"
RESULTS: Final = "results"
ACTIVATIONS: Final = f"{RESULTS}/static_optimization_StaticOptimization_activation.sto"
FORCES: Final = f"{RESULTS}/static_optimization_StaticOptimization_force.sto"
REACTIONS: Final = f"{RESULTS}/joint_reaction_JointReaction_ReactionLoads.sto"
MOMENTS: Final = f"{RESULTS}/inverse_dynamics.sto"

REACTION_FRAMES: Final = (("child", "ground"), ("child", "child"), ("parent", "parent"))
"""On which body of a joint the reaction acts, and in which frame it is written."""
TOLERANCE: Final = 1e-6
"""Convergence criterion of OpenSim's optimiser: leaves up to 0.03 % of the load in standing."""
MAX_ITERATIONS: Final = 500
FRAMES: Final = 6
FRAME_S: Final = 0.01
RESERVE_NM: Final = 1.0
"""Optimal force of the reserve actuators: the same cost as in the batch engine."""
AXES: Final = ("LB", "AR", "FE")
"""Coordinates about x, y and z."""


def write_setup(folder: Path, model: Any, task: Task, passive_torque_nm: Floats | None = None) -> None:
    """Write a statics model (posture as its default values) and all that OpenSim's tools need to solve it.

    Hand loads are forces at the hands' centres of mass, so that hands keep their own mass. `passive_torque_nm` [6, 3]
    in ground acts on the upper body of each spinal joint, and its opposite on the lower body.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model.finalizeConnections()
    _print(model, folder / STATICS_MODEL)
    _write_motion(folder / POSTURE, _posture(model), in_degrees=True)
    _print(_reserves(), folder / RESERVES)
    torques = {} if passive_torque_nm is None else _torque_pairs(model, passive_torque_nm)
    _print(_external_loads(torques), folder / EXTERNAL_LOADS)
    columns = _hand_loads(model, task) | {
        f"{name}_torque_{axis}": float(value)
        for name, (_, torque) in torques.items()
        for axis, value in zip("xyz", torque, strict=True)
    }
    _write_motion(folder / EXTERNAL_LOADS_DATA, columns, in_degrees=False)
    write_static_optimization(folder)
    _print(_analysis(_joint_reaction(), "joint_reaction"), folder / JOINT_REACTION)
    _print(_inverse_dynamics(), folder / INVERSE_DYNAMICS)


def write_static_optimization(folder: Path, *, tolerance: float = TOLERANCE) -> None:
    """Write that set-up file alone, with another convergence criterion of the optimiser."""
    analysis = opensim.StaticOptimization()
    analysis.setName("StaticOptimization")
    analysis.setUseModelForceSet(True)
    analysis.setUseMusclePhysiology(False)
    analysis.setActivationExponent(2.0)
    analysis.setConvergenceCriterion(tolerance)
    analysis.setMaxIterations(MAX_ITERATIONS)
    _print(_analysis(analysis, "static_optimization"), folder / STATIC_OPTIMIZATION)


def run_analysis(setup: Path) -> None:
    """Run a set-up file of OpenSim's Analyze tool; `RefusedError` (`not_converged`) when it fails."""
    if not opensim.AnalyzeTool(str(setup.absolute()), True).run():
        raise RefusedError("not_converged", f"OpenSim's {setup.stem} failed")


def reserve_names() -> list[str]:
    """Names of the reserve actuators, three for each spinal joint from L5/S1 upward."""
    return [f"reserve_{joint}_{axis}" for joint in SPINAL_JOINTS for axis in AXES]


def _write_motion(path: Path, columns: Mapping[str, float], *, in_degrees: bool) -> None:
    """Write values that stay the same over time in OpenSim's motion format."""
    lines = [path.stem, "version=1", f"nRows={FRAMES}", f"nColumns={len(columns) + 1}"]
    lines += [f"inDegrees={'yes' if in_degrees else 'no'}", "endheader", "\t".join(["time", *columns])]
    lines += ["\t".join(f"{value + 0.0:.15g}" for value in (FRAME_S * k, *columns.values())) for k in range(FRAMES)]
    path.write_text("\n".join(lines) + "\n")


def _posture(model: Any) -> dict[str, float]:
    """Default value of each coordinate, degrees; all coordinates of the room's models are rotations."""
    coordinates = [model.getCoordinateSet().get(index) for index in range(model.getCoordinateSet().getSize())]
    return {one.getName(): float(np.degrees(one.getDefaultValue())) for one in coordinates}


def _hand_loads(model: Any, task: Task) -> dict[str, float]:
    """Force (N, ground) and point of application (m, in the hand) of each hand's load."""
    columns: dict[str, float] = {}
    for hand, load_kg in zip(HANDS, task.hand_kg, strict=True):
        force = (0.0, -GRAVITY_M_PER_S2 * load_kg, 0.0)
        point = vector(model.getBodySet().get(hand).getMassCenter())
        for letter, values in (("v", force), ("p", point)):
            columns |= {f"{hand}_force_{letter}{axis}": float(v) for axis, v in zip("xyz", values, strict=True)}
    return columns


def _torque_pairs(model: Any, torque_nm: Floats) -> dict[str, tuple[str, Floats]]:
    """Name -> body and torque [3] in ground: one on the upper and one on the lower body of each spinal joint."""
    pairs: dict[str, tuple[str, Floats]] = {}
    for joint, torque in zip(SPINAL_JOINTS, torque_nm, strict=True):
        frames = model.getJointSet().get(joint)
        upper, lower = (frame.findBaseFrame().getName() for frame in (frames.getChildFrame(), frames.getParentFrame()))
        pairs |= {f"{joint}_passive_upper": (upper, torque), f"{joint}_passive_lower": (lower, -torque)}
    return pairs


def _external_loads(torques: Mapping[str, tuple[str, Floats]]) -> Any:
    """A force in the direction of ground's axes at the centre of mass of each hand, and torques on vertebrae."""
    loads = opensim.ExternalLoads()
    loads.setName("external_loads")
    loads.setDataFileName(EXTERNAL_LOADS_DATA)
    for hand in HANDS:
        force = opensim.ExternalForce()
        force.setName(f"{hand}_load")
        force.set_applied_to_body(hand)
        force.set_force_expressed_in_body("ground")
        force.set_point_expressed_in_body(hand)
        force.set_force_identifier(f"{hand}_force_v")
        force.set_point_identifier(f"{hand}_force_p")
        loads.cloneAndAppend(force)
    for name, (body, _) in torques.items():
        pair = opensim.ExternalForce()
        pair.setName(name)
        pair.set_applied_to_body(body)
        pair.set_force_expressed_in_body("ground")
        pair.set_torque_identifier(f"{name}_torque_")
        loads.cloneAndAppend(pair)
    return loads


def _reserves() -> Any:
    """Actuators that stand in where muscles cannot balance a joint, as dear as a whole fascicle for each N m."""
    forces = opensim.ForceSet()
    forces.setName("reserves")
    for name in reserve_names():
        actuator = opensim.CoordinateActuator(name.removeprefix("reserve_"))
        actuator.setName(name)
        actuator.setOptimalForce(RESERVE_NM)
        actuator.setMinControl(-np.inf)
        actuator.setMaxControl(np.inf)
        forces.cloneAndAppend(actuator)
    return forces


def _joint_reaction() -> Any:
    """Forces at each joint, from those that static optimisation found: on the upper body in ground and in the upper
    body's frame, and on the lower body in the lower body's frame."""
    analysis = opensim.JointReaction()
    analysis.setName("JointReaction")
    analysis.setForcesFileName(FORCES)
    wanted = [(joint, *where) for where in REACTION_FRAMES for joint in SPINAL_JOINTS]
    joints, on_body, in_frame = zip(*wanted, strict=True)
    analysis.setJointNames(_strings(joints))
    analysis.setOnBody(_strings(on_body))
    analysis.setInFrame(_strings(in_frame))
    return analysis


def _analysis(analysis: Any, name: str) -> Any:
    """Set-up of the Analyze tool at the first frame."""
    tool = opensim.AnalyzeTool()
    tool.setName(name)
    tool.setModelFilename(STATICS_MODEL)
    tool.setCoordinatesFileName(POSTURE)
    tool.setExternalLoadsFileName(EXTERNAL_LOADS)
    tool.setForceSetFiles(_strings([RESERVES]))
    tool.setReplaceForceSet(False)
    tool.setResultsDir(RESULTS)
    tool.setInitialTime(0.0)
    tool.setFinalTime(0.0)
    tool.setSolveForEquilibrium(False)
    analysis.setStartTime(0.0)
    analysis.setEndTime(0.0)
    tool.updAnalysisSet().cloneAndAppend(analysis)
    return tool


def _inverse_dynamics() -> Any:
    """Set-up of the inverse dynamics tool: the moments that gravity and the hand loads ask for at each joint."""
    tool = opensim.InverseDynamicsTool()
    tool.setName("inverse_dynamics")
    tool.setModelFileName(STATICS_MODEL)
    tool.setCoordinatesFileName(POSTURE)
    tool.setExternalLoadsFileName(EXTERNAL_LOADS)
    tool.setExcludedForces(_strings(["actuators"]))
    tool.setResultsDir(RESULTS)
    tool.setOutputGenForceFileName(Path(MOMENTS).name)
    tool.setStartTime(0.0)
    tool.setEndTime(FRAME_S * (FRAMES - 1))
    return tool


def _strings(names: Iterable[str]) -> Any:
    array = opensim.ArrayStr()
    for name in names:
        array.append(name)
    return array


def _print(thing: Any, path: Path) -> None:
    if not thing.printToXML(str(path)):
        raise OSError(f"OpenSim could not write {path.name}")

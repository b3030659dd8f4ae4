"""The reference engine: the personalised model through OpenSim's own StaticOptimization and JointReaction.

OpenSim holds the interpreter for whole calls and can hang, so it runs in a child process that is killed when its time
is over. Locked coordinates are left out of its optimisation, which is what fixes pelvis and arms here.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import opensim

from cohort.errors import RefusedError
from cohort.loading.assumptions import Assumptions, Personalisation
from cohort.loading.base_model import ARMS, PELVIS_TILT, SPINAL_JOINTS, BaseModel, Floats, read_base_model, rotation
from cohort.loading.opensim_setup import (
    ACTIVATIONS,
    AXES,
    JOINT_REACTION,
    REACTIONS,
    RESERVE_NM,
    STATIC_OPTIMIZATION,
    run_analysis,
    write_setup,
)
from cohort.loading.osim_export import personal_opensim_model
from cohort.loading.personalise import EVERYTHING, PersonalModels, personalise
from cohort.loading.solve import SATURATED, STANDARD, Reactions, load_rows
from cohort.loading.subject import LoadingSubject
from cohort.loading.tasks import Task
from cohort.rows import LoadRow


def solve_with_opensim(
    base_osim_path: Path,
    subject: LoadingSubject,
    task: Task,
    *,
    use: Personalisation = EVERYTHING,
    assumptions: Assumptions = STANDARD,
    timeout_s: float,
) -> list[LoadRow]:
    """Loads of L1..L5 of one subject by OpenSim: ten rows, engine `opensim`.

    Raises RefusedError `timed_out` when the child process had to be killed after `timeout_s`, `internal_error` when it
    died or OpenSim failed, and the child's own RefusedError otherwise.
    """
    context = multiprocessing.get_context("forkserver")
    receiver, sender = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory(prefix="loads-") as folder:
        question = (base_osim_path, subject, task, Path(folder), use, assumptions)
        child = context.Process(target=_answer, args=(sender, *question), daemon=True)
        child.start()
        sender.close()
        try:
            if not receiver.poll(timeout_s):
                raise RefusedError("timed_out", f"OpenSim took longer than {timeout_s} s")
            answer = receiver.recv()
        except EOFError as error:
            raise RefusedError("internal_error", "the process that ran OpenSim died") from error
        finally:
            child.kill()
            child.join()
            receiver.close()
    if isinstance(answer, tuple):
        raise RefusedError(*answer)
    return list(answer)


def _answer(sender: Connection, *question: Any) -> None:
    """Run in the child: send rows, or (reason, detail)."""
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    try:
        sender.send(run_opensim(*question))
    except RefusedError as error:
        sender.send((error.reason, error.detail))
    except Exception as error:  # the parent must hear of any failure; OpenSim's texts may hold paths, so only the class
        sender.send(("internal_error", f"OpenSim raised {type(error).__name__}"))


def run_opensim(
    base_osim_path: Path,
    subject: LoadingSubject,
    task: Task,
    folder: Path,
    use: Personalisation = EVERYTHING,
    assumptions: Assumptions = STANDARD,
) -> list[LoadRow]:
    """Solve in this process, with all files in `folder`; `solve_with_opensim` is the safe way to call it."""
    opensim.Logger.setLevelString("Off")
    opensim.Logger.removeFileSink()
    base = read_base_model(base_osim_path)
    models = personalise(base, [subject], use)
    model, axes = statics_model(base, models, task, assumptions)
    write_setup(folder, model, task)
    run_analysis(folder / STATIC_OPTIMIZATION)
    run_analysis(folder / JOINT_REACTION)
    found = _read_results(folder, axes)
    return list(load_rows(subject, task, "opensim", models, 0, found))


def statics_model(base: BaseModel, models: PersonalModels, task: Task, assumptions: Assumptions) -> tuple[Any, Floats]:
    """The one model of `models` as OpenSim's static optimisation is given it, and the axes of L5..L1 in ground.

    opensim.Model in the task's posture (its default values), pelvis and arms locked, path actuators in the place of
    muscles; axes [5, 3, 3]. Hand loads are not in it.
    """
    model = personal_opensim_model(base, models)
    axes = _pose(model, base, task, standing_tilt_rad=float(models.rest_tilt_rad[0]))
    _replace_muscles(model)
    _set_inertias(model)
    return model, axes


def _pose(model: Any, base: BaseModel, task: Task, *, standing_tilt_rad: float) -> Floats:
    """Make the task's posture the default one, fix pelvis and arms; return the axes of L5..L1 in ground, [5, 3, 3]."""
    angle = {PELVIS_TILT: standing_tilt_rad + task.pelvis_tilt_rad}
    for joint, bend in zip(SPINAL_JOINTS, task.joint_extension_rad, strict=True):
        angle |= {f"{joint}_LB": 0.0, f"{joint}_AR": 0.0, f"{joint}_FE": float(bend)}
    _set_defaults(model, angle)
    state = model.initSystem()
    model.realizePosition(state)
    bodies = model.getBodySet()
    axes = np.array([rotation(bodies.get(base.bodies[body]), state) for body in base.joint_body[:-1]])
    fixed = {PELVIS_TILT: angle[PELVIS_TILT]}
    for arm in ARMS:
        number = base.body(arm)
        parent = rotation(bodies.get(base.bodies[base.parent[number]]), state)
        shoulder = _joint_of(model, arm)
        names = [shoulder.get_coordinates(index).getName() for index in range(3)]
        fixed |= dict(zip(names, _hanging_angles(parent @ base.rest_rotation[number]), strict=True))
    _set_defaults(model, fixed, locked=True)
    return axes


def _joint_of(model: Any, child: str) -> Any:
    joints = (model.getJointSet().get(index) for index in range(model.getJointSet().getSize()))
    return {joint.getChildFrame().findBaseFrame().getName(): joint for joint in joints}[child]


def _hanging_angles(frame: Floats) -> tuple[float, float, float]:
    """Angles about z, x, y (body-fixed) that bring a frame with axes [3, 3] upright."""
    R = frame.T
    return float(np.arctan2(-R[0, 1], R[1, 1])), float(np.arcsin(R[2, 1])), float(np.arctan2(-R[2, 0], R[2, 2]))


def _set_defaults(model: Any, angles: dict[str, float], *, locked: bool = False) -> None:
    for name, value in angles.items():
        coordinate = model.getCoordinateSet().get(name)
        coordinate.setDefaultValue(value)
        coordinate.setDefaultLocked(locked)


def _replace_muscles(model: Any) -> None:
    """Put path actuators of the same path and strength in the place of muscles.

    Their force is activation times strength, as in the batch engine, and their activation may be 0: OpenSim's muscles
    insist on 0.01 in every fascicle, which is a load of its own.
    """
    opensim.ModelFactory.replaceMusclesWithPathActuators(model)
    forces = model.getForceSet()
    for index in range(forces.getSize()):
        actuator = opensim.PathActuator.safeDownCast(forces.get(index))
        actuator.setMinControl(0.0)
        actuator.setMaxControl(1.0)


def _set_inertias(model: Any) -> None:
    """Give all bodies 1 kg m2: at rest inertia has no effect, but OpenSim's equations are accelerations, and small
    inertias make them so large that its optimiser can fail."""
    for body in model.getBodyList():
        body.setInertia(opensim.Inertia(1.0, 1.0, 1.0))


def _read_results(folder: Path, axes: Floats) -> Reactions:
    activation = _first_row(folder / ACTIVATIONS)
    reaction = _first_row(folder / REACTIONS)
    force = [
        [next(value for label, value in reaction.items() if _is_force(label, joint, axis)) for axis in "xyz"]
        for joint in SPINAL_JOINTS
    ]
    reserve = [[activation[f"reserve_{joint}_{axis}"] * RESERVE_NM for axis in AXES] for joint in SPINAL_JOINTS]
    muscles = [value for label, value in activation.items() if not label.startswith("reserve_")]
    return Reactions(
        reaction_n=np.array(force),
        vertebra_axes=axes,
        reserve_nm=np.array(reserve),
        max_activation=max(muscles),
        n_saturated=sum(value >= SATURATED for value in muscles),
        converged=True,
    )


def _is_force(label: str, joint: str, axis: str) -> bool:
    """Columns are named `<joint>_on_<body>_in_ground_f<axis>`."""
    return label.startswith(f"{joint}_on_") and label.endswith(f"_in_ground_f{axis}")


def _first_row(path: Path) -> dict[str, float]:
    if not path.is_file():
        raise RefusedError("not_converged", f"OpenSim wrote no {path.stem}")
    table = opensim.TimeSeriesTable(str(path))
    if table.getNumRows() == 0:
        raise RefusedError("not_converged", f"OpenSim wrote an empty {path.stem}")
    row = table.getRowAtIndex(0)
    values = {label: float(row[index]) for index, label in enumerate(table.getColumnLabels())}
    if not np.isfinite(list(values.values())).all():
        raise RefusedError("not_converged", f"OpenSim wrote values that are not numbers in {path.stem}")
    return values

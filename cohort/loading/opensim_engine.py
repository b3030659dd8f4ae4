"""The reference engine: the personalised model through OpenSim's own StaticOptimization and JointReaction.

OpenSim holds the interpreter for whole calls and can hang, so it runs in a child process that is killed when its time
is over. Two traps, found by trial: an optimiser that gives up still writes numbers, which can be a third off, and only
the log tells; small inertias make accelerations so large that the optimiser fails, and at rest any inertia will do.
Locked coordinates are left out of the optimisation, which is what fixes pelvis and arms here.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import numpy as np
import opensim

from cohort.errors import RefusedError
from cohort.loading.assumptions import Assumptions, Personalisation
from cohort.loading.base_model import ARMS, PELVIS_TILT, SPINAL_JOINTS, BaseModel, Floats, read_base_model, rotation
from cohort.loading.equilibrium import arm_axes, fascicle_lengths, pose_models
from cohort.loading.force_length import LEAST_STRENGTH, stretch_fibres
from cohort.loading.opensim_setup import (
    ACTIVATIONS,
    AXES,
    JOINT_REACTION,
    REACTIONS,
    RESERVE_NM,
    STATIC_OPTIMIZATION,
    coordinate_names,
    run_analysis,
    write_setup,
    write_static_optimization,
)
from cohort.loading.osim_export import personal_opensim_model
from cohort.loading.personalise import EVERYTHING, PersonalModels, personalise
from cohort.loading.solve import SATURATED, STANDARD, Reactions, load_rows, vertebral_forces
from cohort.loading.subject import LoadingSubject
from cohort.loading.tasks import Task
from cohort.rows import LoadRow

TOLERANCES: Final = (1e-8, 1e-6)
"""Convergence criteria of OpenSim's optimiser, tried in this order: the first leaves a few millionths of the load, the
second up to 0.03 % in standing; the first is now and then more than the optimiser can do."""
LOG: Final = "optimiser.log"


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
    base = read_base_model(base_osim_path)
    models = personalise(base, [subject], use)
    model, axes = statics_model(base, models, task, assumptions)
    write_setup(folder, model, task, assumptions)
    converged = any(_optimise(folder, tolerance) for tolerance in TOLERANCES)
    run_analysis(folder / JOINT_REACTION)
    misfits = _misfits(base, models, task) if assumptions.force_length else 0
    found = _read_results(folder, axes, misfits, converged=converged)
    return list(load_rows([subject], task, "opensim", models, found, vertebral_forces(found)))


def statics_model(base: BaseModel, models: PersonalModels, task: Task, assumptions: Assumptions) -> tuple[Any, Floats]:
    """The one model of `models` as OpenSim's static optimisation is given it, and the axes of L5..L1 in ground.

    opensim.Model in the task's posture (its default values), pelvis and arms locked, path actuators in the place of
    muscles; axes [5, 3, 3]. Hand loads and passive moments are not in it: see `write_setup`.
    """
    model = personal_opensim_model(base, models)
    state = _pose(model, base, models, task)
    bodies = model.getBodySet()
    axes = np.array([rotation(bodies.get(base.bodies[body]), state) for body in base.joint_body[:-1]])
    if assumptions.force_length:
        _apply_force_length(model, state, base, models)
    _replace_muscles(model, assumptions.min_activation)
    _set_inertias(model)
    model.finalizeConnections()
    return model, axes


def _pose(model: Any, base: BaseModel, models: PersonalModels, task: Task) -> Any:
    """Make the task's posture the default one, and fix pelvis and arms; return the model's state in it."""
    angle = dict(zip(coordinate_names(), task.joint_angles_rad.ravel().tolist(), strict=True))
    fixed = {PELVIS_TILT: float(models.rest_tilt_rad[0]) + task.pelvis_tilt_rad}
    _set_defaults(model, angle)
    _set_defaults(model, fixed, locked=True)
    state = model.initSystem()
    model.realizePosition(state)
    bodies = model.getBodySet()
    arms = arm_axes(rotation(bodies.get(base.bodies[base.joint_body[-1]]), state), task.arm_elevation_rad)
    for arm in ARMS:
        number = base.body(arm)
        parent = rotation(bodies.get(base.bodies[base.parent[number]]), state)
        angles = _shoulder_angles((parent @ models.rest_rotation[0, number]).T @ arms)
        _set_defaults(model, dict(zip(_coordinates_of(model, arm), angles, strict=True)), locked=True)
    state = model.initSystem()
    model.realizeVelocity(state)
    return state


def _coordinates_of(model: Any, child: str) -> list[str]:
    """Names of the three rotations (about z, x, y) of the joint of a body."""
    joint = _joint_of(model, child)
    return [joint.get_coordinates(index).getName() for index in range(3)]


def _joint_of(model: Any, child: str) -> Any:
    joints = (model.getJointSet().get(index) for index in range(model.getJointSet().getSize()))
    return {joint.getChildFrame().findBaseFrame().getName(): joint for joint in joints}[child]


def _shoulder_angles(R: Floats) -> tuple[float, float, float]:
    """Body-fixed angles about z, x, y of a rotation [3, 3]."""
    return float(np.arctan2(-R[0, 1], R[1, 1])), float(np.arcsin(R[2, 1])), float(np.arctan2(-R[2, 0], R[2, 2]))


def _set_defaults(model: Any, angles: dict[str, float], *, locked: bool = False) -> None:
    for name, value in angles.items():
        coordinate = model.getCoordinateSet().get(name)
        coordinate.setDefaultValue(value)
        coordinate.setDefaultLocked(locked)


def _apply_force_length(model: Any, state: Any, base: BaseModel, models: PersonalModels) -> None:
    """Give every fascicle the force that OpenSim's own muscle has in the posture at full activation."""
    for name, most in zip(base.fascicles, models.strength_n[0].tolist(), strict=True):
        muscle = model.getMuscles().get(name)
        active = muscle.calcInextensibleTendonActiveFiberForce(state, 1.0)
        muscle.setMaxIsometricForce(max(active, LEAST_STRENGTH * most))


def _misfits(base: BaseModel, models: PersonalModels, task: Task) -> int:
    """Number of fascicles whose fibres are out of their active range, a limit of this project, not of OpenSim."""
    length = fascicle_lengths(base, models, pose_models(base, models, task))
    return int(stretch_fibres(base, models, length).out_of_range.sum())


def _replace_muscles(model: Any, min_activation: float) -> None:
    """Put path actuators of the same path and strength in the place of muscles.

    Their force is activation times strength, as in the batch engine, and their activation may be 0: OpenSim's muscles
    insist on 0.01 in every fascicle, which is a load of its own.
    """
    opensim.ModelFactory.replaceMusclesWithPathActuators(model)
    forces = model.getForceSet()
    for index in range(forces.getSize()):
        actuator = opensim.PathActuator.safeDownCast(forces.get(index))
        actuator.setMinControl(min_activation)
        actuator.setMaxControl(1.0)


def _set_inertias(model: Any) -> None:
    """Give all bodies 1 kg m2: at rest inertia has no effect, but OpenSim's equations are accelerations, and small
    inertias make them so large that its optimiser fails."""
    for body in model.getBodyList():
        body.setInertia(opensim.Inertia(1.0, 1.0, 1.0))


def _optimise(folder: Path, tolerance: float) -> bool:
    """Run OpenSim's static optimisation; say whether it found a solution.

    Where it finds none, OpenSim writes its last values as if they were one, and only its log says so.
    """
    write_static_optimization(folder, tolerance=tolerance)
    log = folder / LOG
    log.unlink(missing_ok=True)
    with _warnings_in(log):
        run_analysis(folder / STATIC_OPTIMIZATION)
    return "could not find a solution" not in log.read_text(errors="replace")


@contextmanager
def _warnings_in(log: Path) -> Iterator[None]:
    """Have OpenSim write its warnings to a file for a while; otherwise it is silent."""
    opensim.Logger.removeFileSink()
    opensim.Logger.addFileSink(str(log))
    opensim.Logger.setLevelString("Warn")
    try:
        yield
    finally:
        opensim.Logger.setLevelString("Off")
        opensim.Logger.removeFileSink()


def _read_results(folder: Path, axes: Floats, misfits: int, *, converged: bool) -> Reactions:
    activation = _first_row(folder / ACTIVATIONS)
    reaction = _first_row(folder / REACTIONS)
    force = [
        [next(value for label, value in reaction.items() if _is_force(label, joint, axis)) for axis in "xyz"]
        for joint in SPINAL_JOINTS
    ]
    reserve = [[activation[f"reserve_{joint}_{axis}"] * RESERVE_NM for axis in AXES] for joint in SPINAL_JOINTS]
    muscles = np.array([value for label, value in activation.items() if not label.startswith("reserve_")])
    return Reactions(
        reaction_n=np.array([force]),
        vertebra_axes=axes[None],
        reserve_nm=np.array([reserve]),
        max_activation=muscles.max(keepdims=True),
        n_saturated=np.array([(muscles >= SATURATED).sum()]),
        fibres_out_of_range=np.array([misfits]),
        converged=np.array([converged]),
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

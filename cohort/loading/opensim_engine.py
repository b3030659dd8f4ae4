"""The reference engine: the personalised model through OpenSim's own StaticOptimization and JointReaction.

Two things about OpenSim's optimiser that were found by trial: locked coordinates are left out, which is what fixes
pelvis and arms here; and when it gives up it still writes numbers, which can be a third off: only the log tells.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import opensim

from cohort.errors import ConfigurationError, RefusedError
from cohort.loading.assumptions import Assumptions, Personalisation
from cohort.loading.base_model import ARMS, PELVIS_TILT, SPINAL_JOINTS, BaseModel, Floats, read_base_model, rotation
from cohort.loading.equilibrium import arm_axes, coordinate_axes
from cohort.loading.force_length import LEAST_STRENGTH, stretch_fibres
from cohort.loading.isolated import run_isolated
from cohort.loading.opensim_setup import (
    ACTIVATIONS,
    AXES,
    JOINT_REACTION,
    REACTIONS,
    RESERVE_NM,
    STATIC_OPTIMIZATION,
    run_analysis,
    write_setup,
    write_static_optimization,
)
from cohort.loading.osim_export import personal_opensim_model
from cohort.loading.passive import passive_moments
from cohort.loading.personalise import EVERYTHING, PersonalModels, personalise
from cohort.loading.solve import SATURATED, STANDARD, Reactions, load_rows, vertebral_forces
from cohort.loading.subject import LoadingSubject
from cohort.loading.tasks import Task
from cohort.rows import LoadRow

TOLERANCES: Final = (1e-8, 1e-6)
"""Convergence criteria of OpenSim's optimiser, tried in this order: the first leaves a few millionths of the load, the
second up to 0.03 % in standing; the first is now and then more than the optimiser can do."""
LOG: Final = "optimiser.log"
NO_BODY: Final = 1e6
"""Beyond any force (N) and moment (N m) in a living spine; where OpenSim writes more, or no number, it is no answer."""


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
    with tempfile.TemporaryDirectory(prefix="loads-") as folder:
        question = (base_osim_path, subject, task, Path(folder), use, assumptions)
        try:
            return run_isolated(run_opensim, *question, timeout_s=timeout_s)
        except ConfigurationError as error:
            raise RefusedError("internal_error", "OpenSim could not read the base model") from error


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
    statics = statics_model(base, models, task, assumptions)
    write_setup(folder, statics.model, task, statics.passive_torque_nm)
    converged = any(_optimise(folder, tolerance) for tolerance in TOLERANCES)
    run_analysis(folder / JOINT_REACTION)
    found = _read_results(folder, statics, converged=converged)
    return load_rows(subject, 0, task, "opensim", models, found, vertebral_forces(found))


@dataclass(frozen=True, eq=False)
class StaticsModel:
    """One person's model as OpenSim's static optimisation is given it."""

    model: Any
    """opensim.Model in the task's posture (its default values), pelvis and arms locked, path actuators in the place of
    muscles; hand loads are not in it."""
    vertebra_axes: Floats
    """[5, 3, 3] axes of L5..L1 in ground."""
    fibres_out_of_range: int
    """Fascicles whose fibres are too short or too long to be active; 0 without the force-length relation."""
    passive_torque_nm: Floats | None
    """[6, 3] on the upper body of each spinal joint, ground frame; not in the model."""


def statics_model(base: BaseModel, models: PersonalModels, task: Task, assumptions: Assumptions) -> StaticsModel:
    """Turn the one model of `models` into that of a task: posture, actuators, torques of discs and ligaments."""
    model = personal_opensim_model(base, models)
    state = _pose(model, base, models, task)
    bodies = model.getBodySet()
    axes = np.array([rotation(bodies.get(base.bodies[body]), state) for body in base.joint_body[:-1]])
    misfits = _apply_force_length(model, state, base, models) if assumptions.force_length else 0
    torque = _passive_torques(model, state, base, task) if assumptions.passive_stiffness else None
    _replace_muscles(model, assumptions.min_activation)
    _set_inertias(model)
    return StaticsModel(model, axes, misfits, torque)


def _pose(model: Any, base: BaseModel, models: PersonalModels, task: Task) -> Any:
    """Make the task's posture the default one, and fix pelvis and arms; return the model's state in it."""
    angle = dict(zip(_coordinate_names(), task.joint_angles_rad.ravel().tolist(), strict=True))
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


def _coordinate_names() -> list[str]:
    """Names of the spinal coordinates in the order of `Task.joint_angles_rad`."""
    return [f"{joint}_{axis}" for joint in SPINAL_JOINTS for axis in ("FE", "LB", "AR")]


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


def _apply_force_length(model: Any, state: Any, base: BaseModel, models: PersonalModels) -> int:
    """Give every fascicle the force that OpenSim's own muscle has in the posture at full activation.

    Returns how many are out of their range; that limit is this project's, not OpenSim's.
    """
    muscles = [model.getMuscles().get(name) for name in base.fascicles]
    length = np.array([[muscle.getLength(state) for muscle in muscles]])
    force = [muscle.calcInextensibleTendonActiveFiberForce(state, 1.0) for muscle in muscles]
    for muscle, most, active in zip(muscles, models.strength_n[0], force, strict=True):
        muscle.setMaxIsometricForce(max(active, LEAST_STRENGTH * float(most)))
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


def _passive_torques(model: Any, state: Any, base: BaseModel, task: Task) -> Floats:
    """Torques [6, 3] in ground on the upper bodies that have the moments of `passive_moments` along the coordinates."""
    bodies = (model.getBodySet().get(base.bodies[body]) for body in base.joint_body)
    ground = np.matmul(coordinate_axes(task), np.array([rotation(body, state).T for body in bodies]))
    moments = passive_moments(task)[:, [1, 2, 0]]
    return np.asarray(np.linalg.solve(ground, moments[:, :, None])[..., 0])


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


def _read_results(folder: Path, statics: StaticsModel, *, converged: bool) -> Reactions:
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
        vertebra_axes=statics.vertebra_axes[None],
        reserve_nm=np.array([reserve]),
        max_activation=muscles.max(keepdims=True),
        n_saturated=np.array([(muscles >= SATURATED).sum()]),
        fibres_out_of_range=np.array([statics.fibres_out_of_range]),
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
    if not (np.abs(list(values.values())) < NO_BODY).all():
        raise RefusedError("not_converged", f"OpenSim wrote nonsense in {path.stem}")
    return values

"""Builds the default spine model, male or female, from the tables of this folder with the OpenSim API.

Nothing here is random or dated: the same tables give the same bytes with the same version of OpenSim.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import opensim

from cohort.loading.dialect import DialectWriter, Fascicle
from models.musculoskeletal.tables import (
    LUMBAR,
    SPECIFIC_TENSION_N_PER_CM2,
    Floats,
    Layout,
    Sex,
    Traits,
    base_model_sha256,
    lay_out,
    of_sex,
    pcsa_ratio,
    read,
    rest_deg,
    sides,
    xyz,
)

__all__ = ["Sex", "base_model_sha256", "build_base_model", "build_laid_out"]

Paths = dict[str, list[tuple[str, Floats]]]
"""Fascicle -> body and place [3] of each point of its path."""
VERTEBRA_RADIUS_M: Final = 0.02
"""Of the cylinders drawn for vertebrae; drawing only."""
OPACITY: Final = 0.3
"""Of the ellipsoids drawn for the other bodies."""


def build_base_model(sex: Sex, path: Path, specific_tension_n_per_cm2: float = SPECIFIC_TENSION_N_PER_CM2) -> Path:
    """Write the default model of one sex to `path` (an .osim file) and return the path.

    Raises ValueError if `sex` is not in sexes.csv, the specific tension is not positive, or the tables contradict each
    other.
    """
    if not specific_tension_n_per_cm2 > 0:
        raise ValueError(f"the specific tension must be positive, not {specific_tension_n_per_cm2} N/cm2")
    layout = lay_out(Traits.of(sex))
    return build_laid_out(layout, path, f"lumbar_cohort_{sex}", specific_tension_n_per_cm2)


def build_laid_out(
    layout: Layout, path: Path, name: str, specific_tension_n_per_cm2: float = SPECIFIC_TENSION_N_PER_CM2
) -> Path:
    """Write the model of any layout; `build_base_model` is this for one sex."""
    opensim.Logger.setLevelString("Off")
    writer = DialectWriter(name)
    writer.model.set_credits("Lumbar Cohort; every number with its source in models/musculoskeletal/*.csv")
    _add_bodies(writer, layout)
    _add_joints(writer, layout)
    for fascicle in _fascicles(layout, specific_tension_n_per_cm2):
        writer.add_fascicle(fascicle)
    _add_landmarks(writer, layout)
    return writer.write(path)


def _mirrored(point: Floats, sign: float) -> Floats:
    return np.asarray(point * np.array([1.0, 1.0, sign]), dtype=np.float64)


def _add_bodies(writer: DialectWriter, layout: Layout) -> None:
    """Bodies with mass, centre and moments of inertia about it; the listed shares are divided by their sum, which is
    0.9999 in de Leva's table of women."""
    rows = of_sex(layout.traits.mass, "bodies")
    share = {row["body"]: float(row["mass_fraction"]) for row in rows}
    total = sum(value * len(sides(body)) for body, value in share.items())
    mass = float(of_sex(layout.traits.mass)[0]["mass_kg"])
    for row in rows:
        _, centre = layout.in_body(row["body"], xyz(row, "com_"))
        gyration = xyz(row, "gyration_") * layout.scale(row["body"])
        own = share[row["body"]] / total * mass
        for name, sign in sides(row["body"]):
            writer.add_body(name, own, _mirrored(centre, sign), np.diag(own * gyration**2))
            _draw(writer, name, row["body"], _mirrored(centre, sign), gyration, layout)


def _draw(writer: DialectWriter, body: str, kind: str, centre: Floats, gyration: Floats, layout: Layout) -> None:
    """Something to look at: vertebrae as cylinders from joint to joint, other parts above the pelvis as ellipsoids of
    their mass's inertia. No mesh files."""
    if kind in LUMBAR:
        above = next(row for row in layout.joints if row["parent"] == kind and row["kind"] == "spine")
        half = layout.joint_place(above) / 2.0
        writer.draw(body, half, opensim.Cylinder(VERTEBRA_RADIUS_M, float(half[1])), 1.0)
    elif kind not in ("pelvis", "abdomen"):
        semi_axes = np.sqrt(np.maximum(2.5 * ((gyration**2).sum() - 2.0 * gyration**2), 0.0))
        writer.draw(body, centre, opensim.Ellipsoid(*map(float, semi_axes)), OPACITY)


def _add_joints(writer: DialectWriter, layout: Layout) -> None:
    for row in layout.joints:
        rest = np.array([0.0, 0.0, np.radians(rest_deg(row, layout.traits.lordosis))])
        for child, sign in sides(row["child"]):
            if row["parent"] == "ground":
                writer.add_joint(child, None, np.zeros(3), rest)
            else:
                side = child.removeprefix(row["child"]) if row["parent"] == "arm" else ""
                writer.add_joint(child, row["parent"] + side, _mirrored(layout.joint_place(row), sign), rest)


def _fascicles(layout: Layout, tension_n_per_cm2: float) -> Iterator[Fascicle]:
    """Fascicles whose fibres and tendon keep their shares of the man's path."""
    paths = _paths(layout)
    male = lay_out(Traits.of("male"))
    length, male_length = _path_lengths(layout, paths), _path_lengths(male, _paths(male))
    for row in read("fascicles"):
        name, group = row["fascicle"], row["group"]
        stretch = length[name] / male_length[name]
        for side in row["sides"].split():
            sign = 1.0 if side == "right" else -1.0
            yield Fascicle(
                name=f"{name}_{side[0]}",
                group=group,
                strength_n=float(row["pcsa_cm2"]) * tension_n_per_cm2 * pcsa_ratio(layout.traits, group),
                optimal_fibre_m=float(row["optimal_fibre_length_m"]) * stretch,
                tendon_slack_m=float(row["tendon_slack_length_m"]) * stretch,
                pennation_rad=float(np.radians(float(row["pennation_deg"]))),
                points=tuple((body, _mirrored(point, sign)) for body, point in paths[name]),
            )


def _paths(layout: Layout) -> Paths:
    paths: Paths = {}
    for row in read("path_points"):
        paths.setdefault(row["fascicle"], []).append(layout.in_body(row["body"], xyz(row)))
    return paths


def _path_lengths(layout: Layout, paths: Paths) -> dict[str, float]:
    """Length of each fascicle's path in the model's upright posture."""
    origin = {body: layout.body_origin(body) for body in layout.origin}
    lengths = {}
    for fascicle, path in paths.items():
        places = [origin[body] + layout.posture[body] @ place for body, place in path]
        lengths[fascicle] = float(np.linalg.norm(np.diff(places, axis=0), axis=1).sum())
    return lengths


def _add_landmarks(writer: DialectWriter, layout: Layout) -> None:
    for row in read("landmarks"):
        body = row["frame_body"]
        own = (row["landmark"], "depth") in layout.ratios
        writer.add_marker(row["landmark"], body, layout.to_body(body, xyz(row), row["landmark"] if own else body))

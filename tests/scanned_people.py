"""People as the chain would measure them, made from a base model or from a straight column."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cohort.loading.base_model import BaseModel
from cohort.loading.curvature import CHAIN, DISCS
from cohort.loading.equilibrium import pose_models
from cohort.loading.personalise import personalise
from cohort.loading.position import typical_place_m
from cohort.loading.subject import LoadingSubject, Point
from cohort.loading.tasks import STANDING
from cohort.terms import MUSCLES, SIDES

Centroids = dict[str, Point]
MuscleCentroids = dict[tuple[str, str, str], Point]


FLAT_VERTEBRAE_MM: Centroids = {
    "S1": (3.0, 28.0, -118.0),
    "L5": (2.0, 6.0, -86.0),
    "L4": (1.0, -3.0, -49.0),
    "L3": (0.0, -5.0, -12.0),
    "L2": (0.0, -2.0, 25.0),
    "L1": (-1.0, 4.0, 60.0),
    "T12": (-2.0, 11.0, 93.0),
}
FLAT_DISCS_MM: Centroids = {
    "L5-S1": (2.0, 16.0, -103.0),
    "L4-L5": (1.0, 0.0, -68.0),
    "L3-L4": (0.0, -5.0, -30.0),
    "L2-L3": (0.0, -4.0, 7.0),
    "L1-L2": (-1.0, 1.0, 43.0),
    "T12-L1": (-1.0, 7.0, 77.0),
}
"""A flat lumbar spine seen from S1 to T12; LPS mm."""


def subject(**known: Any) -> LoadingSubject:
    return LoadingSubject(**({"exam_id": "e", "sex": "M", "height_m": 1.75, "mass_kg": 75.0} | known))


def scanned_chain(
    base: BaseModel, bend_deg: npt.NDArray[np.float64], *, length_scale: float = 1.0, lying_deg: float = 0.0
) -> dict[str, Centroids]:
    """Centroids that a scan of the base model would give, each joint bent by `bend_deg` [6] (extension positive)."""
    pose = pose_models(base, personalise(base, [subject()]), STANDING)
    turn = np.array([pose.rotation[0, base.parent[base.joint_body[0]]], *pose.rotation[0, base.joint_body]])
    axis = np.einsum("vij,vj->vi", turn, base.vertebral_axis)
    angle = np.arctan2(axis[:, 1], axis[:, 0]) + np.radians(np.concatenate([[0.0], np.cumsum(bend_deg)]) + lying_deg)
    length = np.concatenate([[0.022], base.vertebral_length_m * length_scale, [0.018]])
    steps = length[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    points = np.concatenate([[[0.0, 0.0]], np.cumsum(steps, axis=0)]) * 1000.0
    discs = points[1:-1]
    bodies = [points[0], *((discs[:-1] + discs[1:]) / 2.0), points[-1]]
    lps = [(12.0, 40.0 - x, y - 300.0) for x, y in [*bodies, *discs]]
    return {
        "vertebra_centroids_mm": dict(zip(CHAIN, lps[:7], strict=True)),
        "disc_centroids_mm": dict(zip(DISCS, lps[7:], strict=True)),
    }


def scanned_muscles(
    chain: dict[str, Centroids], *, height_m: float = 1.75, forward_mm: Any = 0.0, outward_mm: Any = 0.0
) -> MuscleCentroids:
    """Centroids of all muscles beside the discs of a chain, moved from the typical place by so many mm (one number, or
    one of each disc)."""
    typical = typical_place_m(height_m) * 1000.0
    moved = np.broadcast_to(np.stack(np.broadcast_arrays(forward_mm, outward_mm), axis=-1), (len(DISCS), 2))
    found = {}
    for d, disc in enumerate(DISCS):
        centre = np.array(chain["disc_centroids_mm"][disc])
        axis = _axis(chain, d) + _axis(chain, d + 1)
        front = np.array([0.0, -axis[2], axis[1]]) / np.linalg.norm(axis)
        for m, muscle in enumerate(MUSCLES):
            forward, outward = typical[m, d] + moved[d]
            if not np.isnan(forward):
                for side in SIDES:
                    left = outward if side == "left" else -outward
                    place = centre + forward * front + np.array([left, 0.0, 0.0])
                    found[muscle, side, disc] = (float(place[0]), float(place[1]), float(place[2]))
    return found


def _axis(chain: dict[str, Centroids], place: int) -> npt.NDArray[np.float64]:
    """Axis [3] of the vertebra at `place` in S1, L5..L1, T12, LPS."""
    discs = [np.array(chain["disc_centroids_mm"][disc]) for disc in DISCS]
    points = [np.array(chain["vertebra_centroids_mm"]["S1"]), *discs, np.array(chain["vertebra_centroids_mm"]["T12"])]
    step = points[place + 1] - points[place]
    return np.asarray(step / np.linalg.norm(step))

"""Where bodies of spine models are at rest (all coordinates zero), pelvis upright, and fascicles on placed bodies."""

from __future__ import annotations

import numpy as np

from cohort.loading.base_model import BaseModel, Floats


def place_bodies(base: BaseModel, rotation: Floats, offset_m: Floats) -> tuple[Floats, Floats]:
    """Axes [subject, body, 3, 3] and origins [subject, body, 3] in ground from those against the parent."""
    axes, origin = np.empty_like(rotation), np.empty_like(offset_m)
    for body, parent in enumerate(base.parent):
        if parent < 0:
            axes[:, body], origin[:, body] = rotation[:, body], offset_m[:, body]
            continue
        axes[:, body] = np.matmul(axes[:, parent], rotation[:, body])
        origin[:, body] = origin[:, parent] + np.matmul(axes[:, parent], offset_m[:, body, :, None])[..., 0]
    return axes, origin


def place_points(base: BaseModel, axes: Floats, origin_m: Floats, point_m: Floats) -> Floats:
    """Path points [subject, point, 3] in ground of bodies placed at `axes` and `origin_m`; `point_m` in the bodies'
    frames, [subject, point, 3] or [point, 3]."""
    points = np.empty((len(axes), *point_m.shape[-2:]))
    for body in np.unique(base.point_body):
        on_body = base.point_body == body
        turned = np.matmul(point_m[..., on_body, :], axes[:, body].transpose(0, 2, 1))
        points[:, on_body] = origin_m[:, body][:, None] + turned
    return points


def path_lengths(base: BaseModel, points_m: Floats) -> Floats:
    """Lengths [subject, fascicle] of the polygons through points [subject, point, 3] in ground.

    For fascicles around wrap surfaces the polygon stands for the path: of these lengths only ratios mean something.
    """
    piece = np.linalg.norm(np.diff(points_m, axis=1), axis=2)
    piece[:, np.diff(base.point_fascicle) > 0] = 0.0
    return np.asarray(np.add.reduceat(np.append(piece, np.zeros((len(piece), 1)), axis=1), base.first_point, axis=1))

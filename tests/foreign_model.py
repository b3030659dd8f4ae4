"""A small spine model with the names and habits of published ones: couplers, conditional and moving points, wraps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import opensim

JOINTS = ("L5_S1_IVDjnt", "L4_L5_IVDjnt", "L3_L4_IVDjnt", "L2_L3_IVDjnt", "L1_L2_IVDjnt", "T12_L1_IVDjnt")
BODIES = ("lumbar5", "lumbar4", "lumbar3", "lumbar2", "lumbar1", "thoracic12")
TURNS_DEG = (-19.0, 16.0, 10.0, 6.0, 3.0, -1.0)
SHARES = (1.0, 1.8, 1.6, 1.1, 0.9, 0.6)
"""Of lumbar flexion, against that of L5/S1."""
ARMS_OUT_DEG = 80.0
PSOAS_RANGE = (2, 5)
"""Points of the psoas between which it may wrap; the fourth is not active with straight hips."""


def write_foreign_model(path: Path) -> Path:
    """Write the model; its arms are spread, its legs straight."""
    opensim.Logger.setLevelString("Off")
    builder = _Builder()
    builder.skeleton()
    builder.muscles()
    builder.model.finalizeConnections()
    builder.model.printToXML(str(path))
    return path


class _Builder:
    def __init__(self) -> None:
        self.model = opensim.Model()
        self.model.setName("foreign")
        self.body: dict[str, Any] = {}

    def skeleton(self) -> None:
        self._body("pelvis", 11.0, (-0.07, 0.0, 0.0))
        free = opensim.FreeJoint("ground_pelvis", self.model.getGround(), self.body["pelvis"])
        free.upd_coordinates(4).setDefaultValue(0.94)
        self.model.addJoint(free)
        self._weld("sacrum", "pelvis", (0.01, -0.017, 0.0), 0.0)
        below, offset = "sacrum", (-0.098, 0.071, 0.0)
        for joint, name, turn in zip(JOINTS, BODIES, TURNS_DEG, strict=True):
            mass = 1.6 if name == "thoracic12" else 2.0
            self._body(name, mass, (0.02, 0.02, 0.0))
            self._rotating(joint, below, offset, (0.0, 0.0, turn), name)
            below, offset = name, (-0.002, 0.036, 0.0)
        self._body("thoracic11", 18.0, (0.03, 0.2, 0.0))
        self._rotating("T11_T12_IVDjnt", "thoracic12", (0.0, 0.025, 0.0), (0.0, 0.0, -2.0), "thoracic11")
        self._weld("head_neck", "thoracic11", (0.03, 0.45, 0.0), 4.5)
        self._body("Abdomen", 0.001, (0.0, 0.0, 0.0))
        self._rotating("Abdjnt", "sacrum", (-0.098, 0.071, 0.0), (0.0, 0.0, 0.0), "Abdomen")
        for side, sign in (("R", 1.0), ("L", -1.0)):
            self._body(f"humerus_{side}", 4.0, (0.0, -0.25, 0.0))
            at = (0.02, 0.35, 0.17 * sign)
            upright = (0.0, 0.0, -sum(TURNS_DEG) + 2.0)
            self._rotating(f"shoulder_{side}", "thoracic11", at, upright, f"humerus_{side}")
            out = self.model.updCoordinateSet().get(f"shoulder_{side}_LB")
            out.setDefaultValue(-sign * np.radians(ARMS_OUT_DEG))
            self._weld(f"hand_{side}", f"humerus_{side}", (0.0, -0.52, 0.0), 0.5)
            self._body(f"femur_{side.lower()}", 9.0, (0.0, -0.17, 0.0))
            self._hip(side.lower(), sign)
        for name, share in [*zip(JOINTS[1:], SHARES[1:], strict=True), ("Abdjnt", sum(SHARES))]:
            self._couple(f"{JOINTS[0]}_FE", f"{name}_FE", share)

    def muscles(self) -> None:
        self._wrap("thoracic11", opensim.WrapCylinder(), "Back", (-0.03, 0.05, 0.0))
        self._wrap("Abdomen", opensim.WrapSphere(), "Belly", (0.08, 0.05, 0.0))
        brim = opensim.PhysicalOffsetFrame("brim", self.body["pelvis"], self._turned((-0.02, -0.05, 0.0)))
        self.body["pelvis"].addComponent(brim)
        self.body["brim"] = brim
        self._wrap("brim", opensim.WrapSphere(), "Brim", (0.01, 0.0, 0.0))
        for side, sign in (("r", 1.0), ("l", -1.0)):
            arm = f"humerus_{side.upper()}"
            paths: dict[str, list[tuple[str, tuple[float, float, float]]]] = {
                "MF_m1s": [("lumbar1", (-0.06, 0.01, 0.005)), ("sacrum", (-0.12, 0.03, 0.02))],
                "LTpL_L3": [("lumbar3", (-0.05, 0.02, 0.02)), ("pelvis", (-0.14, 0.05, 0.04))],
                "LTpT_R9": [("thoracic11", (-0.01, 0.15, 0.05)), ("sacrum", (-0.12, 0.04, 0.02))],
                "IL_R10": [("thoracic11", (-0.04, 0.1, 0.07)), ("pelvis", (-0.13, 0.06, 0.06))],
                "QL_post_I_1-L3": [("lumbar3", (-0.02, 0.02, 0.03)), ("pelvis", (-0.09, 0.06, 0.07))],
                "Ps_L2_TP": [("lumbar2", (-0.01, 0.01, 0.03)), ("pelvis", (-0.02, -0.05, 0.08))],
                "EO1": [("thoracic11", (0.05, -0.05, 0.12))],
                "rect_abd": [
                    ("thoracic11", (0.17, 0.05, 0.03)),
                    ("Abdomen", (0.2, 0.05, 0.03)),
                    ("pelvis", (0.0, -0.07, 0.01)),
                ],
                "LD_L3": [("lumbar3", (-0.07, 0.02, 0.0)), (arm, (0.02, -0.05, 0.0))],
                "glut_max": [("pelvis", (-0.12, 0.0, 0.06)), (f"femur_{side}", (-0.03, -0.03, 0.03))],
            }
            for number, (name, points) in enumerate(paths.items()):
                self._muscle(f"{name}_{side}", points, sign, 100.0 + 20.0 * number)
            deep = [("thoracic11", (-0.05, 0.02, 0.01)), ("lumbar2", (-0.05, 0.01, 0.02))]
            self._muscle("multifidus_L2_T11" + ("" if side == "r" else "_L"), deep, sign, 90.0)

    def _turned(self, place: tuple[float, float, float]) -> Any:
        turn = opensim.Rotation()
        turn.setRotationToBodyFixedXYZ(opensim.Vec3(0.2, -0.1, 0.3))
        return opensim.Transform(turn, opensim.Vec3(*place))

    def _body(self, name: str, mass: float, centre: tuple[float, float, float]) -> None:
        inertia = opensim.Inertia(0.02 + mass * 0.01, 0.01 + mass * 0.008, 0.015 + mass * 0.01)
        self.body[name] = opensim.Body(name, mass, opensim.Vec3(*centre), inertia)
        self.model.addBody(self.body[name])

    def _weld(self, name: str, parent: str, offset: tuple[float, float, float], mass: float) -> None:
        self._body(name, mass, (0.0, -0.05 if mass else 0.0, 0.0))
        place = (self.body[parent], opensim.Vec3(*offset), opensim.Vec3(0))
        self.model.addJoint(
            opensim.WeldJoint(f"{name}_weld", *place, self.body[name], opensim.Vec3(0), opensim.Vec3(0))
        )

    def _rotating(
        self,
        joint: str,
        parent: str,
        offset: tuple[float, float, float],
        turn_deg: tuple[float, float, float],
        child: str,
    ) -> None:
        transform = opensim.SpatialTransform()
        for index, (suffix, axis) in enumerate((("FE", (0, 0, 1)), ("LB", (1, 0, 0)), ("AR", (0, 1, 0)))):
            rotation = transform.updTransformAxis(index)
            rotation.setCoordinateNames(opensim.ArrayStr(f"{joint}_{suffix}", 1))
            rotation.setAxis(opensim.Vec3(*axis))
            rotation.set_function(opensim.LinearFunction(1.0, 0.0))
        place = (self.body[parent], opensim.Vec3(*offset), opensim.Vec3(*np.radians(turn_deg)))
        made = opensim.CustomJoint(joint, *place, self.body[child], opensim.Vec3(0), opensim.Vec3(0), transform)
        self.model.addJoint(made)

    def _hip(self, side: str, sign: float) -> None:
        place = (self.body["pelvis"], opensim.Vec3(-0.07, -0.066, 0.084 * sign), opensim.Vec3(0))
        hip = opensim.PinJoint(f"hip_{side}", *place, self.body[f"femur_{side}"], opensim.Vec3(0), opensim.Vec3(0))
        hip.updCoordinate().setName(f"hip_flexion_{side}")
        self.model.addJoint(hip)

    def _couple(self, leading: str, following: str, share: float) -> None:
        coupler = opensim.CoordinateCouplerConstraint()
        coupler.setName(f"{following}_con")
        coupler.setIndependentCoordinateNames(opensim.ArrayStr(leading, 1))
        coupler.setDependentCoordinateName(following)
        coupler.setFunction(opensim.LinearFunction(share, 0.0))
        self.model.addConstraint(coupler)

    def _wrap(self, body: str, surface: Any, name: str, place: tuple[float, float, float]) -> None:
        surface.setName(name)
        surface.set_radius(0.07 if name == "Back" else 0.05)
        if name == "Back":
            surface.set_length(0.4)
            surface.set_xyz_body_rotation(opensim.Vec3(0.1, 0.2, 0.0))
        surface.set_translation(opensim.Vec3(*place))
        self.body[body].addWrapObject(surface)

    def _muscle(
        self, name: str, points: list[tuple[str, tuple[float, float, float]]], sign: float, strength_n: float
    ) -> None:
        muscle = opensim.Millard2012EquilibriumMuscle(name, strength_n, 0.08, 0.1, 0.1)
        for index, (body, (x, y, z)) in enumerate(points):
            muscle.addNewPathPoint(f"{name}-{index}", self.body[body], opensim.Vec3(x, y, sign * z))
        self.model.addForce(muscle)
        path = opensim.GeometryPath.safeDownCast(muscle.updPath())
        side = name[-1]
        if name.startswith("Ps"):
            self._add_conditional_points(path, side, sign)
            path.addPathWrap(self.body["brim"].getWrapObjectSet().get("Brim"))
            for end, point in enumerate(PSOAS_RANGE):
                path.updWrapSet().get(0).set_range(end, point)
        if name.startswith("EO"):
            self._add_moving_point(path, side, sign)
        if name.startswith("LTpT"):
            path.addPathWrap(self.body["thoracic11"].getWrapObjectSet().get("Back"))
        if name.startswith("rect"):
            path.addPathWrap(self.body["Abdomen"].getWrapObjectSet().get("Belly"))

    def _add_conditional_points(self, path: Any, side: str, sign: float) -> None:
        """One that is active with straight legs, one that is not, then the insertion on the femur."""
        hip = f"/jointset/hip_{side}/hip_flexion_{side}"
        for number, (low, high, x) in enumerate(((-0.5, 0.5, 0.01), (0.6, 2.0, 0.05))):
            point = opensim.ConditionalPathPoint()
            point.setName(f"conditional-{number}")
            point.updSocket("parent_frame").setConnecteePath("/bodyset/pelvis")
            point.updSocket("coordinate").setConnecteePath(hip)
            point.setLocation(opensim.Vec3(x, -0.06, 0.075 * sign))
            point.setRangeMin(low)
            point.setRangeMax(high)
            path.updPathPointSet().cloneAndAppend(point)
        path.appendNewPathPoint("insertion", self.body[f"femur_{side}"], opensim.Vec3(-0.02, -0.05, 0.01 * sign))

    def _add_moving_point(self, path: Any, side: str, sign: float) -> None:
        hip = f"/jointset/hip_{side}/hip_flexion_{side}"
        point = opensim.MovingPathPoint()
        point.setName("moving")
        point.updSocket("parent_frame").setConnecteePath("/bodyset/pelvis")
        for axis, value in zip("xyz", (0.0, 0.04, 0.11 * sign), strict=True):
            getattr(point, f"set_{axis}_location")(opensim.LinearFunction(0.01, value))
            point.updSocket(f"{axis}_coordinate").setConnecteePath(hip)
        path.updPathPointSet().cloneAndAppend(point)

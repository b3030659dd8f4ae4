"""Derives bodies.csv, the mass, centre and inertia of each body, from de Leva 1996 and slices of the lumbar trunk.

`python -m models.musculoskeletal.bodies` writes the table anew; it holds nothing else.

De Leva cuts the trunk at the xiphion and the omphalion, the model at the joints. Along the body, all of de Leva's
planes are placed above the hip joints as he gives them, in proportion to stature. The slices L1 to L5 take their part
of the middle trunk (and of the lower trunk, as far as they lie below the omphalion); the thorax is what is left above,
the pelvis with the legs what is left below. Forwards, the published centres of the slices hold; that of the thorax is
an estimate.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from models.musculoskeletal.tables import FOLDER, LUMBAR, Floats, Layout, Row, Sex, Traits, lay_out, of_sex, read

THORAX_FORWARD_M: Final = -0.003
"""Centre of the thorax before its frame, men: level centres near the vertebral bodies and the shoulder girdle 40 mm
before them; an estimate. Published models have -0.030 (Raabe & Chaudhari 2016) and 0.016 m (Beaucage-Gauvreau et al.
2019)."""
HEAD_FORWARD_M: Final = 0.0161
"""Beaucage-Gauvreau et al. 2019."""
SLICE_DENSITY_KG_PER_M3: Final = 1010.0
SLICE_DEPTH_OVER_WIDTH: Final = 0.7
"""Slices are elliptic cylinders of these two (own choices); only their inertia depends on them."""
FOOT_FORWARD_M: Final = 0.07
"""Centre of the foot before the ankle, own estimate; without effect on the spine."""
ABOVE: Final = dict(zip(LUMBAR, (*LUMBAR[1:], "thorax"), strict=True))
COLUMNS: Final = ("body", "sex", "mass_fraction", *(f"{p}_{a}_m" for p in ("com", "gyration") for a in "xyz"), "source")
SEGMENTS: Final = "de Leva 1996 (segments.csv)"
SLICES: Final = "Christophy et al. 2012 after Pearsall et al. 1996 (levels.csv)"


@dataclass(frozen=True, eq=False)
class Part:
    """A rigid part of the upright body of one sex."""

    mass: float
    """Share of body mass; negative for what is taken away."""
    centre: Floats
    """[3] pelvis frame, metres, at the size of the sex."""
    gyration: Floats
    """[3] squared radii of gyration about its own centre, axes parallel to the pelvis, m2."""


def combine(parts: Iterable[Part]) -> Part:
    """Sum of parts (parallel axes); products of inertia are neglected."""
    listed = list(parts)
    mass = sum(part.mass for part in listed)
    centre = np.sum([part.mass * part.centre for part in listed], axis=0) / mass
    inertia = np.zeros(3)
    for part in listed:
        square = (part.centre - centre) ** 2
        inertia += part.mass * (part.gyration + square.sum() - square)
    return Part(mass, centre, inertia / mass)


def _taken(part: Part, x: float) -> Part:
    """A slice to take out of a segment; both on one vertical, since de Leva gives no forward position."""
    return Part(-part.mass, np.array([x, part.centre[1], 0.0]), part.gyration)


class Person:
    """De Leva's segments and the lumbar slices of one sex, upright, at the size of the sex's model."""

    def __init__(self, sex: Sex) -> None:
        self.sex: Sex = sex
        self.layout: Layout = lay_out(Traits.of(sex))
        self.stature = float(of_sex(sex)[0]["height_m"])
        self.rows = {row["segment"]: row for row in of_sex(sex, "segments")}
        self.hip = self.upright("pelvis", self.layout.published_origin["hip"])
        self.omphalion = float(self.hip[1]) + self.length("lower_trunk")
        self.xiphion = self.omphalion + self.length("middle_trunk")
        self.cervicale = self.xiphion + self.length("upper_trunk")

    def length(self, segment: str) -> float:
        row = self.rows[segment]
        return float(row["length_m"]) * self.stature / float(row["stature_m"])

    def hanging(self, segment: str, top: Floats) -> Part:
        """A segment whose upper end is at `top` [3], pointing down."""
        row, length = self.rows[segment], self.length(segment)
        gyration = np.array([float(row[f"gyration_{axis}"]) * length for axis in "xyz"]) ** 2
        return Part(float(row["mass_fraction"]), top - np.array([0.0, float(row["centre"]) * length, 0.0]), gyration)

    def origin(self, body: str) -> Floats:
        """Origin [3] of a body in upright posture, at the size of the sex."""
        return self.layout.body_origin(body)

    def upright(self, body: str, male: Floats) -> Floats:
        """A point [3] of the upright male model on a body, at the size of the sex."""
        return self.layout.upright_place(body, self.layout.to_body(body, male))

    def slice(self, level: str) -> Part:
        """Trunk slice of one vertebra. Women's shares are men's times the ratio, from de Leva, of the mass per length
        of the segment that it lies in, times that of its thickness; its centre moves forwards with stature."""
        row = next(row for row in read("levels") if row["level"] == level)
        origin, above = self.origin(level), self.origin(ABOVE[level])
        male = self.layout.published_origin[level] + np.array([float(row["com_x_m"]), float(row["com_y_m"]), 0.0])
        centre = self.upright(level, male)
        forward = male[0] - self.layout.origin[level][0]
        centre[0] = origin[0] + forward * self.stature / float(of_sex("male")[0]["height_m"])
        mass = float(row["mass_fraction"]) * self._slice_mass_ratio(level)
        thickness = float(np.linalg.norm(above - origin))
        area = mass * float(of_sex(self.sex)[0]["mass_kg"]) / SLICE_DENSITY_KG_PER_M3 / thickness
        half_width = np.sqrt(area / np.pi / SLICE_DEPTH_OVER_WIDTH)
        half_depth = half_width * SLICE_DEPTH_OVER_WIDTH
        x, y, z = half_depth**2 / 4.0, thickness**2 / 12.0, half_width**2 / 4.0
        return Part(mass, centre, np.array([y + z, x + z, x + y]))

    def _slice_mass_ratio(self, level: str) -> float:
        if self.sex == "male":
            return 1.0
        male = Person("male")
        segment = "lower_trunk" if level in ("L5", "L4") else "middle_trunk"
        hers, his = (float(p.rows[segment]["mass_fraction"]) / p.length(segment) for p in (self, male))
        return hers / his * float(self.layout.scale(level)[1])

    def parts(self) -> dict[str, Part]:
        """Body of the model -> what it is made of."""
        slices = {level: self.slice(level) for level in LUMBAR}
        above = [self._above(level, slices[level]) for level in LUMBAR]
        below = [replace(s, mass=s.mass - a.mass) for s, a in zip(slices.values(), above, strict=True)]
        return {
            "pelvis": self._pelvis_and_legs(below),
            **slices,
            "thorax": self._thorax(above),
            "head": self._head(),
            "arm": combine([self.hanging("upper_arm", self.origin("arm")), self._forearm()]),
            "hand": self.hanging("hand", self.origin("hand")),
        }

    def _thorax(self, slices: Iterable[Part]) -> Part:
        forward = self.layout.published_origin["thorax"] + np.array([THORAX_FORWARD_M, 0.0, 0.0])
        x = float(self.upright("thorax", forward)[0])
        upper = self.hanging("upper_trunk", np.array([x, self.cervicale, 0.0]))
        middle = self.hanging("middle_trunk", np.array([x, self.xiphion, 0.0]))
        return combine([upper, middle, *(_taken(part, x) for part in slices)])

    def _pelvis_and_legs(self, slices: Iterable[Part]) -> Part:
        x = float(self.hip[0])
        lower = self.hanging("lower_trunk", np.array([x, self.omphalion, 0.0]))
        legs = [self._leg(sign) for sign in (1.0, -1.0)]
        return combine([lower, *legs, *(_taken(part, x) for part in slices)])

    def _above(self, level: str, part: Part) -> Part:
        """The part of a slice that lies above the omphalion."""
        bottom, top = self.origin(level)[1], self.origin(ABOVE[level])[1]
        return replace(part, mass=part.mass * float(np.clip((top - self.omphalion) / (top - bottom), 0.0, 1.0)))

    def _head(self) -> Part:
        forward = self.layout.published_origin["head"] + np.array([HEAD_FORWARD_M, 0.0, 0.0])
        neck = self.upright("head", forward)
        return self.hanging("head", neck + np.array([0.0, self.length("head"), 0.0]))

    def _forearm(self) -> Part:
        return self.hanging("forearm", self.origin("arm") - np.array([0.0, self.length("upper_arm"), 0.0]))

    def _leg(self, sign: float) -> Part:
        hip = self.hip * np.array([1.0, 1.0, sign])
        knee = hip - np.array([0.0, self.length("thigh"), 0.0])
        ankle = knee - np.array([0.0, self.length("shank"), 0.0])
        foot = replace(self.hanging("foot", ankle), centre=ankle + np.array([FOOT_FORWARD_M, -0.04, 0.0]))
        return combine([self.hanging("thigh", hip), self.hanging("shank", knee), foot])


SOURCES: Final = {
    "pelvis": f"pelvis and legs: lower trunk less the slices below the omphalion, thighs, shanks, feet, {SEGMENTS}",
    "thorax": f"upper and middle trunk, {SEGMENTS}, less the slices above the omphalion; forward position estimated",
    "head": f"head and neck, {SEGMENTS}; forward position Beaucage-Gauvreau et al. 2019",
    "arm": f"upper arm and forearm in line, {SEGMENTS}",
    "hand": f"{SEGMENTS}; a hand load acts at its centre",
    "abdomen": "wall only; its contents belong to the slices",
}
OF_SLICES: Final = {
    "male": f"trunk slice, {SLICES}; inertia of an elliptic cylinder",
    "female": f"trunk slice: only male data ({SLICES}), times the ratios of mass per length of {SEGMENTS} and of "
    "thickness; inertia of an elliptic cylinder",
}


def rows(sex: Sex) -> list[Row]:
    """Rows of bodies.csv of one sex. Centres are in published frames at male size, as all coordinates of the tables;
    radii of gyration likewise."""
    person = Person(sex)
    found = [_row(person, body, part) for body, part in person.parts().items()]
    empty = dict.fromkeys(COLUMNS, "0") | {"body": "abdomen", "sex": sex, "source": SOURCES["abdomen"]}
    return [*found, empty]


def _row(person: Person, body: str, part: Part) -> Row:
    layout = person.layout
    scale, axes = layout.scale(body), layout.axes[body]
    place = layout.posture[body].T @ (part.centre - person.origin(body)) / scale
    centre = axes @ place + layout.origin[body] - layout.published_origin[body]
    values = [*centre, *(np.sqrt(part.gyration) / scale)]
    names = [f"{p}_{a}_m" for p in ("com", "gyration") for a in "xyz"]
    source = OF_SLICES[person.sex] if body in LUMBAR else SOURCES[body]
    numbers = {name: f"{round(float(value), 5) + 0.0:.5f}" for name, value in zip(names, values, strict=True)}
    return {"body": body, "sex": person.sex, "mass_fraction": f"{part.mass:.5f}", **numbers, "source": source}


def main() -> None:
    """Write bodies.csv."""
    with (FOLDER / "bodies.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows([*rows("male"), *rows("female")])


if __name__ == "__main__":
    main()

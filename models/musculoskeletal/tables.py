"""The published numbers of this folder, and where they put the bodies, joints and points of a man or a woman.

All coordinates in the tables are those of the male model, in frames parallel to the pelvis in upright posture (x
forward, y up, z to the right, metres); only right-sided parts are listed. A woman's are the same times the ratios of
sex_ratios.csv, body by body along the body's own axes; masses and their centres, and rest angles, are listed for each
sex.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from cohort.loading import dialect

Sex = Literal["male", "female"]
Floats = npt.NDArray[np.float64]
Row = Mapping[str, str]

FOLDER: Final = Path(__file__).parent
TABLES: Final = (
    "bodies",
    "fascicles",
    "frames",
    "joints",
    "landmarks",
    "levels",
    "path_points",
    "segments",
    "sex_ratios",
    "sexes",
)
CODE: Final = (FOLDER / "build.py", FOLDER / "tables.py", Path(dialect.__file__))
SPECIFIC_TENSION_N_PER_CM2: Final = 100.0
"""Bruno et al. 2015 and the models after it use 100 N/cm2; published values span 46 to 100."""
LUMBAR: Final = ("L5", "L4", "L3", "L2", "L1")
AXES: Final = ("depth", "height", "width")
"""Quantities of sex_ratios.csv along x, y and z."""
PAIRED: Final = ("arm", "hand")


@dataclass(frozen=True, kw_only=True)
class Traits:
    """Which sex each part of a model is taken from; the default models are of one sex throughout."""

    mass: Sex
    """Body mass, its distribution and the centres relative to the bodies' size."""
    size: Sex
    """Stature and the size of all bodies, with joints and path points."""
    lordosis: Sex
    """Rest angles of pelvis and lumbar joints."""
    strength: Sex
    """Physiological cross-sectional areas."""

    @classmethod
    def of(cls, sex: Sex) -> Traits:
        """All traits of one sex; raises ValueError if there is no base model of it."""
        known = [row["sex"] for row in read("sexes")]
        if sex not in known:
            raise ValueError(f"no base model for sex {sex!r}; known: {sorted(known)}")
        return cls(mass=sex, size=sex, lordosis=sex, strength=sex)


def base_model_sha256(sex: Sex, specific_tension_n_per_cm2: float = SPECIFIC_TENSION_N_PER_CM2) -> str:
    """Fingerprint of all that the built model depends on, but for the version of OpenSim."""
    digest = hashlib.sha256(f"{sex} {specific_tension_n_per_cm2!r}".encode())
    for path in [*(FOLDER / f"{table}.csv" for table in TABLES), *CODE]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


@cache
def read(table: str) -> tuple[Row, ...]:
    """Rows of a table, column -> text."""
    with (FOLDER / f"{table}.csv").open(newline="", encoding="utf-8") as lines:
        return tuple(csv.DictReader(lines))


def xyz(row: Row, prefix: str = "") -> Floats:
    """Coordinates [3] in the columns `<prefix>x_m`, `<prefix>y_m`, `<prefix>z_m`."""
    return np.array([float(row[f"{prefix}{axis}_m"]) for axis in "xyz"])


def of_sex(sex: Sex, table: str = "sexes") -> tuple[Row, ...]:
    """Rows of a table that has a column `sex`."""
    return tuple(row for row in read(table) if row["sex"] == sex)


def about_z(angle_deg: float) -> Floats:
    """Rotation [3, 3] about z."""
    c, s = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


@dataclass(frozen=True, eq=False)
class Layout:
    """Where everything is in upright posture, for the traits of one model."""

    traits: Traits
    joints: tuple[Row, ...]
    published_origin: Mapping[str, Floats]
    """Published frame -> [3] origin, male size."""
    body_of: Mapping[str, str]
    """Published frame -> body that carries it."""
    origin: Mapping[str, Floats]
    """Body -> [3] origin in upright posture, male size."""
    axes: Mapping[str, Floats]
    """Body -> [3, 3] columns are the body's axes in the man's upright posture, that of the tables."""
    posture: Mapping[str, Floats]
    """Body -> [3, 3] columns are the body's axes in this model's own upright posture."""
    ratios: Mapping[tuple[str, str], float]
    """(structure, quantity) -> this model's over the male's; 1 throughout for men."""

    def scale(self, structure: str) -> Floats:
        """Size [3] along the body's x, y and z relative to the male model."""
        name = "lumbar" if structure in LUMBAR else structure
        return np.array([self.ratios[name, axis] for axis in AXES])

    def in_body(self, frame: str, point: Floats) -> tuple[str, Floats]:
        """A point [3] of a published frame -> body that carries it, and place in the body's frame at its size."""
        body = self.body_of[frame]
        return body, self.to_body(body, self.published_origin[frame] + point)

    def to_body(self, body: str, upright: Floats, structure: str | None = None) -> Floats:
        """A point [3] of the upright male model in a body's frame, at the size of `structure` (default: the body)."""
        return np.asarray(self.axes[body].T @ (upright - self.origin[body]) * self.scale(structure or body))

    def upright_place(self, body: str, place: Floats) -> Floats:
        """A point [3] in a body's frame -> in the pelvis frame, upright, at this model's size."""
        return np.asarray(self.body_origin(body) + self.posture[body] @ place)

    def body_origin(self, body: str) -> Floats:
        """Origin [3] of a body in the pelvis frame, upright, at this model's size."""
        joint = next(row for row in self.joints if row["child"] == body)
        if joint["parent"] == "ground":
            return np.zeros(3)
        return self.upright_place(joint["parent"], self.joint_place(joint))

    def joint_place(self, joint: Row) -> Floats:
        """Centre [3] of a joint in its parent's frame; at a size of its own where sex_ratios.csv names the joint."""
        own = (joint["joint"], AXES[0]) in self.ratios
        return self.to_body(joint["parent"], xyz(joint), joint["joint"] if own else joint["parent"])


def lay_out(traits: Traits, *, abdomen_carrier: str | None = None) -> Layout:
    """Lay the tables out; `abdomen_carrier` names a body that carries the abdomen in place of the table's (studies)."""
    joints = tuple(_carried_by(row, abdomen_carrier) if abdomen_carrier else row for row in read("joints"))
    ratios = {(row["structure"], row["quantity"]): float(row["ratio"]) for row in read("sex_ratios")}
    male = dict.fromkeys(ratios, 1.0)
    return Layout(
        traits=traits,
        joints=joints,
        published_origin={row["frame"]: xyz(row) for row in read("frames")},
        body_of={row["frame"]: row["body"] for row in read("frames")},
        origin={row["child"]: xyz(row) for row in joints},
        axes=_axes(joints, "male"),
        posture=_axes(joints, traits.lordosis),
        ratios=ratios if traits.size == "female" else male,
    )


def rest_deg(joint: Row, sex: Sex) -> float:
    """Rest angle of a joint about z, extension positive."""
    return float(joint["rest_z_deg" if sex == "male" else "rest_z_women_deg"])


def _axes(joints: Iterable[Row], sex: Sex) -> dict[str, Floats]:
    """Axes [3, 3] of all bodies at rest; parents come first in joints.csv."""
    axes: dict[str, Floats] = {"ground": np.eye(3)}
    for row in joints:
        axes[row["child"]] = axes[row["parent"]] @ about_z(rest_deg(row, sex))
    return axes


def _carried_by(row: Row, carrier: str) -> Row:
    """The joint of the abdomen moved to another parent, with its axes upright in the man's posture as before."""
    if row["child"] != "abdomen":
        return row
    angle = 0.0
    for joint in read("joints"):
        if joint["kind"] == "spine":
            angle += float(joint["rest_z_deg"])
            if joint["child"] == carrier:
                break
    else:
        angle = 0.0
    return {**row, "parent": carrier, "rest_z_deg": repr(-angle), "rest_z_women_deg": repr(-angle)}


def pcsa_ratio(traits: Traits, group: str) -> float:
    """Area of a group of fascicles relative to the male model."""
    if traits.strength == "male":
        return 1.0
    return next(float(r["ratio"]) for r in read("sex_ratios") if r["structure"] == group and r["quantity"] == "pcsa")


def sides(name: str) -> tuple[tuple[str, float], ...]:
    """Names and signs of z of a part of the tables: arms and hands are listed once and come twice."""
    return ((f"{name}_r", 1.0), (f"{name}_l", -1.0)) if name in PAIRED else ((name, 1.0),)

"""What the labels of an annotation mean: names of a drawing tool, or numbers in a mask, to arrays, values and levels.

A table of the user goes first; what it does not name is read as people write it ("L4", "L4-L5", "L4/5 disc", "MF R",
"psoas left", "sacrum").
"""

from __future__ import annotations

import csv
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cohort.annotations.store import DISCS, LEVEL_NAMES, VERTEBRAE
from cohort.errors import ConfigurationError
from cohort.stacks import Plane
from cohort.terms import DISC, MUSCLE_LABELS, MUSCLES, SACRAL_BODY, SIDES, VERTEBRAL_BODY, disc_name

STRUCTURES: Final = ("vertebral_body", "sacrum", "disc", *MUSCLES)
ARRAY_PLANES: Final[dict[str, Plane]] = {"vertebral_body": "sagittal", "disc": "sagittal", "muscle": "axial"}
"""Label array -> the plane it belongs to."""
EITHER_SIDE: Final[dict[str, int]] = {muscle: 101 + k for k, muscle in enumerate(MUSCLES)}
"""Muscle -> value of a label that names no side: never stored, the geometry tells sides when all is gathered."""
COLUMNS: Final = ("label", "structure", "level", "side", "empty")

_SHORT: Final = {
    "mf": "multifidus",
    "es": "erector_spinae",
    "erector": "erector_spinae",
    "ps": "psoas",
    "pm": "psoas",
    "iliopsoas": "psoas",
    "ql": "quadratus_lumborum",
    "quadratus": "quadratus_lumborum",
}
_SIDE: Final = {"l": "left", "left": "left", "lt": "left", "r": "right", "right": "right", "rt": "right"}
_BODY_WORDS: Final = frozenset(("vertebral", "vertebra", "vertebrae", "body", "bodies", "vb"))
_DISC_WORDS: Final = frozenset(("disc", "discs", "disk", "disks", "intervertebral", "ivd"))
_FILLERS: Final = frozenset(("muscle", "spinae", "lumborum", "major", "level", "of", "the"))
_VERTEBRA: Final = re.compile(r"[tls]\d{1,2}")
_EMPTY: Final = {"": False, "0": False, "false": False, "no": False, "1": True, "true": True, "yes": True}
_PAIR: Final = re.compile(r"([tls])(\d{1,2})[\s/_\u2010-\u2014-]*(?:([tls])(\d{1,2})|(\d{1,2}))(?!\d)")


@dataclass(frozen=True)
class Meaning:
    """What a label stands for."""

    array: str
    """Label array: vertebral_body, disc or muscle."""
    value: int
    """Its value there (`cohort.terms`), or one of `EITHER_SIDE`."""
    level: str | None = None
    """One of `cohort.annotations.store.LEVEL_NAMES`, where the label names it."""
    empty: bool = False
    """The label says that nothing of the array is on the slice."""
    below_s1: bool = False
    """S2 and lower: known, and left out."""

    @property
    def plane(self) -> Plane:
        """The plane whose stacks have this array."""
        return ARRAY_PLANES[self.array]


@dataclass(frozen=True)
class ClassTable:
    """Labels and what they mean."""

    own: Mapping[str, Meaning] = field(default_factory=dict)
    """Of the user, by the exact name."""

    def meaning(self, label: str) -> Meaning | None:
        """Meaning of a label; None where neither the user's table nor the usual names know it."""
        return self.own.get(label) or usual_meaning(label)


def read_classes(path: Path | None) -> ClassTable:
    """Read a class table: CSV with the columns label, structure, level, side, empty, or TOML with [labels."name"].

    Raises
    ------
    ConfigurationError
        if it cannot be read, or a line has an unknown structure, level, side or column
    """
    if path is None:
        return ClassTable()
    try:
        lines = _toml_lines(path) if path.suffix == ".toml" else _csv_lines(path)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, csv.Error) as error:
        raise ConfigurationError(f"the class table {path.name} cannot be read: {type(error).__name__}") from error
    names = [str(line.get("label", "")) for line in lines]
    if not names or "" in names:
        raise ConfigurationError(f"the class table {path.name} has no line, or a line without label")
    if len(set(names)) < len(names):
        raise ConfigurationError(f"the class table {path.name} has two lines of one label")
    return ClassTable({name: _meaning(line) for name, line in zip(names, lines, strict=True)})


def terms_table(array: str) -> ClassTable:
    """Values of `cohort.terms` as labels: what a mask holds that was made on our own label arrays.

    Raises
    ------
    ConfigurationError
        if there is no such array
    """
    values = {
        "vertebral_body": (VERTEBRAL_BODY, SACRAL_BODY),
        "disc": (DISC,),
        "muscle": tuple(MUSCLE_LABELS.values()),
    }
    if array not in values:
        raise ConfigurationError(f"no label array {array!r}; there are {', '.join(values)}")
    return ClassTable({str(value): Meaning(array, value) for value in values[array]})


def usual_meaning(label: str) -> Meaning | None:
    """Meaning of a name as people write it; None for names that say nothing, or two things."""
    text = label.strip().lower()
    pair = _PAIR.search(text)
    if pair and (name := _disc_level(pair)):
        rest = set(re.findall(r"[a-z]+", text[: pair.start()] + " " + text[pair.end() :]))
        return Meaning("disc", DISC, name) if rest <= _DISC_WORDS else _muscle(rest, name)
    words = re.findall(r"[a-z]+\d*|\d+", text)
    levels = [word for word in words if _VERTEBRA.fullmatch(word)]
    rest = set(words) - set(levels)
    if len(levels) > 1:
        return None
    if rest <= _BODY_WORDS and (levels or rest):
        return _body(levels[0].upper() if levels else None)
    if not levels and rest in ({"sacrum"}, {"sacral"}, {"sacral", "body"}):
        return Meaning("vertebral_body", SACRAL_BODY)
    if not levels and rest and rest <= _DISC_WORDS:
        return Meaning("disc", DISC)
    return None if levels else _muscle(rest, None)


def _disc_level(pair: re.Match[str]) -> str | None:
    """ "L4-L5", "L4/5", "L5S1"; None for pairs that are no disc."""
    first, number, second, other, short = pair.groups()
    above = f"{first}{number}".upper()
    below = f"{second}{other}".upper() if second else f"{first}{short}".upper()
    name = disc_name(above, below)
    return name if name in DISCS else None


def _body(level: str | None) -> Meaning | None:
    if level is not None and level.startswith("S"):
        return Meaning("vertebral_body", SACRAL_BODY, "S1" if level == "S1" else None, below_s1=level != "S1")
    if level is not None and level not in VERTEBRAE:
        return None
    return Meaning("vertebral_body", VERTEBRAL_BODY, level)


def _muscle(words: Iterable[str], level: str | None) -> Meaning | None:
    left = set(words) - _FILLERS
    sides = {_SIDE[word] for word in left if word in _SIDE}
    muscles = {_SHORT.get(word, word) for word in left if word not in _SIDE}
    if len(sides) > 1 or len(muscles) != 1 or not muscles <= set(MUSCLES):
        return None
    muscle = muscles.pop()
    return Meaning("muscle", MUSCLE_LABELS[muscle, sides.pop()] if sides else EITHER_SIDE[muscle], level)


def _csv_lines(path: Path) -> list[dict[str, Any]]:
    with path.open(newline="", encoding="utf-8-sig") as stream:
        return [{key: value for key, value in line.items() if value} for line in csv.DictReader(stream)]


def _toml_lines(path: Path) -> list[dict[str, Any]]:
    labels = tomllib.loads(path.read_text(encoding="utf-8")).get("labels", {})
    if not isinstance(labels, dict) or not all(isinstance(line, dict) for line in labels.values()):
        raise ConfigurationError(f'the class table {path.name} needs a table [labels."name"] for each label')
    return [{"label": label, **line} for label, line in labels.items()]


def _meaning(line: Mapping[str, Any]) -> Meaning:
    where = f"class table, label {str(line.get('label', ''))[:40]!r}"
    if unknown := set(line) - set(COLUMNS):
        raise ConfigurationError(f"{where}: unknown column {sorted(map(str, unknown))[0]!r}; {', '.join(COLUMNS)}")
    structure, level, side = line.get("structure"), line.get("level"), line.get("side")
    empty = _EMPTY.get(str(line.get("empty", "")).strip().lower())
    if empty is None:
        raise ConfigurationError(f"{where}: empty is yes or no")
    if structure not in STRUCTURES:
        raise ConfigurationError(f"{where}: structure is one of {', '.join(STRUCTURES)}")
    if level is not None and level not in LEVEL_NAMES:
        raise ConfigurationError(f"{where}: level is one of {', '.join(LEVEL_NAMES)}")
    if structure not in MUSCLES:
        array = "disc" if structure == "disc" else "vertebral_body"
        possible = {"disc": DISCS, "sacrum": ("S1",)}.get(structure, VERTEBRAE)
        if level is not None and level not in possible:
            raise ConfigurationError(f"{where}: {level} is no level of structure {structure}")
        sacral = structure == "sacrum" or level == "S1"
        value = DISC if structure == "disc" else SACRAL_BODY if sacral else VERTEBRAL_BODY
        return Meaning(array, value, level, empty)
    if empty:
        return Meaning("muscle", 0, None, empty)
    if side not in (None, *SIDES):
        raise ConfigurationError(f"{where}: side is {' or '.join(SIDES)}, or empty")
    value = EITHER_SIDE[structure] if side is None else MUSCLE_LABELS[structure, side]
    return Meaning("muscle", value, level, empty)

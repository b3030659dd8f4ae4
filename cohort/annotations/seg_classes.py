"""Classes of the label arrays as segments of DICOM SEG objects: names and codes, in both directions.

Codes are those of DICOM's own dictionaries (PS3.16, as pydicom carries them). A structure that has none there has a
private code of the scheme `PRIVATE_SCHEME`, beside the coded structure that it is a part of: a vertebral body is not a
vertebra, and PS3.16 names discs by their level alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from cohort.annotations.classes import EITHER_SIDE, ClassTable, Meaning
from cohort.annotations.store import DISCS
from cohort.terms import DISC, MUSCLE_LABELS, SACRAL_BODY, VERTEBRAL_BODY

PRIVATE_SCHEME: Final = "99LUMBARCOHORT"
"""Coding scheme of this project: DICOM leaves designators that begin with 99 to private use (PS3.16 8.2)."""


@dataclass(frozen=True)
class SegmentClass:
    """One class of a label array and how a segment says it."""

    array: str
    value: int
    """In the label array (`cohort.terms`)."""
    label: str
    """SegmentLabel."""
    property_type: Code
    """SegmentedPropertyTypeCodeSequence."""
    laterality: Code | None
    """SegmentedPropertyTypeModifierCodeSequence; None where the property type says the side itself."""
    part_of: Code | None
    """PrimaryAnatomicStructureSequence: what the structure is a part of, where its own code is private."""


def _private(value: str, meaning: str) -> Code:
    return Code(value, PRIVATE_SCHEME, meaning)


SIDE_CODES: Final[dict[str, Code]] = {"left": codes.SCT.Left, "right": codes.SCT.Right}
MUSCLE_CODES: Final[dict[tuple[str, str], Code]] = {
    ("multifidus", "left"): codes.MDC.MusculiMultifidiiLeft,
    ("multifidus", "right"): codes.MDC.MusculiMultifidiiRight,
    ("erector_spinae", "left"): codes.SCT.ErectorSpinaeMuscle,
    ("erector_spinae", "right"): codes.SCT.ErectorSpinaeMuscle,
    ("psoas", "left"): _private("psoas", "Psoas major"),
    ("psoas", "right"): _private("psoas", "Psoas major"),
    ("quadratus_lumborum", "left"): codes.MDC.MusculusQuadratusLumborumLeft,
    ("quadratus_lumborum", "right"): codes.MDC.MusculusQuadratusLumborumRight,
}
"""MDC codes (CID 3031) name the side; SNOMED's erector spinae (CID 7192) and the private psoas take a modifier."""
ILIOPSOAS_CODES: Final[dict[str, Code]] = {
    "left": codes.MDC.MusculusIliopsoasLeft,
    "right": codes.MDC.MusculusIliopsoasRight,
}


def _muscle(muscle: str, side: str, value: int) -> SegmentClass:
    code = MUSCLE_CODES[muscle, side]
    return SegmentClass(
        array="muscle",
        value=value,
        label=f"{muscle}_{side}",
        property_type=code,
        laterality=None if code.scheme_designator == "MDC" else SIDE_CODES[side],
        part_of=ILIOPSOAS_CODES[side] if muscle == "psoas" else None,
    )


_BODY: Final = _private("vertebral_body", "Vertebral body")
_SACRAL_BODY: Final = _private("sacral_body", "Sacral vertebral body")
_DISC: Final = _private("disc", "Intervertebral disc")

SEGMENT_CLASSES: Final[tuple[SegmentClass, ...]] = (
    SegmentClass("vertebral_body", VERTEBRAL_BODY, "vertebral_body", _BODY, None, codes.SCT.Vertebra),
    SegmentClass("vertebral_body", SACRAL_BODY, "sacral_body", _SACRAL_BODY, None, codes.SCT.Sacrum),
    SegmentClass("disc", DISC, "disc", _DISC, None, codes.SCT.Spine),
    *(_muscle(muscle, side, value) for (muscle, side), value in MUSCLE_LABELS.items()),
)
"""In the order of the segments of an object."""


def classes_of(array: str) -> list[SegmentClass]:
    """Classes of one label array, in the order of their values."""
    return [one for one in SEGMENT_CLASSES if one.array == array]


Key = tuple[str, str, str | None]
"""(coding scheme, code value, code value of the side or None)."""

_BY_CODE: Final[dict[Key, Meaning]] = {
    (
        one.property_type.scheme_designator,
        one.property_type.value,
        one.laterality.value if one.laterality else None,
    ): Meaning(one.array, one.value)
    for one in SEGMENT_CLASSES
}


def _disc_codes() -> dict[Key, Meaning]:
    """Codes of single discs (CID 7604); those of vertebrae (CID 7603) are of whole ones, which no class is."""
    found: dict[Key, Meaning] = {}
    for name in DISCS:
        code = getattr(codes.SCT, f"{name.replace('-', '')}Disc", None)
        if code is not None:
            found["SCT", code.value, None] = Meaning("disc", DISC, name)
    return found


_DISCS_BY_CODE: Final = _disc_codes()


def segment_meaning(label: str, code: tuple[str, str], laterality: str | None, classes: ClassTable) -> Meaning | None:
    """What a segment stands for: by its label, else by its coded property type; None where neither is known.

    A muscle whose label names no side takes that of the code's modifier.

    Parameters
    ----------
    label : SegmentLabel
    code : (coding scheme, value) of the property type
    laterality : code value of the property type's first modifier, None without one
    """
    key = (*code, laterality)
    named = classes.meaning(label)
    muscle = next((name for name, value in EITHER_SIDE.items() if named and named.value == value), None)
    side = next((name for name, of_side in SIDE_CODES.items() if of_side.value == laterality), None)
    if named and named.array == "muscle" and muscle and side:
        return replace(named, value=MUSCLE_LABELS[muscle, side])
    return named or _BY_CODE.get(key) or _DISCS_BY_CODE.get(key)

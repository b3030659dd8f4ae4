"""Closed vocabularies: what is kept of a header's free text.

Descriptions are searched for a fixed list of words and then forgotten; no text of the file passes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

_BEFORE: Final = r"\b(?:sag|ax|axial|tra|cor|3d|s|e)?"
_AFTER: Final = r"(?:w|wi)?(?:tse|fse|se|vibe|flair|space|dixon|sag|ax|tra|cor|fs|gd|km)?\b"
_NOT_A_VERTEBRA: Final = r"(?! t?(?:[3-9]|1[0-2])\b)"
"""T1 and T2 name thoracic vertebrae too: 'C7-T1', 'T1-T12'."""

HINTS: Final[dict[str, str]] = {
    "t1": rf"(?<!c7 ){_BEFORE}t1{_AFTER}{_NOT_A_VERTEBRA}",
    "t2": rf"{_BEFORE}t2{_AFTER}{_NOT_A_VERTEBRA}",
    "pd": r"\bpdw?\b|\bproton\b",
    "stir": r"stir\b|\btirm\b",
    "flair": r"flair|\bdark fluid\b",
    "fatsat": r"fat ?sat|fat ?sup|\bfs\b|\bt[12]w?fs\b|\bspai?r\b|\bsfs\b|\bchess\b|\bwe\b|water ?ex",
    "post_contrast": r"\bpost\b(?! ?op)|\bgd\b|\bt1w?gd\b|\bgad|\bcontrast\b|\+ ?c\b|\bc ?\+|\bt1w?km\b|\bkm\b|\bce\b"
    r"|\bperf|\bdyn|\bdce\b",
    "localiser": r"\bloc\b|locali[sz]er|\bscouts?\b|\bsurvey\b|\b3 ?pl\b|\b3 ?plane|aahscout|\bpilot\b",
    "dixon": r"dixon|\bideal\b|\b(?:lava|fr?fse|fast spin echo|spgr) ?flex\b",
    "water": r"\bwater\b(?! ?ex)|(?:dixon|flex|ideal).*\bw$",
    "fat": r"\bfat\b(?! ?(?:sat|sup))|(?:dixon|flex|ideal).*\bf$",
    "in_phase": r"\bin ?phase\b|\bip\b|(?:dixon|flex|ideal).*\bin$|\bin(?: and)? (?:out|opp)",
    "out_of_phase": r"\b(?:out|opp|opposed)(?: of)? ?phase\b|(?<!post )\bop\b|(?:dixon|flex|ideal).*\bopp$"
    r"|\bin(?: and)? (?:out|opp)",
    "balanced": r"\btfi[23]d|\btru ?fi|\btrue ?fisp|\bfiesta\b|\bb ?(?:ffe|tfe)\b|\bciss\b|\bbalanced\b|\bssfp\b",
    "diffusion": r"\bdwi\b|\badc\b|diffusion|\bep2d",
    "angiography": r"\btof\b|\bmra\b|angio|\bflow\b",
    "derived": r"\bmpr\b|\bmip\b|\bsub(?:traction)?\b|\bmaps?\b|reformat|\brfmt|\bscreen|\bfused?\b|\bcompos",
    "sagittal": r"\bsag",
    "axial": r"\bax(?:ial)?\b|\btra(?:ns\w*)?\b|\bax(?=t[12])",
    "coronal": r"\bcor(?:onal)?\b",
    "lumbar": r"lumb|lombar|lombaire|lenden|\bl ?spine\b|\blws\b|\bl ?s ?spine\b|\bl[1-5] ?(?:l[1-5]|s1)\b",
    "thoracic": r"thora|\bt ?spine\b|\bbws\b|dorsal|\bd ?spine\b",
    "cervical": r"cervi|\bc ?spine\b|\bhws\b|\bneck\b",
    "elsewhere": r"\bbrain|\bhead\b|\bskull|schaedel|\bpelvi|\bbecken|\bsi ?joints?\b|\bsijs?\b|\bisg\b|sacroilia"
    r"|\bhips?\b|\bknees?\b|shoulder|\bankle|\bwrist|\belbow|prostat|\bbreast|\bheart\b|cardiac",
}
"""Word of `FileRow.text_hints` -> pattern, searched in lower-case text whose other signs are blanks (but '+')."""

WATER_WORDS: Final = frozenset(("W", "WATER"))
FAT_WORDS: Final = frozenset(("F", "FAT"))
IN_PHASE_WORDS: Final = frozenset(("IP", "IN_PHASE"))
OUT_OF_PHASE_WORDS: Final = frozenset("OP OPP_PHASE OUT_PHASE OUT_OF_PHASE OPPOSED_PHASE".split())
"""Images of a Dixon acquisition: Philips writes letters, the others words (FrameType, PS3.3 C.8.13.3)."""

DERIVED_WORDS: Final = frozenset(
    "SECONDARY MPR CSA_MPR PROJECTION_IMAGE MIP MAX_IP MIN_IP ADC TRACEW FA SUB SUBTRACT SUBTRACTION REFORMATTED "
    "SCREEN_SAVE MAP T1_MAP T2_MAP B0_MAP B1_MAP RHO_MAP METABOLITE_MAP P PHASE PHASE_MAP R REAL I IMAGINARY P_SE "
    "P_FFE P_IR R_SE R_FFE R_IR I_SE I_FFE I_IR FAT_FRACTION WATER_FRACTION T2_STAR_MAP R2_STAR R2_STAR_MAP AVERAGE "
    "COMPOSED COMP_SPIN".split()
)
"""Words of images that are not what the scanner acquired: maps, reformats, composed stations, phase."""

CONTENT_WORDS: Final = (
    DERIVED_WORDS
    | WATER_WORDS
    | FAT_WORDS
    | IN_PHASE_WORDS
    | OUT_OF_PHASE_WORDS
    | frozenset("LOCALIZER M_SE M_FFE M_IR".split())
)
"""Words of ImageType or FrameType that say what an image shows: images that differ in them are not of one stack."""

IMAGE_TYPE_WORDS: Final = CONTENT_WORDS | frozenset(
    "ORIGINAL DERIVED PRIMARY M SE FFE IR ND NORM DIS2D DIS3D MOSAIC DIXON OTHER ADDITION COMBINED".split()
)

SEQUENCE_CODES: Final = ("SE", "IR", "GR", "EP", "RM")
"""ScanningSequence, PS3.3 C.8.3.1."""

VENDORS: Final[dict[str, str]] = {
    "siemens": "Siemens",
    "philips": "Philips",
    "ge medical": "GE",
    "general electric": "GE",
    "ge healthcare": "GE",
    "canon": "Canon",
    "toshiba": "Canon",
    "hitachi": "Hitachi",
    "fujifilm": "Fujifilm",
    "esaote": "Esaote",
    "united imaging": "United Imaging",
    "uih": "United Imaging",
    "hyperfine": "Hyperfine",
    "paramed": "Paramed",
    "neusoft": "Neusoft",
    "mindray": "Mindray",
    "bruker": "Bruker",
}

SEXES: Final = ("F", "M", "O")


def text_hints(descriptions: Iterable[str], *, contrast_agent: str = "", scan_options: str = "") -> str | None:
    """Words of `HINTS` found in the descriptions, in the order of the list, joined by '+'; None if there are none.

    Parameters
    ----------
    descriptions : SeriesDescription, ProtocolName, SequenceName, BodyPartExamined
    contrast_agent : ContrastBolusAgent; any text but a plain no counts as given
    scan_options : ScanOptions; FS is fat saturation (PS3.3 C.8.3.1)
    """
    plain = [_NO_CONTRAST.sub(" ", _plain(description)) for description in descriptions]
    found = {hint for hint, pattern in _PATTERNS.items() if any(pattern.search(line) for line in plain)}
    if "FS" in scan_options.upper().split("\\"):
        found.add("fatsat")
    if _plain(contrast_agent) not in _NO_AGENT:
        found.add("post_contrast")
    return "+".join(hint for hint in HINTS if hint in found) or None


_PATTERNS: Final = {hint: re.compile(pattern) for hint, pattern in HINTS.items()}
_NO_CONTRAST: Final = re.compile(
    r"\bpre(?: and)? post\b(?: contrast| gad\w*| gd| km)?"  # names a protocol, not one of its series
    r"|\b(?:pre|without|wo|w o|ohne|non?|nativ)\b(?: ?(?:contrast|gad\w*|gd|km|c))?\b"
)
_NO_AGENT: Final = frozenset(("", "no", "none", "n", "0", "nein", "ohne", "n a", "without", "no contrast"))


def _plain(description: str) -> str:
    return re.sub(r"[^a-z0-9+]+", " ", description.lower()).strip()


def image_type_words(image_type: str) -> str | None:
    """Known words of ImageType (backslash-separated) joined by '+'."""
    words = (word.strip().upper().replace(" ", "_") for word in image_type.split("\\"))
    return "+".join(word for word in words if word in IMAGE_TYPE_WORDS) or None


def sequence_codes(scanning_sequence: str) -> str | None:
    """Known codes of ScanningSequence joined by '+'."""
    codes = [code.strip().upper() for code in scanning_sequence.split("\\")]
    return "+".join(code for code in SEQUENCE_CODES if code in codes) or None


def vendor_name(manufacturer: str) -> str | None:
    """Vendor of the list; 'other' for one that is not on it, None if nothing is said."""
    name = manufacturer.lower()
    if not name or name == "unknown":
        return None
    return next((vendor for sign, vendor in VENDORS.items() if sign in name), "other")


def sex_code(sex: str) -> str | None:
    """F, M or O (PatientSex), else None."""
    code = sex.strip().upper()[:1]
    return code if code in SEXES else None

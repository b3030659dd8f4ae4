"""Model cards: what a network is, what it learned from, what it reached on real scans, and what is not known.

A card is made from the network's contract and from the results that `cohort validate weights --cards` stores beside
the weights; nothing measured is written here. What is known of the shipped networks alone (how they were chosen, their
pictures, their licence) is said of them alone.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any, Final

from models.registry import WEIGHTS, NetworkContract

RESULTS_FILE: Final = "validation.json"
WIDTH: Final = 110

_SPIDER_PAGES: Final = {
    "spider-best-worst.jpg": "best and worst slice of each SPIDER test patient",
    "t1-counts-bad.jpg": "T1 slices with wrong numbers of bodies or discs, the worst first",
    "t1-counts-good.jpg": "T1 slices with the right numbers",
}
PAGES: Final[Mapping[str, Mapping[str, str]]] = {
    "vertebral_body": {"real-exam-sagittal.jpg": "all slices of the T1 exam with human outlines", **_SPIDER_PAGES},
    "disc": _SPIDER_PAGES,
    "multifidus": {"real-exam-axial.jpg": "slices through the axial exam with human outlines"},
}
"""Class -> picture in docs/validation -> what it shows (`cohort validate weights --pictures`)."""


@dataclass(frozen=True)
class Measured:
    """What three networks reached on real scans."""

    weights: Mapping[str, str]
    """Network -> sha256 of the weights that were measured."""
    results: Mapping[str, Any]
    """As printed by `cohort validate weights --json`."""
    slices: Mapping[str, Mapping[str, float]]
    """Set and structure -> slice -> Dice."""


def write_measured(folder: Path, measured: Measured) -> None:
    """Store results beside the weights they are of."""
    (folder / RESULTS_FILE).write_text(json.dumps(dataclasses.asdict(measured), indent=1, allow_nan=False) + "\n")


def read_measured(folder: Path) -> Measured | None:
    """Results stored beside weights; None if there are none."""
    path = folder / RESULTS_FILE
    return Measured(**json.loads(path.read_text())) if path.is_file() else None


def write_card(folder: Path, contract: NetworkContract) -> None:
    """Write the card beside the weights, with the results stored there."""
    shipped = folder.resolve() == WEIGHTS.resolve()
    text = card_text(contract, read_measured(folder), shipped=shipped)
    (folder / f"{contract.name}.md").write_text(text, encoding="utf-8")


def card_text(contract: NetworkContract, measured: Measured | None, *, shipped: bool) -> str:
    """Markdown card of a network; results of other weights than the contract's are left out.

    Parameters
    ----------
    shipped : one of the networks in the package, about which more is known than the contract says
    """
    if measured is not None and contract.weights_sha256 not in measured.weights.values():
        measured = None
    real_scans = _on_real_scans(contract, measured, shipped=shipped)
    parts = _what_it_is(contract, shipped=shipped), _training(contract, shipped=shipped)
    return "\n".join([*parts, real_scans, _limits(contract, shipped=shipped)])


def _what_it_is(contract: NetworkContract, *, shipped: bool) -> str:
    licence = "Apache-2.0, code and weights" if shipped else "of the weights: as their author says"
    licence += f"; the weights learned from {contract.credit}" if contract.credit else ""
    return f"""# {contract.name}

Two-dimensional V-Net (Milletari et al. 2016) for {contract.plane} slices; one sigmoid channel each for
{", ".join(contract.classes)}.

| | |
|---|---|
| configuration | {_configuration(contract)} |
| training data and iterations | {contract.training_data} |
| patient data | {contract.credit or "none"} |
| trained on | {contract.trained_on} |
| weights | half precision, sha256 `{contract.weights_sha256}` |
| licence | {licence} |
"""


_SAID_ELSEWHERE: Final = frozenset(
    "name plane classes weights_sha256 training_data trained_on phantom_dice annotated_dice credit "
    "annotated_patients study".split()
)


def _configuration(contract: NetworkContract) -> str:
    """Every other field of the contract, so that none is forgotten here."""
    values = dataclasses.asdict(contract)
    return ", ".join(f"{name} {value}" for name, value in values.items() if name not in _SAID_ELSEWHERE)


def _training(contract: NetworkContract, *, shipped: bool) -> str:
    texts = [_learned_from(contract)]
    if shipped:
        texts.append(_CHOSEN_WITH_REAL if contract.credit else _CHOSEN_BY_PHANTOM)
    lines = ["## Training", "", fill(" ".join(texts), WIDTH), ""]
    if contract.study:
        lines += ["| | |", "|---|---|", *(f"| {what} | {text} |" for what, text in contract.study.items()), ""]
    elif patients := contract.annotated_patients:
        rows = (f"{part}: {len(numbers)} patients, {', '.join(numbers)}" for part, numbers in patients.items())
        lines += [*(fill(row, WIDTH, initial_indent="- ", subsequent_indent="  ") for row in rows), ""]
    lines += _dice_table("held-back phantom subjects", contract.phantom_dice)
    lines += _dice_table("real slices of the validation patients", contract.annotated_dice)
    return "\n".join(lines)


def _learned_from(contract: NetworkContract) -> str:
    sources = ["a parametric phantom"] if "phantom" in contract.training_data or not contract.credit else []
    sources += [f"real slices of {contract.credit}"] if contract.credit else []
    return f"It has learned from {' and from '.join(sources)}{' alone' if len(sources) == 1 else ''}."


_CHOSEN_BY_PHANTOM: Final = "Choices were made by Dice on held-back phantom subjects."
_CHOSEN_WITH_REAL: Final = (
    "Patients are split by a hash of their number. Choices were made by Dice on held-back phantom subjects and on "
    "slices of the validation patients; the test patients had no part in them."
)


def _dice_table(where: str, dice: Mapping[str, float]) -> list[str]:
    if not dice:
        return []
    rows = [f"| {name} | {value:.3f} |" for name, value in dice.items()]
    return [f"| class | Dice on {where} |", "|---|---|", *rows, ""]


def _on_real_scans(contract: NetworkContract, measured: Measured | None, *, shipped: bool) -> str:
    lines = ["## On real scans it has not learned from" if shipped else "## On real scans", ""]
    if measured is None:
        return "\n".join([*lines, "Not measured yet: `cohort validate weights --cards` does that.", ""])
    lines += ["| set / class | n | Dice, mean ± sd | median | worst |", "|---|---|---|---|---|"]
    for name in contract.classes:
        lines += _class_lines(name, measured.results)
    lines += ["", *(fill(_SETS[name], WIDTH) for name in contract.classes if name in _SETS), ""]
    lines += _counts(contract, measured.results)
    if shipped:
        pages = {page: text for name in contract.classes for page, text in PAGES.get(name, {}).items()}
        lines += [f"- [{text}](../../docs/validation/{page})" for page, text in pages.items()]
    return "\n".join([*lines, ""])


def _class_lines(name: str, results: Mapping[str, Any]) -> list[str]:
    keys = [key for key, found in results.items() if name in key.split("/") and found.get("dice") is not None]
    if not keys:
        return [f"| {name} | 0 | not measured | | |"]
    return [_class_line(key, results[key]) for key in keys]


def _class_line(key: str, one: Mapping[str, Any]) -> str:
    sd = f" ± {one['sd']:.3f}" if one["n"] > 1 else ""
    return f"| {key} | {_units(key, one['n'])} | {one['dice']:.3f}{sd} | {one['median']:.3f} | {one['worst']:.3f} |"


def _units(key: str, n: int) -> str:
    unit = "scan" if key.endswith("/volume") else "slice"
    return f"{n} {unit}{'s' * (n != 1)}"


_SETS: Final = {
    "vertebral_body": "`real_exam` is one T1 exam (Zukic et al. 2014), bodies and sacrum together; `spider` are T2 "
    "SPACE slices of the test patients (van der Graaf et al. 2024, CC BY 4.0).",
    "disc": "`spider` are T2 SPACE slices of the test patients (van der Graaf et al. 2024, CC BY 4.0).",
    "multifidus": "`real_exam` is one axial in-phase exam (Burian et al. 2019).",
}
_COUNTED: Final = {"vertebral_body": "vertebrae", "disc": "discs"}


def _counts(contract: NetworkContract, results: Mapping[str, Any]) -> list[str]:
    lines = []
    for what in (_COUNTED[name] for name in contract.classes if name in _COUNTED):
        found = results[f"t1_counts/{what}"]
        text = (
            f"On {found['n']} T1 slices of SPIDER without masks the number of {what} found is that of the data set in "
            f"{found['exact']:.1%} and within one of it in {found['within_one']:.1%}."
        )
        if learned_from := set(contract.annotated_patients.get("training", ())):
            n_known = len(learned_from.intersection(results["t1_counts/persons"]))
            text += f" {n_known} of these persons have the number of a patient whose slices it has learned from."
        lines += [fill(text, WIDTH), ""]
    return lines


def _limits(contract: NetworkContract, *, shipped: bool) -> str:
    if contract.study:
        return "\n".join(["## Limits", "", *(_item(text) for text in (_ALWAYS[0], *_OF_STUDY)), ""])
    texts = [*_ALWAYS, *(_OF_CLASS[name] for name in contract.classes if name in _OF_CLASS)]
    if shipped:
        texts += [_NOT_FITTED, *([_T2_ONLY] if contract.credit and contract.plane == "sagittal" else [])]
    return "\n".join(["## Limits", "", *map(_item, texts), ""])


def _item(text: str) -> str:
    return fill(text, WIDTH, initial_indent="- ", subsequent_indent="  ")


_OF_STUDY: Final = (
    "Dice above is that of the validation part, by which the share of the learned weights was chosen where weights "
    "were averaged; that of the test part, which was not read, is in the report of the study.",
    "The masks of the readers are taken as they drew them. n counts slices, and slices of one person are alike.",
    "Other scanners, protocols and findings than those of the annotated exams are where it fails first.",
)


_ALWAYS: Final = (
    "Not for clinical use, not a medical device. Look at the masks before you believe a number that rests on them.",
    "n counts slices, and slices of one person are alike. The sagittal T1 exam and the axial exam are one person each, "
    "and all the evidence for outlines on such images.",
    "The two exams and the T1 slices were looked at while the phantom was being improved: they are not untouched test "
    "data.",
    "Dice on phantom subjects says nothing about patients.",
    "The phantom knows few pathologies. Fractures, fusion, implants, tumours, severe scoliosis and transitional "
    "vertebrae are where it fails first.",
)
_OF_CLASS: Final = {
    "sacral_body": "The sacrum is outlined in no real slice of the test data but those of the one T1 exam, where only "
    "S1 is, and is scored together with the bodies there.",
    "disc": "The test data have no human outline of a disc on a T1 image; there discs have only been counted.",
    "multifidus": "The phantom's areas of multifidus and erector spinae follow human masks of two adults of "
    "MyoSegmenTUM, the data set of the axial exam; one of them is probably the very exam scored here, so its muscle "
    "figures are optimistic. No radiologist has checked the phantom's muscle labels, and the human masks are taken as "
    "published.",
    "psoas": "The test data have no human mask of psoas and quadratus lumborum.",
}
_NOT_FITTED: Final = "No weights were fitted to the two exams or to the T1 slices."
_T2_ONLY: Final = "The real slices that it learned from are T2 SPACE alone; what it knows of T1 is the phantom's."

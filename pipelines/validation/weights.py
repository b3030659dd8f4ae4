"""`cohort validate weights`: scores of the networks on real scans, as tables and stored beside the weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from cohort.agreement.overlap import dice, spread
from cohort.agreement.surface import SurfaceDistance, surface_distance
from cohort.errors import ConfigurationError
from models.card import Measured, read_measured, write_card, write_measured
from models.registry import find_contract
from pipelines.validation.overlay_pages import write_pages
from pipelines.validation.real_scans import Compared, Networks, RealScans, Report, SegmentedSlice, segment_real_scans

Results = dict[str, Any]
VOLUME: Final = "volume"
"""Ends the keys of scores over a scan at once, as the paper gives them (Hess et al. 2023): all slices between the first
and the last in which a human drew the structure."""


def measured_weights(
    data: Path | None, networks: Networks, *, pictures: Path | None, cards: bool, report: Report
) -> Measured:
    """Measure the networks on the real scans below `data`; without `data`, what is stored beside them.

    Parameters
    ----------
    pictures : folder for pages of overlays (`pipelines.validation.overlay_pages`); None draws none
    cards : store the results, and write the model cards, beside the weights
    report : takes lines of progress

    Raises
    ------
    ConfigurationError
        if real scans are missing, or no results of these very weights are stored; if cards are wanted of networks that
        do not lie in one folder
    """
    if data is None:
        if pictures or cards:
            raise ConfigurationError("pictures and cards need real scans: name their folder with --data")
        return _stored(networks, report)
    folder = _folder_of(networks) if cards else None
    scans = segment_real_scans(data, networks, report)
    measured = measure(scans, networks)
    if pictures:
        write_pages(pictures, scans)
    if folder:
        write_measured(folder, measured)
        for contract in networks.contracts.values():
            write_card(folder, contract)
    return measured


def _folder_of(networks: Networks) -> Path:
    """The folder that all three networks lie in: results are stored for the three together."""
    folders = {find_contract(name).resolve().parent for name in dataclasses.astuple(networks)}
    if len(folders) > 1:
        raise ConfigurationError("results are stored for three networks that lie in one folder, these do not")
    return folders.pop()


def _stored(networks: Networks, report: Report) -> Measured:
    measured = read_measured(_folder_of(networks))
    if measured is None or measured.weights != _weights(networks):
        raise ConfigurationError("no results of these weights are stored; name the folder of real scans with --data")
    report("no real scans named (--data): these are the results stored beside the weights")
    return measured


def _weights(networks: Networks) -> dict[str, str]:
    return {name: contract.weights_sha256 for name, contract in networks.contracts.items()}


def measure(scans: RealScans, networks: Networks) -> Measured:
    """Scores by set and structure.

    `results` has for each `set/structure` the number of slices, mean, sd, median and worst of Dice, and the means of
    mean surface distance and 95th percentile Hausdorff distance (mm) over those slices in which anything was found;
    the same with `/volume` for a scan as a whole; and what became of the counts. `slices` has the Dice of each slice.
    """
    keys = dict.fromkeys(key for one in scans.scored for key in one.compared)
    pairs = {key: _pairs(scans.scored, key) for key in keys}
    results: Results = {}
    for key, slices in pairs.items():
        results[key] = _scores(slices)
        if slices and all(one.gap_mm for one, _ in slices):
            results[f"{key}/{VOLUME}"] = _volume_scores(_between(scans.scored, key))
    results |= _count_scores(scans) | {"spider/patients": dict(scans.patients)}
    by_slice = {key: {one.name: _dice(pair) for one, pair in slices} for key, slices in pairs.items()}
    return Measured(_weights(networks), results, by_slice)


def as_table(results: Mapping[str, Any]) -> str:
    """Two Markdown tables: overlap and distance of outlines, and counts."""
    lines = [
        "| set / structure | n | Dice, mean ± sd | median | worst | surface, mm | HD95, mm | nothing found |",
        "|---|---|---|---|---|---|---|---|",
        *(_overlap_line(key, found) for key, found in results.items() if _has(found, "dice")),
        "",
        "| counts | n | exact | within one | bias |",
        "|---|---|---|---|---|",
        *(_count_line(key, found) for key, found in results.items() if _has(found, "bias")),
    ]
    return "\n".join(lines)


def slices_table(slices: Mapping[str, Mapping[str, float]]) -> str:
    """Markdown table of the Dice of each slice."""
    rows = [
        f"| {key} | " + ", ".join(f"{name}: {value:.2f}" for name, value in found.items()) + " |"
        for key, found in slices.items()
    ]
    return "\n".join(["| set / structure | slice: Dice |", "|---|---|", *rows])


def _has(found: object, key: str) -> bool:
    return isinstance(found, Mapping) and key in found


def _overlap_line(key: str, found: Mapping[str, Any]) -> str:
    if found["dice"] is None:
        return f"| {key} | 0 | - | - | - | - | - | - |"
    score = f"{found['dice']:.3f}" + (f" ± {found['sd']:.3f}" if found["n"] > 1 else "")
    distances = [f"{found[name]:.1f}" if found[name] is not None else "-" for name in ("surface_mm", "hd95_mm")]
    cells = [score, f"{found['median']:.3f}", f"{found['worst']:.3f}", *distances, str(found["n_nothing_found"])]
    return f"| {key} | {found['n']} | " + " | ".join(cells) + " |"


def _count_line(key: str, found: Mapping[str, Any]) -> str:
    return f"| {key} | {found['n']} | {found['exact']:.1%} | {found['within_one']:.1%} | {found['bias']:+.2f} |"


Pair = tuple[SegmentedSlice, Compared]


def _pairs(slices: Sequence[SegmentedSlice], key: str) -> list[Pair]:
    """Slices in which a human drew the structure."""
    return [(one, one.compared[key]) for one in slices if key in one.compared and one.compared[key].human.any()]


def _between(slices: Sequence[SegmentedSlice], key: str) -> list[Pair]:
    """Slices between the first and the last in which a human drew the structure, both included."""
    own = [(one, one.compared[key]) for one in slices if key in one.compared]
    drawn = [k for k, (_, pair) in enumerate(own) if pair.human.any()]
    return own[drawn[0] : drawn[-1] + 1]


def _dice(pair: Compared) -> float:
    return round(dice(pair.scored, pair.human), 4)


def _scores(pairs: Sequence[Pair]) -> Results:
    distances = [surface_distance(pair.scored, pair.human, one.spacing_mm) for one, pair in pairs]
    overlap = spread([dice(pair.scored, pair.human) for _, pair in pairs])
    return dataclasses.asdict(overlap) | _mean_distances(distances)


def _volume_scores(pairs: Sequence[Pair]) -> Results:
    """Slices of one scan as one volume."""
    found, human = (np.stack(masks) for masks in zip(*((pair.scored, pair.human) for _, pair in pairs), strict=True))
    first = pairs[0][0]
    spacing_mm = (first.gap_mm or 0.0, *first.spacing_mm)
    distance = surface_distance(found, human, spacing_mm)
    return dataclasses.asdict(spread([dice(found, human)])) | _mean_distances([distance])


def _mean_distances(distances: Sequence[SurfaceDistance | None]) -> Results:
    known = [one for one in distances if one is not None]
    return {
        "surface_mm": _mean([one.mean_mm for one in known]),
        "hd95_mm": _mean([one.p95_mm for one in known]),
        "n_nothing_found": len(distances) - len(known),
    }


def _mean(values: Sequence[float]) -> float | None:
    return round(float(np.mean(values)), 2) if values else None


def _count_scores(scans: RealScans) -> Results:
    errors = {what: np.array([one.counts[what].error for one in scans.t1]) for what in ("vertebrae", "discs")}
    overall = _shares(np.concatenate(list(errors.values())))
    human = {what: np.array([one.error for one in found]) for what, found in scans.human_counts.items()}
    return {
        "t1_counts/within_one": overall["within_one"],
        "t1_counts/exact": overall["exact"],
        "t1_counts/turned": scans.t1_turned,
        "t1_counts/sacrum_cm2": {
            "as_stored": round(scans.t1_sacrum_cm2[False], 1),
            "upside_down": round(scans.t1_sacrum_cm2[True], 1),
        },
        "t1_counts/persons": [one.name.split("_")[0] for one in scans.t1],
        **{f"t1_counts/{what}": _shares(values) for what, values in errors.items()},
        **{f"human_counts/{what}": _shares(values) for what, values in human.items()},
    }


def _shares(errors: npt.NDArray[np.int_]) -> Results:
    """Share of counts within one and exact, and the mean of found - listed."""
    return {
        "n": len(errors),
        "within_one": round(float(np.mean(np.abs(errors) <= 1)), 4),
        "exact": round(float(np.mean(errors == 0)), 4),
        "bias": round(float(np.mean(errors)), 3),
    }

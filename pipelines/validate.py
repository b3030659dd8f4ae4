"""`cohort validate weights`: the networks against human masks on real scans.

Expects the folders `real_exam`, `spider_t2space` and `spider_t1_midsagittal` in one place. Annotators stop
somewhere: only rows between the top and the bottom of a slice's human mask are scored, and SPIDER's vertebrae are
cut at the spinal canal, because their masks include the posterior elements.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from pydicom import dcmread

from cohort.agreement.overlap import dice, spread
from cohort.archive.header import header_pose
from cohort.errors import ConfigurationError
from cohort.geometry import StackGeometry
from cohort.stacks import ImageStack, Plane
from models.inference import Segmentation, segment_stack
from models.registry import load_network, read_contract
from models.training.annotated import bodies_in_front_of_canal, part_of_patient, patient_of, read_png, read_spacings

Mask = npt.NDArray[np.bool_]

MIN_BODY_MM2 = 150.0
MIN_DISC_MM2 = 60.0
"""Smaller pieces are not counted: a fifth of an L1 body, a quarter of a collapsed disc (docs/phantom.md)."""


@dataclass(frozen=True)
class Networks:
    """Names or paths of the three networks."""

    vertebral_body: str
    disc: str
    muscle: str

    def segment(self, which: str, stack: ImageStack) -> Segmentation:
        """Run one of them over a stack."""
        name = getattr(self, which)
        contract = read_contract(name)
        network = load_network(name, contract.weights_sha256, "cpu")
        return segment_stack(network, contract, stack, batch_slices=8, device="cpu")


def validate_weights(data: Path, networks: Networks) -> dict[str, dict[str, Any]]:
    """Scores by set and structure: n slices, mean Dice and its spread; for counts the share within one and exact.

    Raises
    ------
    ConfigurationError
        if the folder of real scans is not there
    """
    if not (data / "real_exam").is_dir():
        raise ConfigurationError("no folder real_exam among the test data; name the folder with --data")
    scores = {
        **_real_sagittal(data / "real_exam", networks),
        **_real_axial(data / "real_exam", networks),
        **_spider(data / "spider_t2space", networks),
    }
    results = {name: dataclasses.asdict(spread(values)) for name, values in scores.items()}
    return {**results, **_t1_counts(data / "spider_t1_midsagittal", networks)}


def as_table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown table of the scores."""
    lines = [
        "| set / structure | n slices | Dice, mean ± sd | exact count | count within one |",
        "|---|---|---|---|---|",
    ]
    for name, found in results.items():
        score = f"{found['dice']:.3f} ± {found['sd']:.3f}" if found.get("dice") is not None else "-"
        counts = [f"{found[key]:.1%}" if key in found else "-" for key in ("exact", "within_one")]
        lines.append(f"| {name} | {found['n']} | {score} | {counts[0]} | {counts[1]} |")
    return "\n".join(lines)


def _dicom_stack(folder: Path, plane: Plane) -> ImageStack:
    """Slices in the order of InstanceNumber, which is that of the mask files."""
    headers = sorted((dcmread(path) for path in folder.iterdir()), key=lambda one: int(one.InstanceNumber))
    poses = [header_pose(one) for one in headers]
    geometry = StackGeometry(
        position_mm=np.array([pose.position_mm for pose in poses]),
        row_dir=poses[0].row_dir,
        col_dir=poses[0].col_dir,
        spacing_mm=poses[0].spacing_mm,
        shape=poses[0].shape,
        thickness_mm=poses[0].thickness_mm or 4.0,
    )
    return ImageStack(plane, 0, np.stack([one.pixel_array for one in headers]).astype(np.uint16), geometry, None)


def _single(image: npt.NDArray[np.uint8], spacing_mm: tuple[float, float]) -> ImageStack:
    """One mid-sagittal picture, head up and anterior to the left, as a stack."""
    geometry = StackGeometry(
        np.zeros((1, 3)),
        np.array([0, 1.0, 0]),
        np.array([0, 0, -1.0]),
        spacing_mm,
        (image.shape[0], image.shape[1]),
        4.0,
    )
    return ImageStack("sagittal", 0, image.astype(np.uint16)[None], geometry, None)


def _scored(found: Mask, truth: Mask) -> float:
    rows = np.flatnonzero(truth.any(axis=1))
    part = slice(rows[0], rows[-1] + 1)
    return dice(found[part], truth[part])


def _real_sagittal(folder: Path, networks: Networks) -> dict[str, list[float]]:
    stack = _dicom_stack(folder / "dicom" / "sagittal_t1", "sagittal")
    found = networks.segment("vertebral_body", stack).masks.any(axis=0)
    truth = [read_png(folder / "masks" / f"sagittal_vertebral_bodies_{k:02d}.png") > 0 for k in range(len(found))]
    scores = [_scored(f, t) for f, t in zip(found, truth, strict=True) if t.any()]
    return {"real_exam/vertebral_body": scores}


def _real_axial(folder: Path, networks: Networks) -> dict[str, list[float]]:
    stack = _dicom_stack(folder / "dicom" / "axial_inphase", "axial")
    winner = networks.segment("muscle", stack).winner
    scores: dict[str, list[float]] = {"real_exam/multifidus": [], "real_exam/erector_spinae": []}
    for k, found in enumerate(winner):
        truth = read_png(folder / "masks" / f"axial_es_mf_{k:02d}.png")
        for name, value, ids in (("multifidus", 1, (2, 3)), ("erector_spinae", 2, (1, 4))):
            mask = np.isin(truth, ids)
            if mask.any():
                scores[f"real_exam/{name}"].append(dice(found == value, mask))
    return scores


def _spider(folder: Path, networks: Networks) -> dict[str, list[float]]:
    spacings = read_spacings(folder)
    scores: dict[str, list[float]] = {"spider/vertebral_body": [], "spider/disc": []}
    for path in sorted((folder / "images").iterdir()):
        if part_of_patient(patient_of(path)) != "test":
            continue
        label = read_png(folder / "labels" / path.name)
        bodies = bodies_in_front_of_canal(label)
        if bodies is None:
            continue
        stack = _single(read_png(path), spacings[path.stem.rsplit("_slice", 1)[0]])
        scores["spider/vertebral_body"].append(_scored(networks.segment("vertebral_body", stack).masks[0, 0], bodies))
        if (label == 2).any():
            scores["spider/disc"].append(_scored(networks.segment("disc", stack).masks[0, 0], label == 2))
    return scores


def _t1_counts(folder: Path, networks: Networks) -> dict[str, dict[str, Any]]:
    with (folder / "series.csv").open() as file:
        wanted = {row["new_file_name"]: row for row in csv.DictReader(file)}
    spacings = read_spacings(folder)
    differences: dict[str, list[int]] = {"vertebrae": [], "discs": []}
    for name, stack in _t1_slices(folder, spacings):
        n_bodies = _count(networks.segment("vertebral_body", stack).masks[0, 0], spacings[name], MIN_BODY_MM2)
        n_discs = _count(networks.segment("disc", stack).masks[0, 0], spacings[name], MIN_DISC_MM2)
        differences["vertebrae"].append(n_bodies - int(wanted[name]["num_vertebrae"]))
        differences["discs"].append(n_discs - int(wanted[name]["num_discs"]))
    return {
        f"t1_counts/{what}": {
            "n": len(values),
            "within_one": round(float(np.mean(np.abs(values) <= 1)), 4),
            "exact": round(float(np.mean(np.array(values) == 0)), 4),
        }
        for what, values in differences.items()
    }


def _t1_slices(folder: Path, spacings: Mapping[str, tuple[float, float]]) -> Iterator[tuple[str, ImageStack]]:
    for path in sorted((folder / "images").iterdir()):
        yield path.stem, _single(read_png(path), spacings[path.stem])


def _count(mask: Mask, spacing_mm: tuple[float, float], smallest_mm2: float) -> int:
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    areas = stats[1:, cv2.CC_STAT_AREA] * spacing_mm[0] * spacing_mm[1]
    return int((areas >= smallest_mm2).sum())

"""Real scans with human masks, and what the networks find in them: what `cohort validate weights` scores and draws.

Expects the folders `real_exam`, `spider_t2space` and `spider_t1_midsagittal` in one place. Annotators stop
somewhere: of bodies and discs only rows between the top and the bottom of a slice's human mask are scored, and
SPIDER's vertebrae are cut at the spinal canal, because their masks include the posterior elements.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt
from pydicom import dcmread
from pydicom.dataset import FileDataset

from cohort.archive.header import header_pose
from cohort.errors import ConfigurationError
from cohort.geometry import StackGeometry
from cohort.stacks import ImageStack, Plane
from models.inference import segment_stack
from models.registry import NetworkContract, load_network, read_contract
from models.training.annotated import (
    BODY,
    DISC,
    UNSURE,
    Part,
    bodies_in_front_of_canal,
    divide_vertebrae,
    part_of_patient,
    patient_of,
    read_png,
    read_spacings,
)
from pipelines.segment import check_networks

Mask = npt.NDArray[np.bool_]
Report = Callable[[str], None]

FOLDERS: Final = ("real_exam", "spider_t2space", "spider_t1_midsagittal")
MUSCLE_IDS: Final = {"multifidus": (2, 3), "erector_spinae": (1, 4)}
"""Values of the two sides in the axial human masks."""
SMALLEST_MM2: Final = {"vertebrae": 50.0, "discs": 30.0}
"""Smaller pieces are not counted. The data set lists slivers at the edge of the picture, too: from these sizes down,
counting the human masks of training and validation patients gives no more of the listed numbers (`human_counts`)."""


@dataclass(frozen=True)
class Networks:
    """Names or paths of the three networks."""

    vertebral_body: str
    disc: str
    muscle: str

    @cached_property
    def contracts(self) -> dict[str, NetworkContract]:
        """Contract of each."""
        return {one.name: read_contract(getattr(self, one.name)) for one in dataclasses.fields(self)}

    def segment(self, which: str, stack: ImageStack) -> dict[str, Mask]:
        """Class -> [slice, row, column]: where it is the likeliest, as in the label arrays of a run.

        The arithmetic is the one that gives the same figures on every machine.
        """
        contract = self.contracts[which]
        network = load_network(getattr(self, which), contract.weights_sha256, "cpu")
        found = segment_stack(network, contract, stack, batch_slices=4, device="cpu", arithmetic="fp32")
        return {name: found.winner == value for value, name in enumerate(contract.classes, start=1)}


@dataclass(frozen=True, eq=False)
class Compared:
    """What was found of a structure in a slice, and what a human drew; [row, column] each."""

    found: Mask
    human: Mask
    whole_slice: bool
    """The human drew all there is to see; otherwise only the rows with human mask are scored."""

    @cached_property
    def scored(self) -> Mask:
        """The part of `found` that can be right or wrong."""
        if self.whole_slice:
            return self.found
        rows = np.flatnonzero(self.human.any(axis=1))
        part = np.zeros_like(self.found)
        if len(rows):
            part[rows[0] : rows[-1] + 1] = self.found[rows[0] : rows[-1] + 1]
        return part


@dataclass(frozen=True)
class Count:
    """Pieces found in a slice, and how many structures the data set lists."""

    found: int
    listed: int

    @property
    def error(self) -> int:
        """Pieces too many; negative if too few."""
        return self.found - self.listed


@dataclass(frozen=True, eq=False)
class SegmentedSlice:
    """One real slice with everything found in it, in the order that it is shown in."""

    name: str
    """Number of the slice, or the name of the picture: SPIDER's public number of the patient and the series."""
    image: npt.NDArray[Any]
    """[row, column]."""
    spacing_mm: tuple[float, float]
    gap_mm: float | None = None
    """Distance to the next slice where all slices of the scan are there."""
    compared: Mapping[str, Compared] = field(default_factory=dict)
    """By key of the results, as `real_exam/multifidus`."""
    alone: Mapping[str, Mask] = field(default_factory=dict)
    """Class -> what was found, where it is not compared by itself."""
    counts: Mapping[str, Count] = field(default_factory=dict)
    """`vertebrae` and `discs`."""


@dataclass(frozen=True, eq=False)
class RealScans:
    """All sets, segmented."""

    sagittal: list[SegmentedSlice]
    axial: list[SegmentedSlice]
    spider: list[SegmentedSlice]
    """Those of the test patients."""
    t1: list[SegmentedSlice]
    """Head up, whatever the files are."""
    t1_sacrum_cm2: Mapping[bool, float]
    """Sacral area found in all pictures together: as stored (False) and upside down (True)."""
    human_counts: Mapping[str, list[Count]]
    """`vertebrae` and `discs` of human masks: what the rule of counting can reach at best."""
    patients: Mapping[Part, list[str]]
    """SPIDER's numbers of the patients with human masks, by what they are used for."""

    @property
    def t1_turned(self) -> bool:
        """The pictures are stored head down."""
        return head_down(self.t1_sacrum_cm2)

    @property
    def scored(self) -> list[SegmentedSlice]:
        """The slices with human masks."""
        return [*self.sagittal, *self.axial, *self.spider]


def head_down(sacrum_cm2: Mapping[bool, float]) -> bool:
    """More sacrum is found in the pictures when they are turned upside down (True) than as stored (False)."""
    return sacrum_cm2[True] > sacrum_cm2[False]


def segment_real_scans(data: Path, networks: Networks, report: Report) -> RealScans:
    """Segment every set below `data`.

    Raises
    ------
    ConfigurationError
        if a folder of real scans is not there or holds no pictures to score or count, or a network has not the
        classes of its place
    """
    check_networks(dataclasses.asdict(networks))
    if missing := [name for name in FOLDERS if not (data / name).is_dir()]:
        raise ConfigurationError(f"no {', no '.join(missing)} among the test data; name their folder with --data")
    real_exam, spider, t1 = (data / name for name in FOLDERS)
    _pictures(t1)  # before the others are segmented
    by_humans, patients = human_counts(spider), patients_by_part(spider)
    sagittal = _sagittal(real_exam, networks)
    report(f"real_exam: {len(sagittal)} sagittal slices")
    axial = _axial(real_exam, networks)
    report(f"real_exam: {len(axial)} axial slices")
    slices = _spider(spider, networks)
    report(f"spider_t2space: {len(slices)} slices of {len(patients['test'])} test patients")
    pictures, sacrum_cm2 = t1_pictures(t1, networks, report)
    return RealScans(sagittal, axial, slices, pictures, sacrum_cm2, by_humans, patients)


def patients_by_part(spider: Path) -> dict[Part, list[str]]:
    """Numbers of the patients in `spider/images`, ordered, by what their slices are used for."""
    numbers = sorted({patient_of(path) for path in _pictures(spider)}, key=lambda number: (len(number), number))
    parts: tuple[Part, ...] = ("training", "validation", "test")
    return {part: [number for number in numbers if part_of_patient(number) == part] for part in parts}


def _pictures(folder: Path) -> list[Path]:
    """Pictures of a set, by name; ConfigurationError if there are none."""
    if paths := sorted((folder / "images").glob("*.png")):
        return paths
    raise ConfigurationError(f"no pictures (images/*.png) in {folder.name} of the test data")


def read_headers(folder: Path) -> list[FileDataset]:
    """In the order of InstanceNumber, which is one more than the number of the mask file."""
    return sorted((dcmread(path) for path in folder.iterdir()), key=lambda one: int(one.InstanceNumber))


def stack_of(headers: Sequence[FileDataset], plane: Plane) -> ImageStack:
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


def single_picture(image: npt.NDArray[np.uint8], spacing_mm: tuple[float, float]) -> ImageStack:
    """One mid-sagittal picture, head up and anterior to the left, as a stack."""
    shape = (image.shape[0], image.shape[1])
    row_dir, col_dir = np.array([0, 1.0, 0]), np.array([0, 0, -1.0])
    geometry = StackGeometry(np.zeros((1, 3)), row_dir, col_dir, spacing_mm, shape, 4.0)
    return ImageStack("sagittal", 0, image.astype(np.uint16)[None], geometry, None)


def _sagittal(folder: Path, networks: Networks) -> list[SegmentedSlice]:
    headers = read_headers(folder / "dicom" / "sagittal_t1")
    stack = stack_of(headers, "sagittal")
    found = networks.segment("vertebral_body", stack)
    slices = []
    for k, header in enumerate(headers):
        number = f"{int(header.InstanceNumber) - 1:02d}"
        human = read_png(folder / "masks" / f"sagittal_vertebral_bodies_{number}.png") > 0
        alone = {name: mask[k] for name, mask in found.items()}
        both = alone["vertebral_body"] | alone["sacral_body"]
        compared = {"real_exam/vertebral_body": Compared(both, human, whole_slice=False)}
        slices.append(_of_stack(stack, k, number, compared, alone))
    return slices


def _axial(folder: Path, networks: Networks) -> list[SegmentedSlice]:
    headers = read_headers(folder / "dicom" / "axial_inphase")
    stack = stack_of(headers, "axial")
    muscles = networks.segment("muscle", stack)
    slices = []
    for k, header in enumerate(headers):
        name = f"{int(header.InstanceNumber) - 1:02d}"
        human = read_png(folder / "masks" / f"axial_es_mf_{name}.png")
        found = {muscle: mask[k] for muscle, mask in muscles.items()}
        compared = {
            f"real_exam/{muscle}": Compared(found.pop(muscle), np.isin(human, ids), whole_slice=True)
            for muscle, ids in MUSCLE_IDS.items()
        }
        slices.append(_of_stack(stack, k, name, compared, found))
    return slices


def _of_stack(
    stack: ImageStack, k: int, name: str, compared: Mapping[str, Compared], alone: Mapping[str, Mask]
) -> SegmentedSlice:
    gap_mm = abs(stack.geometry.slice_gap_mm)
    return SegmentedSlice(name, stack.image[k], stack.geometry.spacing_mm, gap_mm, compared, alone)


def _spider(folder: Path, networks: Networks) -> list[SegmentedSlice]:
    spacings = read_spacings(folder)
    slices = []
    for path in _pictures(folder):
        label = read_png(folder / "labels" / path.name)
        bodies = bodies_in_front_of_canal(label)
        if part_of_patient(patient_of(path)) != "test" or bodies is None:
            continue
        stack = single_picture(read_png(path), spacings[path.stem.rsplit("_slice", 1)[0]])
        found = networks.segment("vertebral_body", stack) | networks.segment("disc", stack)
        compared = {
            "spider/vertebral_body": Compared(found["vertebral_body"][0], bodies, whole_slice=False),
            "spider/disc": Compared(found["disc"][0], label == DISC, whole_slice=False),
        }
        alone = {"sacral_body": found["sacral_body"][0]}
        slices.append(SegmentedSlice(path.stem, stack.image[0], stack.geometry.spacing_mm, None, compared, alone))
    return slices


def t1_pictures(folder: Path, networks: Networks, report: Report) -> tuple[list[SegmentedSlice], dict[bool, float]]:
    """The pictures head up, and the sacral area found in them as stored and upside down.

    Nothing in the pictures says which way is up, and one export has one convention: the whole folder is turned if the
    vertebral network then finds more sacrum, over all pictures together.
    """
    spacings = read_spacings(folder)
    paths = _pictures(folder)
    stacks: dict[bool, list[ImageStack]] = {False: [], True: []}
    spines: dict[bool, list[dict[str, Mask]]] = {False: [], True: []}
    sacrum_cm2 = {False: 0.0, True: 0.0}
    for n, path in enumerate(paths, start=1):
        stored = read_png(path)
        for turned, image in ((False, stored), (True, np.ascontiguousarray(stored[::-1]))):
            stack = single_picture(image, spacings[path.stem])
            spine = networks.segment("vertebral_body", stack)
            stacks[turned].append(stack)
            spines[turned].append(spine)
            sacrum_cm2[turned] += float(spine["sacral_body"].sum() * np.prod(spacings[path.stem]) / 100)
        if n % 30 == 0 or n == len(paths):
            report(f"spider_t1_midsagittal: {n} of {len(paths)} pictures, both ways up")
    turned = head_down(sacrum_cm2)
    listed = listed_counts(folder)
    slices = []
    for path, stack, spine in zip(paths, stacks[turned], spines[turned], strict=True):
        found = spine | networks.segment("disc", stack)
        slices.append(_counted(path.stem, stack, found, listed[path.stem]))
    report(f"spider_t1_midsagittal: discs, {len(paths)} pictures")
    return slices, sacrum_cm2


def _counted(name: str, stack: ImageStack, found: Mapping[str, Mask], listed: Mapping[str, int]) -> SegmentedSlice:
    spacing_mm = stack.geometry.spacing_mm
    alone = {structure: mask[0] for structure, mask in found.items()}
    masks = {"vertebrae": alone["vertebral_body"], "discs": alone["disc"]}
    counts = {
        what: Count(len(pieces(mask, spacing_mm, SMALLEST_MM2[what])), listed[what]) for what, mask in masks.items()
    }
    return SegmentedSlice(name, stack.image[0], spacing_mm, alone=alone, counts=counts)


def human_counts(spider: Path) -> dict[str, list[Count]]:
    """Pieces in the human masks of slices of training and validation patients, counted as those of networks are.

    Raises
    ------
    ConfigurationError
        if there are no such slices
    """
    spacings, listed = read_spacings(spider), listed_counts(spider)
    counts: dict[str, list[Count]] = {what: [] for what in SMALLEST_MM2}
    for path in sorted((spider / "labels").glob("*.png")):
        series = path.stem.rsplit("_slice", 1)[0]
        regions = divide_vertebrae(read_png(path), spacings[series])
        if part_of_patient(patient_of(path)) == "test" or regions is None:
            continue
        masks = {"vertebrae": np.isin(regions, (BODY, UNSURE)), "discs": regions == DISC}
        for what, mask in masks.items():
            found = len(pieces(mask, spacings[series], SMALLEST_MM2[what]))
            counts[what].append(Count(found, listed[series][what]))
    if not counts["discs"]:
        raise ConfigurationError(f"no slices of training or validation patients in {spider.name} of the test data")
    return counts


def listed_counts(folder: Path) -> dict[str, dict[str, int]]:
    with (folder / "series.csv").open() as file:
        return {
            row["new_file_name"]: {"vertebrae": int(row["num_vertebrae"]), "discs": int(row["num_discs"])}
            for row in csv.DictReader(file)
        }


def pieces(mask: Mask, spacing_mm: tuple[float, float], smallest_mm2: float) -> npt.NDArray[np.float64]:
    """Centroids [piece, (row, column)] of the 8-connected pieces of at least `smallest_mm2`, from top to bottom."""
    _, _, stats, centroids = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    large = stats[1:, cv2.CC_STAT_AREA] * spacing_mm[0] * spacing_mm[1] >= smallest_mm2
    found = centroids[1:][large][:, ::-1]
    return np.asarray(found[np.argsort(found[:, 0])], dtype=np.float64)

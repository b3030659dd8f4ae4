"""One and the same mask as an export of MD.ai, DICOM SEG, NIfTI and MetaImage is one and the same annotation.

The formats can say different things of a slice without a mask: MD.ai and DICOM SEG speak of the slices that they name,
a volume of all or, as here, of those on which it has something; so every structure's slices have some of its kind on
them. DICOM SEG as this project writes it has no levels: here each level is a segment.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from annotated_exams import (
    EXAM,
    MUSCLES,
    SERIES,
    STUDY,
    Labels,
    Place,
    drawn,
    make_place,
    masked,
    write_mdai,
    write_meta,
    write_nifti,
    write_table,
)
from click.testing import CliRunner
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from cohort.annotations.store import LEVEL_NAMES, Annotation, read_annotation
from cohort.stacks import Plane
from pipelines.cli import main

SAGITTAL, AXIAL = (2, 3, 4), (1, 3)
"""Slices that the reader looked at."""
REQUIRED = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime",
            "AccessionNumber", "ReferringPhysicianName")  # fmt: skip
"""What highdicom copies of the images and their headers here lack."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return make_place(tmp_path_factory.mktemp("annotated"))


def structures(place: Place, plane: Plane) -> dict[str, Labels]:
    """Label as people write it -> [slice, row, column], not 0 where it was drawn."""
    if plane == "sagittal":
        return {name: masked(mask, SAGITTAL) for name, mask in place.levels.items()}
    muscle = masked(place.axial.labels["muscle"], AXIAL)
    return {name: (muscle == value).astype(np.uint8) for value, name in MUSCLES.items()}


def as_mdai(place: Place, folder: Path) -> list[str]:
    return [str(write_mdai(folder / "export.json", list(drawn(place, SAGITTAL, AXIAL)))), "--format", "mdai"]


def as_seg(place: Place, folder: Path) -> list[str]:
    """One object for each plane, by highdicom alone, on the images of the archive in the order of their files."""
    for number, plane in enumerate(("sagittal", "axial"), start=1):
        files = [pydicom.dcmread(path) for path in sorted((place.config.parent / "archive").glob("*.dcm"))]
        images = [one for one in files if one.SeriesInstanceUID == SERIES[plane]]
        for one in images:
            for name in REQUIRED:
                setattr(one, name, "")
        order = [int(one.SOPInstanceUID.rsplit(".", 1)[1]) - 1 for one in images]
        named = structures(place, plane)
        segmentation = hd.seg.Segmentation(
            images, np.stack([mask[order] > 0 for mask in named.values()], axis=-1), "BINARY",
            [
                hd.seg.SegmentDescription(k, name, codes.SCT.AnatomicalStructure, codes.SCT.Spine, "MANUAL")
                for k, name in enumerate(named, start=1)
            ],
            generate_uid(), number, generate_uid(), 1, "tests", "tests", "1", "1",
        )  # fmt: skip
        segmentation.save_as(folder / f"{plane}.dcm")
    return [str(folder), "--format", "dicom-seg"]


def as_volumes(place: Place, folder: Path, suffix: str) -> list[str]:
    """A volume for each plane, whose values a class table explains."""
    write = write_nifti if suffix == ".nii.gz" else write_meta
    spine = np.zeros(place.sagittal.stack.image.shape, np.uint8)
    for name, mask in structures(place, "sagittal").items():
        spine[mask > 0] = 1 + LEVEL_NAMES.index(name)
    write(folder / f"spine{suffix}", spine, place.sagittal.stack.geometry)
    write(folder / f"muscle{suffix}", masked(place.axial.labels["muscle"], AXIAL), place.axial.stack.geometry)
    lines = ({"file": f"spine{suffix}", "exam": STUDY}, {"file": f"muscle{suffix}", "exam": STUDY, "array": "muscle"})
    table = write_table(folder / "masks.csv", *lines)
    kind = {".nii.gz": "nifti", ".mha": "mha"}[suffix]
    return [str(folder), "--format", kind, "--table", str(table), "--classes", str(_classes(folder))]


def _classes(folder: Path) -> Path:
    texts = []
    for number, name in enumerate(LEVEL_NAMES, start=1):
        structure = "disc" if "-" in name else "sacrum" if name == "S1" else "vertebral_body"
        texts.append(f'[labels.{number}]\nstructure = "{structure}"\nlevel = "{name}"\n')
    path = folder / "classes.toml"
    path.write_text("\n".join(texts))
    return path


def as_nifti(place: Place, folder: Path) -> list[str]:
    return as_volumes(place, folder, ".nii.gz")


def as_mha(place: Place, folder: Path) -> list[str]:
    return as_volumes(place, folder, ".mha")


def imported(place: Place, reader: str, words: list[str]) -> Annotation:
    """What the command makes of it: without any doubt, and read back from the store."""
    source, *options = words
    command = ["annotations", "import", source, str(place.store), *options, "--reader", reader, "--json"]
    result = CliRunner().invoke(main, [*command, "--config", str(place.config)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["details"] == []
    return read_annotation(place.store, place.exam, EXAM, reader)


def truth(place: Place) -> Annotation:
    """The annotation that every tool has to give."""
    body, disc, muscle = ("sagittal", 0, "vertebral_body"), ("sagittal", 0, "disc"), ("axial", 0, "muscle")
    levels = {key: np.zeros(place.sagittal.stack.image.shape, np.uint8) for key in (body, disc)}
    for name, mask in structures(place, "sagittal").items():
        levels[disc if "-" in name else body][mask > 0] = 1 + LEVEL_NAMES.index(name)
    labelled = [
        replace(one, labels={name: masked(mask, slices) for name, mask in one.labels.items()})
        for one, slices in ((place.sagittal, SAGITTAL), (place.axial, AXIAL))
    ]
    return Annotation(EXAM, "reader", None, "any", labelled, {body: SAGITTAL, disc: SAGITTAL, muscle: AXIAL}, levels)


@pytest.mark.parametrize(
    ("tool", "write"), [("md.ai", as_mdai), ("dicom-seg", as_seg), ("nifti", as_nifti), ("mha", as_mha)]
)
def test_a_mask_is_the_same_annotation_whatever_tool_it_comes_from(
    place: Place, tmp_path: Path, tool: str, write: Callable[[Place, Path], list[str]]
) -> None:
    found, wanted = imported(place, "reader", write(place, tmp_path)), truth(place)
    assert found.tool == tool
    mine, theirs = (
        {(one.stack.plane, name): mask for one in annotation.labelled for name, mask in one.labels.items()}
        for annotation in (found, wanted)
    )
    assert mine.keys() == theirs.keys()
    assert [key for key in theirs if not np.array_equal(mine[key], theirs[key])] == []
    assert found.slices == wanted.slices
    assert found.levels.keys() == wanted.levels.keys()
    assert [key for key in wanted.levels if not np.array_equal(found.levels[key], wanted.levels[key])] == []
    assert replace(found, tool="any", drawn_at=None).content_sha256 == wanted.content_sha256

"""A store of one exam with masks of exactly known shape, and what drawing tools would export of them."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import anatomy_shapes as shapes
import cv2
import nibabel
import numpy as np
import numpy.typing as npt
from dicom_exams import write_slice
from scanned_files import PSEUDONYMS

from cohort.annotations.placement import RAS_TO_LPS
from cohort.archive.listing import list_files
from cohort.archive.scan import read_file_rows
from cohort.archive.source import FileSource
from cohort.geometry import StackGeometry
from cohort.rows import ExamRow
from cohort.stacks import LabelledStack
from cohort.store.exam import StoredExam, read_exam
from cohort.tables.buckets import create_tables
from cohort.tables.commit import commit
from pipelines.convert import ConvertTask, convert, image_sources
from pipelines.exams import group_exams
from pipelines.outcome import WorkItem

STUDY = "1.2.826.0.1.3680043.8.498.77"
SERIES = {"sagittal": f"{STUDY}.1", "axial": f"{STUDY}.2", "t2": f"{STUDY}.3"}
EXAM = PSEUDONYMS.exam_id(STUDY)
MUSCLES = {1: "MF left", 2: "MF right", 3: "ES left", 4: "ES right", 5: "Psoas L", 6: "Psoas R", 7: "QL L", 8: "QL R"}
Labels = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Place:
    """A store, the configuration that has its key, and the truth."""

    store: Path
    config: Path
    exam: StoredExam
    sagittal: LabelledStack
    axial: LabelledStack
    levels: dict[str, Labels]
    """Name of a body or disc -> [slice, row, column] mask."""


def make_place(folder: Path) -> Place:
    """Write DICOM files, scan and convert them, and fill the tables."""
    archive, store = folder / "archive", folder / "store"
    sagittal, axial, levels = truth()
    write_archive(archive, sagittal, axial)
    config = write_config(folder)
    files = {PSEUDONYMS.file_id(relative): FileSource(relative) for relative, _, _ in list_files(archive)}
    rows = [row for listed in list_files(archive) for row in read_file_rows(archive, *listed, PSEUDONYMS)]
    (found,) = group_exams(rows, None)
    images = [image_sources(of_plane, lambda row: files[row.file_id]) for of_plane in (found.sagittal, found.axial)]
    task = ConvertTask(store, archive, folder / "pseudonym.key", *images, {})
    converted = convert(WorkItem(found.exam_id, "convert", "ab" * 32, task))
    sagittal_id, axial_id = (PSEUDONYMS.series_id(SERIES[plane]) for plane in ("sagittal", "axial"))
    exam_row = ExamRow(
        exam_id=found.exam_id, subject_id=found.subject_id, status="ok", store_path=converted.path,
        sagittal_series_id=sagittal_id, axial_series_id=axial_id,
    )  # fmt: skip
    create_tables(store)
    commit(store, "run", {"exams": [exam_row], "files": rows}, touched={})
    return Place(store, config, read_exam(store / str(converted.path)), sagittal, axial, levels)


def truth() -> tuple[LabelledStack, LabelledStack, dict[str, Labels]]:
    """Masks of a spine from T11 to S1 and of muscles."""
    grid = shapes.sagittal_geometry(n=7, spacing=(0.9, 0.8), shape=(400, 240), gap_mm=6.0)
    blocks = shapes.spine(s2=False)
    sagittal = shapes.sagittal_stack(blocks, grid)
    levels = {}
    for name, block in blocks.items():
        levels[name] = np.zeros((7, 400, 240), np.uint8)
        shapes.draw(block, grid, levels[name], 1)
    axial = shapes.muscle_stack(shapes.axial_geometry(n=8, spacing=1.2, size=160, gap_mm=8.0))
    return sagittal, axial, levels


def write_archive(archive: Path, sagittal: LabelledStack, axial: LabelledStack) -> None:
    random = np.random.default_rng(1)
    bright = {
        "sagittal": 600 + 900 * (sagittal.labels["vertebral_body"] > 0) - 300 * (sagittal.labels["disc"] > 0),
        "axial": 1500 - 900 * (axial.labels["muscle"] > 0),
    }
    bright["t2"] = bright["sagittal"]
    for name, picture in bright.items():
        grid = (axial if name == "axial" else sagittal).stack.geometry
        contrast = {"RepetitionTime": "3500", "EchoTime": "100"} if name == "t2" else {}
        for k in random.permutation(grid.n_slices).tolist():
            noisy = picture[k] + random.normal(0, 30, picture[k].shape)
            write_slice(
                archive / f"{random.integers(10**9)}.dcm", noisy.astype(np.uint16), series=SERIES[name],
                position=grid.position_mm[k], orientation=(*grid.row_dir, *grid.col_dir), spacing=grid.spacing_mm,
                thickness=grid.thickness_mm, SOPInstanceUID=instance(name, k), StudyInstanceUID=STUDY, **contrast,
            )  # fmt: skip


def write_config(folder: Path) -> Path:
    key = folder / "pseudonym.key"
    key.write_bytes(bytes(range(32)))
    key.chmod(0o600)
    config = folder / "cohort.toml"
    config.write_text(f'[privacy]\nkey_file = "{key}"\n')
    return config


def instance(series: str, k: int) -> str:
    """SOPInstanceUID of a slice."""
    return f"{SERIES[series]}.{k + 1}"


# -- what tools write --------------------------------------------------------------------------------------------------


def outlines(mask: npt.NDArray[Any]) -> dict[str, list[Any]]:
    """Foreground and background outlines as MD.ai keeps a mask: through the outermost pixels' centres."""
    found, tree = cv2.findContours(mask.astype(np.uint8), cv2.RETR_TREE, cv2.CHAIN_APPROX_NONE)
    data: dict[str, list[Any]] = {"foreground": [], "background": []}
    for k, outline in enumerate(found):
        depth, parent = 0, tree[0][k][3]
        while parent != -1:
            depth, parent = depth + 1, tree[0][parent][3]
        data["background" if depth % 2 else "foreground"].append(outline.reshape(-1, 2).tolist())
    return data


def entry(label: str, series: str, k: int, data: Any, *, reader: str = "U_a", at: str = "2024-05-06") -> dict[str, Any]:
    """One annotation of an export; the label's name stands for its id."""
    return {
        "id": f"A_{label}_{k}_{crc32(repr(data).encode())}", "labelId": f"L_{label}",
        "StudyInstanceUID": STUDY, "SeriesInstanceUID": SERIES[series],
        "SOPInstanceUID": instance(series, k), "frameNumber": None, "createdById": reader,
        "createdAt": "2024-01-01T00:00:00.000Z", "updatedAt": f"{at}T10:00:00.000Z", "data": data,
    }  # fmt: skip


def drawn(
    place: Place, slices: tuple[int, ...] = (2, 3, 4), axial: tuple[int, ...] = (1, 3)
) -> Iterator[dict[str, Any]]:
    """Everything on some slices, bodies and discs with their names."""
    for name, mask in place.levels.items():
        for k in slices:
            if mask[k].any():
                data = outlines(mask[k])
                yield entry(name, "sagittal", k, {"vertices": data["foreground"][0]} if k == 3 else data)
    for value, name in MUSCLES.items():
        for k in axial:
            yield entry(name, "axial", k, outlines(place.axial.labels["muscle"][k] == value))


def write_mdai(path: Path, entries: list[dict[str, Any]]) -> Path:
    """An export as MD.ai writes it."""
    names = sorted({one["labelId"].removeprefix("L_") for one in entries})
    labels = [
        {
            "id": f"L_{name}",
            "name": name,
            "scope": "INSTANCE",
            "annotationMode": "mask",
            "type": "local",
            "color": "#fff",
        }
        for name in names
    ]
    content = {
        "labelGroups": [{"id": "G_1", "name": "Spine", "labels": labels}],
        "datasets": [
            {"id": "D_1", "name": "one", "studies": [{"StudyInstanceUID": STUDY, "number": 1}], "annotations": entries}
        ],
    }
    path.write_text(json.dumps(content))
    return path


def write_nifti(path: Path, volume: npt.NDArray[Any], grid: StackGeometry, affine: Any = None) -> Path:
    """[slice, row, column] as NIfTI with x first, as dcm2niix orders axes."""
    lps = (grid.affine if affine is None else affine)[:, [2, 1, 0, 3]]
    nibabel.save(nibabel.Nifti1Image(volume.transpose(2, 1, 0), RAS_TO_LPS @ lps), path)
    return path


def write_meta(path: Path, volume: npt.NDArray[np.uint8], grid: StackGeometry) -> Path:
    """[slice, row, column] as MetaImage."""
    affine = grid.affine[:, [2, 1, 0, 3]]
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    matrix = " ".join(f"{value:.9g}" for value in (affine[:3, :3] / spacing).T.ravel())
    header = (
        f"ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = False\n"
        f"TransformMatrix = {matrix}\nOffset = {' '.join(f'{value:.9g}' for value in affine[:3, 3])}\n"
        f"ElementSpacing = {' '.join(f'{value:.9g}' for value in spacing)}\n"
        f"DimSize = {' '.join(map(str, volume.shape[::-1]))}\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
    )
    path.write_bytes(header.encode() + volume.tobytes())
    return path


def write_table(path: Path, *lines: dict[str, str]) -> Path:
    """The table that goes with mask files."""
    names = sorted({name for line in lines for name in line})
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, names)
        writer.writeheader()
        writer.writerows(lines)
    return path


def masked(volume: Labels, slices: tuple[int, ...]) -> Labels:
    """Only some slices of a volume."""
    out = np.zeros_like(volume)
    out[list(slices)] = volume[list(slices)]
    return out

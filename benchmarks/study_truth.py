"""The statistics of a study made here against their known truth, without networks and without DICOM.

python benchmarks/study_truth.py [--exams 60] [--processes 2] [--json] [--markdown]

Exams and readers are those of `cohort study example`. Their masks go into a store directly, as `cohort annotations
import` would write them, on images that are grey throughout; what is measured on grey images, fat and with it loads,
counts for nothing here.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from rich.console import Console

from cohort.annotations.store import LEVEL_NAMES, Annotation, Masked, write_annotation
from cohort.archive.pseudonym import KEY_BYTES, Pseudonyms
from cohort.processes import process_pool
from cohort.rows import ExamRow
from cohort.stacks import ImageStack, LabelledStack, Labels, Plane
from cohort.store.exam import write_exam
from cohort.store.layout import exam_store_path
from cohort.tables.commit import commit
from cohort.terms import DISC, SACRAL_BODY, VERTEBRAL_BODY
from models.phantom.dicom import study_uid
from models.phantom.exam import ExamPlan, PhantomExam, make_exam
from models.phantom.reader_truth import KnownTruth, ReaderTruth
from models.phantom.readers import Drawing, draw
from pipelines.agreement import agree, write_agreement
from pipelines.study.example import READERS, plan, write_truth
from pipelines.study.example_truth import HEADER, TABLE_WIDTH, TruthRow, cells, compare_with_truth, summary, truth_table

PSEUDONYMS = Pseudonyms(bytes(KEY_BYTES))
GREY = 100


def run(folder: Path, n_exams: int, processes: int) -> list[TruthRow]:
    """Make so many exams below a folder, compare the readers, and the comparison with the truth."""
    store, plans = folder / "store", [plan(k) for k in range(n_exams)]
    known = KnownTruth()
    rows = []
    for row, of_exam in made(store, plans, processes):
        rows.append(row)
        known.extend(of_exam)
    commit(store, "20260101T000000-truth0", {"exams": rows}, touched={})
    write_truth(folder, known)
    first, second = (reader.code for reader in READERS)
    found = agree(
        store, first=first, second=second, config=None, test_part=None, processes=processes, report=lambda _: None
    )
    write_agreement(folder / "agreement", found.rows)
    return compare_with_truth(folder, folder / "agreement", PSEUDONYMS.exam_id)


def made(store: Path, plans: Sequence[ExamPlan], processes: int) -> Iterator[tuple[ExamRow, KnownTruth]]:
    """`make` of each exam, several at a time."""
    if processes == 1:
        yield from map(make, [store] * len(plans), plans)
        return
    with process_pool(processes) as executor:
        yield from executor.map(make, [store] * len(plans), plans)


def make(store: Path, of_exam: ExamPlan) -> tuple[ExamRow, KnownTruth]:
    """Write the stacks of an exam and what both readers drew; its row, and what is true."""
    exam, exam_id = make_exam(of_exam), PSEUDONYMS.exam_id(study_uid(of_exam.seed))
    path = exam_store_path(store, exam_id, "0" * 64)
    stacks = [_grey(exam, "sagittal", 0), *(_grey(exam, "axial", k) for k in range(len(exam.axial)))]
    write_exam(path, stacks, {"exam_id": exam_id})
    drawings, truth = [[], []], ReaderTruth(exam)
    for pair in draw(exam, READERS):
        truth.add(*pair)
        for own, one in zip(drawings, pair, strict=True):
            own.append((one.section.plane, one.section.stack, one.section.array, one.section.slice, _labels(one)))
    for reader, own in zip(READERS, drawings, strict=True):
        write_annotation(store, annotation(exam_id, reader.code, stacks, own))
    row = ExamRow(exam_id=exam_id, subject_id=PSEUDONYMS.subject_id(f"PID-{of_exam.seed}"), status="ok",
                  store_path=str(path.relative_to(store)))  # fmt: skip
    return row, truth.known


def _grey(exam: PhantomExam, plane: Plane, index: int) -> ImageStack:
    grid = exam.sagittal if plane == "sagittal" else exam.axial[index]
    return ImageStack(plane, index, np.full((grid.n_slices, *grid.shape), GREY, np.uint16), grid, "phantom")


def _labels(drawing: Drawing) -> tuple[Labels, Labels]:
    """[row, column] values of `cohort.terms`, and names as in `Annotation.levels`."""
    section = drawing.section
    if section.array == "muscle":
        return drawing.pixels, np.zeros_like(drawing.pixels)
    kinds = (
        [DISC] * len(section.names)
        if section.array == "disc"
        else [SACRAL_BODY if name.startswith("S") else VERTEBRAL_BODY for name in section.names]
    )
    names = [LEVEL_NAMES.index(name) + 1 if name in LEVEL_NAMES else 0 for name in section.names]
    return np.array([0, *kinds], np.uint8)[drawing.pixels], np.array([0, *names], np.uint8)[drawing.pixels]


Sheet = tuple[Plane, int, str, int, tuple[Labels, Labels]]
"""Plane, stack, label array, slice; values and names."""


def annotation(exam_id: str, reader: str, stacks: Iterable[ImageStack], sheets: Iterable[Sheet]) -> Annotation:
    """What a reader drew; a slice without any structure of an array is unknown."""
    labelled = {(one.plane, one.index): LabelledStack(one, {}, {}) for one in stacks}
    slices: dict[Masked, tuple[int, ...]] = {}
    levels: dict[Masked, Labels] = {}
    for plane, index, array, k, (values, names) in sheets:
        if not values.any():
            continue
        key, shape = (plane, index, array), labelled[plane, index].stack.image.shape
        labels = labelled[plane, index].labels
        labels.setdefault(array, np.zeros(shape, np.uint8))[k] = values
        if array != "muscle":
            levels.setdefault(key, np.zeros(shape, np.uint8))[k] = names
        slices[key] = (*slices.get(key, ()), k)
    return Annotation(
        exam_id, reader, None, "phantom", [one for one in labelled.values() if one.labels], slices, levels
    )


def main() -> None:
    """Print a table, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exams", type=int, default=60)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = run(Path(folder), options.exams, options.processes)
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
    elif options.markdown:
        print_markdown(rows)
    else:
        Console(width=TABLE_WIDTH).print(truth_table(rows))
        print(summary(rows))


def print_markdown(rows: Sequence[TruthRow]) -> None:
    """The table as Markdown."""
    print(f"| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}")
    for row in rows:
        if row.truth is not None:
            print(f"| {' | '.join(cells(row))} |")
    print(f"\n{summary(rows)}")


if __name__ == "__main__":
    main()

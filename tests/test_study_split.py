"""Splits: everybody in one part, shares and strata kept, copies found, and reasons where there is no split."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from annotated_stores import annotation, exam_of, exam_row, file_row, spine, subject_of, trunk, write_annotated_store
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.annotations.store import write_annotation
from cohort.errors import ConfigurationError
from cohort.geometry import StackGeometry
from cohort.reasons import REASONS
from cohort.stacks import ImageStack
from cohort.store.exam import write_exam
from cohort.store.layout import exam_store_path
from cohort.tables.commit import commit
from pipelines.cli import main
from pipelines.study.annotated_exams import study_exams
from pipelines.study.split import (
    NETWORKS,
    PARTS,
    SHARES,
    SplitRow,
    StudyExam,
    read_split,
    split_digest,
    split_shared,
    split_standard,
    write_splits,
)

ALL = dict.fromkeys(NETWORKS, 6)


def _exams(n: int, **known: object) -> list[StudyExam]:
    return [
        StudyExam(exam_id=f"exam{k:03}", subject_id=f"subject{k:03}", slices=ALL, **known)  # type: ignore[arg-type]
        for k in range(n)
    ]


def _codes(rows: list[SplitRow]) -> set[str]:
    return {code for row in rows if row.reason for code in row.reason.split("+")}


cohorts = st.lists(
    st.builds(
        StudyExam,
        exam_id=st.uuids().map(str),
        subject_id=st.integers(0, 25).map("s{}".format),
        sex=st.sampled_from(["F", "M", None]),
        vendor=st.sampled_from(["siemens", "ge"]),
        slices=st.dictionaries(st.sampled_from(NETWORKS), st.integers(1, 9)),
        images=st.frozensets(st.integers(0, 60).map("slice {}".format), max_size=1),
    ),
    max_size=60,
)


@given(cohorts, st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_everybody_is_in_one_part_with_all_that_equals_him_and_the_same_each_time(
    exams: list[StudyExam], seed: int
) -> None:
    rows = split_standard(exams, seed)
    assert split_standard(exams[::-1], seed) == rows
    assert Counter((row.network, row.exam_id) for row in rows) == Counter(
        (network, exam.exam_id) for network in NETWORKS for exam in exams
    )
    image = {exam.exam_id: exam.images for exam in exams}
    for network in NETWORKS:
        marks = defaultdict(set)
        for row in rows:
            if row.network == network and row.part:
                for mark in (row.subject_id, *image[row.exam_id]):
                    marks[mark].add(row.part)
        assert all(len(parts) == 1 for parts in marks.values())
    drawn = {(network, exam.exam_id) for exam in exams for network in exam.slices}
    for row in rows:
        assert row.part is None or (row.network, row.exam_id) in drawn
        assert row.part is not None or row.reason
    assert _codes(rows) <= REASONS.keys()


@given(st.lists(st.sampled_from(["F", "M"]), min_size=3, max_size=120), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_parts_and_strata_have_their_shares(sexes: list[str], seed: int) -> None:
    exams = [replace(exam, sex=sex) for exam, sex in zip(_exams(len(sexes)), sexes, strict=True)]
    rows = [row for row in split_standard(exams, seed) if row.network == "disc"]
    counts = Counter(row.part for row in rows)
    assert all(counts[part] >= 1 for part in PARTS)
    if len(exams) >= 5:
        assert all(abs(counts[part] - SHARES[part] * len(exams)) < 1 for part in PARTS)
    for sex, n in Counter(sexes).items():
        in_stratum = Counter(row.part for row in rows if row.stratum == f"{sex} unknown")
        assert all(abs(in_stratum[part] - counts[part] * n / len(exams)) < 2 for part in PARTS)


def test_another_seed_is_another_split() -> None:
    digests = {split_digest(split_standard(_exams(40), seed)) for seed in range(5)}
    assert len(digests) == 5


def test_a_shared_test_part_is_the_same_patients_for_all_networks() -> None:
    exams = [
        *_exams(20),
        *(
            StudyExam(exam_id=f"only{k}", subject_id=f"only{k}", slices={"disc": 3})  # never held out
            for k in range(10)
        ),
        StudyExam(exam_id="second", subject_id="subject003", slices={"muscle": 2}),
    ]
    rows = split_shared(exams, 1, 6)
    held = {network: {row.subject_id for row in rows if row.network == network and row.part == "test"}
            for network in NETWORKS}  # fmt: skip
    assert held["disc"] == held["muscle"] == held["vertebral_body"]
    assert len(held["disc"]) == 6
    assert not any(subject.startswith("only") for subject in held["disc"])
    discs = Counter(row.part for row in rows if row.network == "disc")
    assert (discs["training"], discs["validation"]) == (20, 4)
    with pytest.raises(ConfigurationError, match="--holdout 21: 20 patients have an exam with all annotations"):
        split_shared(exams, 1, 21)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_fewer_patients_than_parts_are_in_none_for_a_reason(n: int) -> None:
    rows = split_standard(_exams(n), 0)
    assert [row.part for row in rows] == [None] * 3 * n
    assert _codes(rows) == ({"too_few_patients", "rare_stratum"} if n else set())


def test_a_patient_alone_in_a_stratum_and_an_exam_of_one_slice_are_used_and_remarked() -> None:
    exams = _exams(10, sex="F", vendor="ge")
    exams[0] = replace(exams[0], sex="M", slices={"disc": 1})
    rows = {(row.network, row.exam_id): row for row in split_standard(exams, 0)}
    alone = rows["disc", "exam000"]
    assert alone.part is not None
    assert alone.reason == "one_slice+rare_stratum"
    assert rows["muscle", "exam000"].reason == "not_annotated"
    assert rows["disc", "exam001"].reason is None


def test_a_file_is_read_back_as_it_was_and_one_that_leaks_is_refused(tmp_path: Path) -> None:
    path, exams = tmp_path / "study" / "splits.csv", _exams(12)
    rows = split_standard(exams, 3) + split_shared(exams, 3, 2)
    write_splits(path, rows)
    for kind in ("standard", "shared"):
        for network in NETWORKS:
            assert read_split(path, kind, network) == [r for r in rows if (r.split, r.network) == (kind, network)]
    first = path.read_bytes()
    write_splits(path, split_standard(exams, 3) + split_shared(exams, 3, 2))
    assert path.read_bytes() == first
    moved = replace(rows[0], exam_id="another", part=next(part for part in PARTS if part != rows[0].part))
    write_splits(path, [*rows, moved])
    with pytest.raises(ConfigurationError, match="1 patients in more than one part of vertebral_body"):
        read_split(path, "standard", "vertebral_body")
    write_splits(path, [*rows, rows[0]])
    with pytest.raises(ConfigurationError, match="an exam twice"):
        read_split(path, "standard", "vertebral_body")
    write_splits(path, rows[:3])
    with pytest.raises(ConfigurationError, match="no shared split of disc"):
        read_split(path, "shared", "disc")
    path.write_text("exam_id,part\na,training\n")
    with pytest.raises(ConfigurationError, match="no file of `cohort study split`"):
        read_split(path, "standard", "disc")


def _turned(stack: ImageStack) -> ImageStack:
    """The same slices with rows and columns exchanged, as another software may store them."""
    g = stack.geometry
    geometry = StackGeometry(g.position_mm, g.col_dir, g.row_dir, g.spacing_mm[::-1], g.shape[::-1], g.thickness_mm)
    return replace(stack, image=np.ascontiguousarray(stack.image.transpose(0, 2, 1)), geometry=geometry)


def test_copies_under_another_name_are_found_by_pixels_and_by_files(tmp_path: Path) -> None:
    write_annotated_store(tmp_path, 8)
    copied, _ = spine(1)
    path = exam_store_path(tmp_path, exam_of(8), "0" * 64)
    other = _turned(copied)
    write_exam(path, [other], {})
    disc = np.ascontiguousarray(spine(1)[1]["disc"].transpose(0, 2, 1))
    write_annotation(tmp_path, annotation(exam_of(8), [(other, {"disc": disc})]))
    files = [file_row(2, "f" * 64), file_row(5, "f" * 64), file_row(6, "e" * 64)]
    commit(tmp_path, "run2", {"exams": [exam_row(8, str(path.relative_to(tmp_path)))], "files": files}, touched={})
    rows = split_standard(study_exams(tmp_path, lambda _: None), 0)
    found = {row.exam_id: row for row in rows if row.network == "disc"}
    for one, another in ((1, 8), (2, 5)):
        assert found[exam_of(one)].part == found[exam_of(another)].part is not None
    same = {row.exam_id for row in found.values() if "same_images" in (row.reason or "")}
    assert same == {exam_of(k) for k in (1, 2, 5, 8)}


def test_exams_that_cannot_be_used_say_why(tmp_path: Path) -> None:
    write_annotated_store(tmp_path, 6)
    write_annotation(tmp_path, annotation(exam_of(6), [spine(6)]))  # no row in the tables
    commit(tmp_path, "run2", {"exams": [exam_row(0, None)]}, touched={})
    moved, _ = trunk(77)
    path = exam_store_path(tmp_path, exam_of(1), "1" * 64)
    far = replace(moved.geometry, position_mm=moved.geometry.position_mm + 30.0)
    write_exam(path, [replace(moved, geometry=far)], {})
    commit(tmp_path, "run3", {"exams": [exam_row(1, str(path.relative_to(tmp_path)))]}, touched={})
    exams = {exam.exam_id: exam for exam in study_exams(tmp_path, lambda _: None)}
    assert {exam_id: exam.reason for exam_id, exam in exams.items() if exam.reason} == {
        exam_of(0): "no_exam_store",
        exam_of(1): "annotation_misfit",
        exam_of(6): "no_exam_store",
    }
    rows = split_standard(list(exams.values()), 0)
    assert {row.subject_id for row in rows if row.part} == {subject_of(k) for k in range(2, 6)}


def test_the_command_writes_both_splits_and_says_what_is_in_them(tmp_path: Path) -> None:
    store = tmp_path / "store"
    write_annotated_store(store, 10)
    arguments = ["study", "split", str(store), "-o", str(tmp_path / "study"), "--holdout", "2", "--seed", "4"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "standard disc: rare_stratum 4" in result.output
    assert max(map(len, result.output.splitlines())) <= 100
    with (tmp_path / "study" / "splits.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert Counter((row["split"], row["network"]) for row in rows) == {
        (kind, network): 10 for kind in ("standard", "shared") for network in NETWORKS
    }
    assert {row["seed"] for row in rows} == {"4"}
    assert Counter(row["part"] for row in rows if (row["split"], row["network"]) == ("shared", "muscle")) == {
        "training": 7,
        "validation": 1,
        "test": 2,
    }
    before = (tmp_path / "study" / "splits.csv").read_bytes()
    assert CliRunner().invoke(main, arguments).exit_code == 0
    for other in ([*arguments[:-1], "5"], arguments[:-4]):
        refused = CliRunner().invoke(main, other)
        assert refused.exit_code == 2
        assert "of another seed or hold-out set, or of other annotated exams" in " ".join(refused.output.split())
    assert (tmp_path / "study" / "splits.csv").read_bytes() == before
    empty = CliRunner().invoke(main, ["study", "split", str(tmp_path), "-o", str(tmp_path / "none")])
    assert empty.exit_code == 2
    assert "no exam of this store is annotated" in empty.output
    assert not (tmp_path / "none").exists()
    arguments[-3] = "11"
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "10 patients have an exam with all annotations" in result.output

"""Splits of annotated exams into training, validation and test, by patient, the same for the same seed.

`standard`: each network by itself, about 75, 15 and 10 % of its patients. `shared`: the test part is a number of
patients with an exam on which all three structures are annotated, the same for the three networks; the others are
divided as 75 to 15. Patients of a stratum (sex and vendor) are dealt out in turn, so that each part has about its share
of every stratum. Patients whose exams hold an equal image are taken for one: they are copies, or the wrong name is on
one of them.
"""

from __future__ import annotations

import csv
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, get_args

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cohort.errors import ConfigurationError
from cohort.store.publish import replacing
from models.training.annotated import Part

Network = Literal["vertebral_body", "disc", "muscle"]
Kind = Literal["standard", "shared"]
NETWORKS: Final[tuple[Network, ...]] = get_args(Network)
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
PARTS: Final[tuple[Part, ...]] = get_args(Part)
SHARES: Final[Mapping[Part, float]] = {"training": 0.75, "validation": 0.15, "test": 0.10}
"""Of the patients; about those of Hess et al. 2023, from memory: the paper's own numbers were not looked up."""


@dataclass(frozen=True, kw_only=True)
class StudyExam:
    """An annotated exam, and all that its place in a split depends on."""

    exam_id: str
    subject_id: str
    sex: str | None = None
    vendor: str | None = None
    slices: Mapping[str, int] = field(default_factory=dict)
    """Network -> slices that readers drew on; those without any are left out."""
    images: frozenset[str] = frozenset()
    """Digests of its files and slices: two exams with a common one are copies."""
    reason: str | None = None
    """Why it cannot be used; None where it can."""


@dataclass(frozen=True, kw_only=True)
class SplitRow:
    """Where one exam is in one network's split; the columns of splits.csv."""

    split: Kind
    seed: int
    network: Network
    part: Part | None
    """None where the exam is in no part, for a reason."""
    exam_id: str
    subject_id: str
    stratum: str
    reason: str | None = None
    """Codes joined by '+'; beside a part they are remarks."""


@dataclass(frozen=True)
class _Person:
    """Exams that must stay together."""

    key: str
    exams: tuple[StudyExam, ...]
    stratum: str

    def has(self, network: Network) -> bool:
        return any(network in exam.slices for exam in self.exams)

    @property
    def is_complete(self) -> bool:
        """Whether an exam of this person has all annotations."""
        return any(set(NETWORKS) <= exam.slices.keys() for exam in self.exams)

    @property
    def is_several(self) -> bool:
        return len({exam.subject_id for exam in self.exams}) > 1


P = TypeVar("P", bound=str)
Parts = Mapping[str, Part | None]
"""Key of a person -> part."""


def split_standard(exams: Sequence[StudyExam], seed: int) -> list[SplitRow]:
    """Each network's patients by themselves; rows for every exam and network, those in no part with a reason."""
    people = _people(exams)
    rows: list[SplitRow] = []
    for network in NETWORKS:
        own = [person for person in people if person.has(network)]
        rows += _rows("standard", seed, network, people, _deal(own, SHARES, f"{seed} standard {network}"))
    return rows + _unusable("standard", seed, exams)


def split_shared(exams: Sequence[StudyExam], seed: int, holdout: int) -> list[SplitRow]:
    """A test part of `holdout` patients that is the same for all networks; rows as of `split_standard`.

    Raises
    ------
    ConfigurationError
        if fewer patients have an exam with all annotations
    """
    people = _people(exams)
    complete = [person for person in people if person.is_complete]
    if holdout > len(complete):
        raise ConfigurationError(
            f"--holdout {holdout}: {len(complete)} patients have an exam with all annotations (of "
            f"{len(people)} annotated patients); hold out fewer"
        )
    held = _spread(complete, {"test": holdout, "rest": len(complete) - holdout}, f"{seed} shared")
    test: dict[str, Part | None] = {key: "test" for key, part in held.items() if part == "test"}
    shares: Mapping[Part, float] = {part: SHARES[part] for part in PARTS if part != "test"}
    rows: list[SplitRow] = []
    for network in NETWORKS:
        others = [person for person in people if person.has(network) and person.key not in test]
        rows += _rows("shared", seed, network, people, {**test, **_deal(others, shares, f"{seed} shared {network}")})
    return rows + _unusable("shared", seed, exams)


# -- people ------------------------------------------------------------------------------------------------------------


def _people(exams: Iterable[StudyExam]) -> list[_Person]:
    """Usable exams by person: those with a subject, a file or a slice in common, however long the chain between."""
    usable = sorted((exam for exam in exams if exam.reason is None), key=lambda exam: exam.exam_id)
    marks = [{f"subject {exam.subject_id}", *exam.images} for exam in usable]
    number = {mark: k for k, mark in enumerate(sorted(set().union(*marks)))}
    pairs = [(k, len(usable) + number[mark]) for k, of_exam in enumerate(marks) for mark in of_exam]
    if not pairs:
        return []
    rows, columns = np.array(pairs).T
    n = len(usable) + len(number)
    _, labels = connected_components(coo_array((np.ones(len(rows)), (rows, columns)), shape=(n, n)), directed=False)
    together: dict[int, list[StudyExam]] = defaultdict(list)
    for exam, label in zip(usable, labels, strict=False):
        together[int(label)].append(exam)
    return [_person(group) for group in together.values()]


def _person(exams: Sequence[StudyExam]) -> _Person:
    key = min(exam.subject_id for exam in exams)
    return _Person(key, tuple(exams), f"{_most(exam.sex for exam in exams)} {_most(exam.vendor for exam in exams)}")


def _most(values: Iterable[str | None]) -> str:
    """The most frequent value that is known, the first of the alphabet among equals."""
    counts = Counter(value for value in values if value)
    return min(counts, key=lambda value: (-counts[value], value), default="unknown")


# -- dealing out -------------------------------------------------------------------------------------------------------


def _deal(people: Sequence[_Person], shares: Mapping[Part, float], salt: str) -> dict[str, Part | None]:
    """Person -> part by shares; to no part where there are fewer people than parts."""
    if len(people) < len(shares):
        return {person.key: None for person in people}
    return dict(_spread(people, _counts(len(people), shares), salt))


def _counts(n: int, shares: Mapping[Part, float]) -> dict[Part, int]:
    """Patients of each part: largest remainders, and at least one in each, taken from the largest."""
    total = sum(shares.values())
    exact = {part: n * share / total for part, share in shares.items()}
    counts = {part: int(value + 1e-9) for part, value in exact.items()}
    by_remainder = sorted(counts, key=lambda part: counts[part] - exact[part])
    for part in by_remainder[: n - sum(counts.values())]:
        counts[part] += 1
    for part in counts:
        if counts[part] == 0:
            counts[max(counts, key=lambda other: counts[other])] -= 1
            counts[part] = 1
    return counts


def _spread(people: Sequence[_Person], counts: Mapping[P, int], salt: str) -> dict[str, P]:
    """Person -> part, so that every stretch of the order, and so every stratum, has about each part's share.

    The order is that of strata and, within one, of a keyed hash: adding a remark to an exam moves nobody. Each place
    goes to the part that is furthest behind its share so far.
    """
    ordered = sorted(people, key=lambda person: (_hash(salt, person.stratum), _hash(salt, person.key)))
    given, found = dict.fromkeys(counts, 0), {}
    for place, person in enumerate(ordered, start=1):
        part = max(counts, key=lambda one: (place * counts[one] / len(ordered) - given[one], counts[one]))
        given[part] += 1
        found[person.key] = part
    return found


def _hash(salt: str, text: str) -> str:
    return hashlib.sha256(f"{salt}\x1f{text}".encode()).hexdigest()


# -- rows --------------------------------------------------------------------------------------------------------------


def _rows(kind: Kind, seed: int, network: Network, people: Sequence[_Person], parts: Parts) -> list[SplitRow]:
    counts = Counter(person.stratum for person in people if person.key in parts)
    rows = [
        _row(kind, seed, network, person, exam, parts.get(person.key), rare=counts[person.stratum] < len(PARTS))
        for person in people
        for exam in person.exams
    ]
    return sorted(rows, key=lambda row: (row.subject_id, row.exam_id))


def _row(
    kind: Kind, seed: int, network: Network, person: _Person, exam: StudyExam, part: Part | None, *, rare: bool
) -> SplitRow:
    n_slices = exam.slices.get(network, 0)
    found = {
        "not_annotated": n_slices == 0,
        "too_few_patients": n_slices > 0 and part is None,
        "same_images": person.is_several,
        "one_slice": n_slices == 1,
        "rare_stratum": n_slices > 0 and rare,
    }
    return SplitRow(
        split=kind,
        seed=seed,
        network=network,
        part=part if n_slices else None,
        exam_id=exam.exam_id,
        subject_id=exam.subject_id,
        stratum=person.stratum,
        reason="+".join(code for code, is_so in found.items() if is_so) or None,
    )


def _unusable(kind: Kind, seed: int, exams: Iterable[StudyExam]) -> list[SplitRow]:
    """A row for each network of each exam that cannot be used."""
    return [
        SplitRow(split=kind, seed=seed, network=network, part=None, exam_id=exam.exam_id, subject_id=exam.subject_id,
                 stratum="", reason=exam.reason)
        for network in NETWORKS
        for exam in sorted(exams, key=lambda exam: exam.exam_id)
        if exam.reason is not None
    ]  # fmt: skip


# -- the file ----------------------------------------------------------------------------------------------------------

COLUMNS: Final = tuple(one.name for one in fields(SplitRow))


def write_splits(path: Path, rows: Sequence[SplitRow]) -> None:
    """Write splits.csv as a whole; an empty cell is no part or no reason."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def read_split(path: Path, kind: Kind, network: Network) -> list[SplitRow]:
    """One network's rows of one split.

    Raises
    ------
    ConfigurationError
        if the file is missing or no such file, has no such split, an exam twice, or one patient in two parts
    """
    rows = [row for row in _read(path) if row.split == kind and row.network == network]
    if not rows:
        raise ConfigurationError(f"{path.name} has no {kind} split of {network}: `cohort study split` makes it")
    _require_apart(path, rows)
    return rows


def require_kept(path: Path, rows: Iterable[SplitRow]) -> None:
    """Refuse to write a split over one that says otherwise: networks may rest on it, and tell their patients by it.

    Raises
    ------
    ConfigurationError
        if the file is there and has other exams in a part, another seed or another split, or is no such file
    """
    if path.exists() and _places(_read(path)) != _places(rows):
        raise ConfigurationError(
            f"{path.name} is there already, of another seed or hold-out set, or of other annotated exams: a split is "
            "made once. Name another folder, or delete the file where no network rests on it"
        )


def _places(rows: Iterable[SplitRow]) -> set[tuple[str | int, ...]]:
    return {(row.split, row.seed, row.network, row.part, row.exam_id, row.subject_id) for row in rows if row.part}


def _read(path: Path) -> list[SplitRow]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return [_parsed(values) for values in csv.DictReader(file)]
    except OSError as error:
        raise ConfigurationError(f"split {path.name} cannot be read: {error.strerror}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(f"{path.name} is no file of `cohort study split`: columns are {COLUMNS}") from error


def _parsed(values: Mapping[str, Any]) -> SplitRow:
    row = SplitRow(**{**values, "seed": int(values["seed"]), "part": values["part"] or None,
                      "reason": values["reason"] or None})  # fmt: skip
    if row.part not in (*PARTS, None) or row.network not in NETWORKS or row.split not in KINDS:
        raise ValueError(row)
    return row


def _require_apart(path: Path, rows: Sequence[SplitRow]) -> None:
    parts: dict[str, set[Part]] = defaultdict(set)
    for row in rows:
        parts[row.subject_id] |= {row.part} if row.part else set()
    if twice := [subject for subject, found in parts.items() if len(found) > 1]:
        raise ConfigurationError(f"{path.name} has {len(twice)} patients in more than one part of {rows[0].network}")
    if len({row.exam_id for row in rows}) < len(rows):
        raise ConfigurationError(f"{path.name} has an exam twice in the {rows[0].split} split of {rows[0].network}")


def split_digest(rows: Iterable[SplitRow]) -> str:
    """sha256 of who is in which part: equal for equal splits."""
    text = "\n".join(sorted(f"{row.part} {row.exam_id} {row.subject_id}" for row in rows if row.part))
    return hashlib.sha256(text.encode()).hexdigest()

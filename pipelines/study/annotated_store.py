"""A store of annotated exams with its split, as a training reads it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from cohort.annotations.store import annotation_attributes, readers_of
from cohort.errors import ConfigurationError
from models.training.annotated import Annotated, Part
from models.training.config import TrainingConfig
from models.training.drawn import DrawnSlices, ExamSource, array_of, read_drawn
from pipelines.study.annotated_exams import exam_rows
from pipelines.study.split import Kind, Network, SplitRow, read_split, split_digest


@dataclass(frozen=True)
class AnnotatedStore:
    """A store, and a split of its annotated exams."""

    store: Path
    split: Path
    """splits.csv of `cohort study split`."""
    kind: Kind

    def divided(self, config: TrainingConfig) -> DividedExams:
        """Exams of the network that a configuration trains, by part; raises as `read_split` and `array_of` do."""
        network = cast(Network, array_of(config.classes))
        return DividedExams(self.store, tuple(read_split(self.split, self.kind, network)))


@dataclass(frozen=True)
class DividedExams:
    """One network's rows of one split."""

    store: Path
    rows: tuple[SplitRow, ...]

    def of(self, part: Part) -> list[SplitRow]:
        """Rows of a part."""
        return [row for row in self.rows if row.part == part]

    def require_unseen(self, seen: Mapping[str, Sequence[str]]) -> None:
        """Refuse to start from a network that has learned from patients of the test part, or was chosen by them.

        Parameters
        ----------
        seen : part -> patients, of the network that is started from
        """
        test = {row.subject_id for row in self.of("test")}
        if known := test.intersection(one for part in seen.values() for one in part):
            raise ConfigurationError(
                f"the network to start from has seen {len(known)} of {len(test)} patients of the test part: start from "
                "another one, or from scratch"
            )

    def cannot_train(self) -> str | None:
        """Why there is nothing to learn from, or nothing to be validated by; None where there is."""
        for part in ("training", "validation"):
            if not self.of(part):
                n = Counter(code for row in self.rows if row.reason for code in row.reason.split("+"))
                why = ", ".join(f"{code} {count}" for code, count in n.most_common()) or "no exams"
                return f"its {self.rows[0].split} split has no exam for {part}: {why}"
        return None

    def read(self, config: TrainingConfig, report: Callable[[str], None]) -> Annotated:
        """Slices of the exams for training and for validation; those of the test part are not touched.

        Raises
        ------
        ConfigurationError
            if a part has no exam, or an exam is no longer in the store
        """
        return Annotated(self._read("training", config, report), self._read("validation", config, report))

    def _read(self, part: Part, config: TrainingConfig, report: Callable[[str], None]) -> DrawnSlices:
        if why := self.cannot_train():
            raise ConfigurationError(f"{config.name} cannot be trained: {why}")
        rows = self.of(part)
        known = exam_rows(self.store, [row.exam_id for row in rows])
        paths = {exam_id: row.store_path for exam_id, row in known.items() if row.store_path}
        if missing := [row.exam_id for row in rows if row.exam_id not in paths]:
            raise ConfigurationError(
                f"{len(missing)} of {len(rows)} exams for {part} have left the store since it was split "
                f"({missing[0]}): split anew"
            )
        sources = [ExamSource(row.exam_id, row.subject_id, self.store / paths[row.exam_id]) for row in rows]
        return read_drawn(self.store, sources, config, report)

    def facts(self, config: TrainingConfig, annotated: Annotated) -> dict[str, str]:
        """What the model card says: split, counts of what was read, licence."""
        test = self.of("test")
        return {
            **self._identity(config),
            "training part": annotated.training.described,
            "validation part": annotated.validation.described,
            "test part": f"{len(test)} exams of {len({row.subject_id for row in test})} patients, not read",
            "licence of the annotated exams": config.annotated_credit,
        }

    def is_of(self, study: Mapping[str, str], config: TrainingConfig) -> bool:
        """Whether the facts of a trained network are of this split and configuration, and of these annotations."""
        return self._identity(config).items() <= study.items()

    def _identity(self, config: TrainingConfig) -> dict[str, str]:
        first = self.rows[0]
        return {
            "split": f"{first.split}, seed {first.seed}, {split_digest(self.rows)[:12]}",
            "configuration": f"{config.sha256[:12]}, seed {config.seed}",
            "annotations": self._drawn_sha256()[:12],
        }

    def _drawn_sha256(self) -> str:
        """Of what readers drew on the exams for training and validation: another drawing is another study."""
        contents = [
            f"{row.exam_id} {reader} {annotation_attributes(self.store, row.exam_id, reader).get('content_sha256')}"
            for row in (*self.of("training"), *self.of("validation"))
            for reader in readers_of(self.store, row.exam_id)
        ]
        return hashlib.sha256("\n".join(sorted(contents)).encode()).hexdigest()

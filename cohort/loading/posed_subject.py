"""One person's model in one task, solved: what is exported and drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cohort.errors import RefusedError
from cohort.loading.assumptions import Assumptions, Personalisation
from cohort.loading.base_model import BaseModel, Floats
from cohort.loading.equilibrium import Balance, balance
from cohort.loading.personalise import EVERYTHING, PersonalModels
from cohort.loading.solve import STANDARD, personal_variants, task_rows
from cohort.loading.subject import LoadingSubject
from cohort.loading.tasks import Task
from cohort.rows import LoadRow


@dataclass(frozen=True, eq=False)
class PosedSubject:
    """Personal model, posture and balance of one person; arrays of `models` and `found` have one subject."""

    base: BaseModel
    subject: LoadingSubject
    task: Task
    assumptions: Assumptions
    models: PersonalModels
    found: Balance
    rows: tuple[LoadRow, ...]
    """Ten: L1..L5 in both conventions, engine batch."""

    def load(self, level: str, convention: str) -> LoadRow:
        """The row of one vertebra."""
        return next(row for row in self.rows if (row.level, row.convention) == (level, convention))

    def in_ground(self, body: str, point_m: Floats) -> Floats:
        """Points [.., 3] of a body's frame in ground, m."""
        pose, number = self.found.pose, self.base.body(body)
        return np.asarray(pose.origin_m[0, number] + point_m @ pose.rotation[0, number].T)


def solve_posed(
    base: BaseModel,
    subject: LoadingSubject,
    task: Task,
    *,
    use: Personalisation = EVERYTHING,
    assumptions: Assumptions = STANDARD,
) -> PosedSubject:
    """Solve one person in one task with the batch engine; errors as in `solve_loads`."""
    variants, problems = personal_variants(base, [subject], use)
    for problem in problems.values():
        raise RefusedError("implausible_geometry", problem)
    found = balance(base, variants.whole, task, assumptions)
    (rows,) = task_rows(base, [subject], task, variants, found, assumptions)
    if isinstance(rows, RefusedError):
        raise rows
    return PosedSubject(
        base=base,
        subject=subject,
        task=task,
        assumptions=assumptions,
        models=variants.whole,
        found=found,
        rows=tuple(rows),
    )

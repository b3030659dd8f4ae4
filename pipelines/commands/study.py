"""`cohort study`: a study of automatic against manual masks on one's own annotated exams."""

from __future__ import annotations

import click

from pipelines.commands.study_example import example
from pipelines.commands.study_repeat import repeat
from pipelines.commands.study_report import report
from pipelines.commands.study_training import split, train


@click.group()
def study() -> None:
    """Repeat the study of Hess et al. 2023 on your own annotated exams."""


study.add_command(repeat)
study.add_command(example)
study.add_command(split)
study.add_command(train)
study.add_command(report)

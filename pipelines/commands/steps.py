"""Commands of several steps: each step is a command that is shown as it is typed and then run; then what lies where."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from pathlib import Path

import click


def type_and_run(context: click.Context, words: Sequence[str]) -> None:
    """Show a command, `words` being those after `cohort`, and run it; raises what it raises."""
    click.echo(f"\n$ cohort {shlex.join(words)}")
    context.find_root().command.main(list(words), prog_name="cohort", standalone_mode=False)


def list_places(*places: tuple[str, Path | None]) -> None:
    """What lies where, a line for each."""
    for what, where in places:
        click.echo(f"  {what:24} {where}")


def show_places(started: float, *places: tuple[str, Path | None]) -> None:
    """End of a command that made a whole example since `started`, of `time.monotonic`: what lies where."""
    click.echo(f"\nDone in {time.monotonic() - started:.0f} s. These are phantom figures. Where everything lies:")
    list_places(*places)

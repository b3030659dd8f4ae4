"""The command line: `cohort = pipelines.cli:main`. Each command is in a module of `pipelines/commands`."""

from __future__ import annotations

from typing import Final

import click

from cohort import __version__
from cohort.errors import CohortError, is_disk_full
from pipelines.commands.agreement import agreement
from pipelines.commands.annotations import annotations
from pipelines.commands.archive import nightly, run_command, scan
from pipelines.commands.changes import changes
from pipelines.commands.demo import demo
from pipelines.commands.doctor import cluster, doctor
from pipelines.commands.export import export
from pipelines.commands.maintenance import compact, fsck, gc, migrate
from pipelines.commands.status import report, status
from pipelines.commands.study import study
from pipelines.commands.tables import schema, sql
from pipelines.commands.training import train
from pipelines.commands.validation import validate
from pipelines.geometry_suite import phantom_dicom


class Commands(click.Group):
    """Turns errors raised on purpose, and a full disk, into one line and exit code 2."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except CohortError as error:
            raise _refusal(str(error)) from error
        except OSError as error:
            if not is_disk_full(error):
                raise
            raise _refusal("the disk is full; free some space and run again: what was committed is kept") from error


def _refusal(message: str) -> click.ClickException:
    refusal = click.ClickException(message)
    refusal.exit_code = 2
    return refusal


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="lumbar-cohort")
def main() -> None:
    """Turn an archive of lumbar-spine MRI into tables of anatomy and spinal loads."""


COMMANDS: Final = (
    *(demo, doctor, cluster),
    *(scan, run_command, nightly, status, report, changes),
    *(sql, schema, export),
    *(fsck, gc, compact, migrate),
    *(annotations, agreement, train, validate, study, phantom_dicom),
)
for command in COMMANDS:
    main.add_command(command)


if __name__ == "__main__":
    main()

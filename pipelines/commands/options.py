"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path

import click

from cohort.store.layout import store_path


class StoreFolder(click.ParamType):
    """A folder as a path or as a file:// URL; one that does not exist yet only where a command makes stores."""

    name = "folder"

    def __init__(self, *, made: bool) -> None:
        self._made = made

    def convert(self, value: str | Path, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Check that results can be published there; `ConfigurationError` otherwise."""
        folder = store_path(str(value))
        if folder.exists() and not folder.is_dir():
            self.fail("is a file, not a folder", param, ctx)
        if not (self._made or folder.exists()):
            self.fail(f"folder {folder.name} does not exist", param, ctx)
        return folder


STORE = click.option(
    "--store", required=True, type=StoreFolder(made=False), help="Folder (or file:// URL) of stores and tables."
)
NEW_STORE = click.option(
    "--store",
    required=True,
    type=StoreFolder(made=True),
    help="Folder (or file:// URL) of stores and tables; made if it is not there.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
CONFIG = click.option("--config", "config_path", type=click.Path(path_type=Path, exists=True), help="cohort.toml.")
SUBJECTS = click.option(
    "--subjects", type=click.Path(path_type=Path, exists=True), help="CSV or Parquet with height, weight, ..."
)
ARCHIVE = click.argument("archive", type=click.Path(path_type=Path, exists=True, file_okay=False))

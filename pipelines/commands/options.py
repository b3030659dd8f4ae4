"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path

import click

from cohort.store.layout import store_path


class StoreFolder(click.ParamType):
    """A folder that may not exist yet, as a path or as a file:// URL."""

    name = "folder"

    def convert(self, value: str | Path, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Check that results can be published there; `ConfigurationError` otherwise."""
        folder = store_path(str(value))
        if folder.exists() and not folder.is_dir():
            self.fail("is a file, not a folder", param, ctx)
        return folder


STORE = click.option("--store", required=True, type=StoreFolder(), help="Folder (or file:// URL) of stores and tables.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
CONFIG = click.option("--config", "config_path", type=click.Path(path_type=Path, exists=True), help="cohort.toml.")
SUBJECTS = click.option(
    "--subjects", type=click.Path(path_type=Path, exists=True), help="CSV or Parquet with height, weight, ..."
)
ARCHIVE = click.argument("archive", type=click.Path(path_type=Path, exists=True, file_okay=False))

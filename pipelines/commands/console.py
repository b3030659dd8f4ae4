"""Where commands print their tables."""

from __future__ import annotations

from typing import Final

from rich.console import Console

LEAST_WIDTH: Final = 140
"""A pipe is taken for 80 columns wide, and codes and figures would be cut."""


def wide_console() -> Console:
    """The terminal, or a pipe that is wide enough for tables."""
    console = Console(highlight=False)
    console.width = max(console.width, LEAST_WIDTH)
    return console

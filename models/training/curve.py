"""Learning curves: `curve.csv`, a row every few iterations, and its picture `curve.png`."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cohort.errors import ConfigurationError
from cohort.store.publish import replacing

Row = Mapping[str, float]
"""Column -> value; iteration is always there, Dice only where there was a validation."""

FIRST_COLUMNS: Final = ("iteration", "loss", "learning_rate", "seconds")
DECIMALS: Final = {"iteration": ".0f", "learning_rate": ".3e", "seconds": ".1f"}
"""How columns are written; five decimals otherwise."""


class Curve:
    """The rows of one training, on disk after every call; to be used in a `with`, which ends the TensorBoard file.

    Parameters
    ----------
    folder : of `curve.csv` and `curve.png`
    columns : beyond `FIRST_COLUMNS`
    iteration : where the training goes on; rows after it, which a kill has left, are removed
    tensorboard : write the rows as TensorBoard events too, into the folder `tensorboard`
    """

    def __init__(self, folder: Path, columns: Sequence[str], *, iteration: int, tensorboard: bool = False) -> None:
        self._folder = folder
        self._columns = (*FIRST_COLUMNS, *columns)
        self.rows = [row for row in read_curve(folder) if row["iteration"] <= iteration and iteration > 0]
        self._write()
        self._board = _board(folder, iteration) if tensorboard else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._board is not None:
            self._board.close()

    def add(self, row: Row) -> None:
        """Append one row."""
        self.rows.append(dict(row))
        with (self._folder / "curve.csv").open("a", newline="") as file:
            csv.writer(file).writerow(self._cells(row))
        if self._board is not None:
            for name in sorted(row.keys() - {"iteration"}):
                self._board.add_scalar(name, row[name], int(row["iteration"]))

    def draw(self, title: str) -> None:
        """Draw loss and Dice over iterations."""
        figure = Figure(figsize=(8, 7), layout="constrained")
        FigureCanvasAgg(figure)
        above, below = figure.subplots(2, 1, sharex=True)
        _lines(above, self.rows, ["loss"])
        above.set(ylabel="loss", title=title)
        _lines(below, self.rows, list(self._columns[len(FIRST_COLUMNS) :]))
        below.set(xlabel="iteration", ylabel="Dice", ylim=(0, 1))
        for axes in (above, below):
            axes.grid(alpha=0.3)
        figure.savefig(self._folder / "curve.png", dpi=100)

    def _cells(self, row: Row) -> list[str]:
        return [format(row[name], DECIMALS.get(name, ".5f")) if name in row else "" for name in self._columns]

    def _write(self) -> None:
        with replacing(self._folder / "curve.csv") as temporary, temporary.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(self._columns)
            writer.writerows(self._cells(row) for row in self.rows)


def read_curve(folder: Path) -> list[dict[str, float]]:
    """Rows of a curve without their empty cells; none if there is no file.

    A last line that a kill has cut short is left out.

    Raises
    ------
    ConfigurationError
        if a cell is no number
    """
    path = folder / "curve.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    whole = [row for row in rows if None not in row.values()]
    return [_numbers(row) for row in whole if row.get("iteration")]


def _numbers(row: Mapping[str, str]) -> dict[str, float]:
    try:
        return {name: float(text) for name, text in row.items() if text}
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"curve.csv has something else than numbers in the row of iteration {row['iteration']}: delete the file, "
            "the training goes on without its first rows"
        ) from error


def _board(folder: Path, iteration: int) -> Any:
    """Writer of TensorBoard events; those after `iteration` are hidden."""
    from torch.utils.tensorboard import SummaryWriter  # an optional package

    return SummaryWriter(folder / "tensorboard", purge_step=iteration + 1)


def _lines(axes: Axes, rows: Sequence[Row], names: Sequence[str]) -> None:
    """One line a column: phantom dashed, real slices solid, a colour a class."""
    classes = list(dict.fromkeys(name.partition("_dice_")[2] for name in names))
    for name in names:
        points = [(row["iteration"], row[name]) for row in rows if math.isfinite(row.get(name, math.nan))]
        colour = f"C{classes.index(name.partition('_dice_')[2])}"
        style = "--" if name.startswith("phantom") else "-"
        axes.plot(*zip(*points, strict=True) if points else ([], []), style, color=colour, label=name)
    axes.legend(fontsize="small")

"""How far the points of a sweep are: a table in the store, and on a terminal, from the first on."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import Literal

from rich.table import Table

from cache.objects import Objects
from pipeline.artifacts import folder
from pipeline.artifacts.terms import Row
from pipeline.kinds import BODY, JSON
from pipeline.sweep.table import sweep_table
from pipeline.tables.frames import as_parquet, csv_text
from pipeline.tables.metrics import METRICS, percent
from pipeline.terminal.printable import printable_line
from pipeline.terminal.progress import console, has_bars, say, shown_above

CSV = "sweep.csv"
_SHOWN_ROWS = 20
_GAP = 2
"""Blanks between columns."""
_STATES = {"sae": "SAE fitted", "guides": "guides fitted"}
_MEASURED: dict[str, Callable[[float], str]] = {
    "fvu": lambda value: f"{value:.3f}",
    "dead_atoms": str,
    "ema_nnz_anomaly": lambda value: f"{value:.0f}",
    "image_auroc": percent,
    "pixel_aupro": percent,
}
_HEADINGS = {"fvu": "FVU", "dead_atoms": "dead", "ema_nnz_anomaly": "atoms used"} | {
    name: METRICS[name].label for name in ("image_auroc", "pixel_aupro")
}


class Board:
    """The rows of a running sweep, written to its folder whenever points get further.

    Where the folder holds the result of an earlier run, that stays until this one is done.
    """

    def __init__(self, store: Objects, identifier: str, rows: Sequence[Row]) -> None:
        self._store, self._place = store, folder("sweeps", identifier)
        self._rows = list(rows)
        names = list(rows[0])[: list(rows[0]).index("state")]
        self._axes = [one for one in names if len({row[one] for row in rows}) > 1] or names[:3]
        self._last: list[int] = []
        self._is_new = store.size(f"{self._place}/{JSON['sweeps']}") is None
        self.write()

    def update(self, found: Mapping[int, Row]) -> None:
        """Take rows by their place in the grid, and show what is new. Raises: StoreError."""
        changed = [i for i, row in found.items() if self._rows[i] != row]
        if not changed:
            return
        n_ended = sum(map(_is_ended, self._rows))
        for i in changed:
            self._rows[i] = dict(found[i])
        self._last = [*(i for i in self._last if i not in changed), *changed]
        self.write()
        ended = [self._rows[i] for i in changed if _is_ended(self._rows[i])]
        for n, row in enumerate(ended, start=n_ended + 1):
            if not has_bars():
                say(f"point {n} of {len(self._rows)} {self._said(row)}")

    def write(self) -> None:
        """Write the table as it is now, as Parquet and CSV, each whole. Raises: StoreError."""
        if self._is_new:
            table = as_parquet(sweep_table(self._rows))
            self._store.replace(f"{self._place}/{BODY['sweeps']}", [table])
            self._store.replace(f"{self._place}/{CSV}", [table_as_csv(self._rows)])

    @contextmanager
    def shown(self) -> Iterator[None]:
        """On a terminal, show the table above all bars while the block runs."""
        with shown_above(self._table):
            yield

    def _said(self, row: Row) -> str:
        """Say how a point ended: `done: width 24, k 5: image AUROC 81.2, ..`."""
        axes = ", ".join(f"{name} {row[name]}" for name in self._axes)
        if row["state"] == "failed":
            return f"failed: {axes}: at {row['failed_at']}"
        told = [f"{_HEADINGS[name]} {text}" for name, text in _measured(row).items()]
        return f"done: {axes}: {', '.join(told)}"

    def _table(self) -> Table:
        """Draw the points that changed last, as many as fit, and of each what fits beside it."""
        n_shown = min(_SHOWN_ROWS, max(3, console.height - 8))
        chosen = [*(i for i in range(len(self._rows)) if i not in self._last), *self._last]
        names = [*self._axes, "state", *_HEADINGS.values()]
        rows = [_cells(self._rows[i], self._axes) for i in sorted(chosen[-n_shown:])]
        columns = list(zip(names, *rows, strict=True))
        if sum(max(map(len, texts)) + _GAP for texts in columns) > console.width:
            columns = [(*name.split(), *texts) for name, *texts in columns]  # a line a word
        widths = [max(map(len, texts)) for texts in columns]
        # a number that is cut is another number, so what has no room is left out
        ends = [end for end in accumulate(width + _GAP for width in widths) if end <= console.width]
        table = Table(box=None, header_style="bold", padding=(0, _GAP, 0, 0))
        for name, width in zip(names[: len(ends)], widths, strict=False):
            justify: Literal["left", "right"] = "left" if name == "state" else "right"
            table.add_column(name, justify=justify, width=width)
        for cells in rows:
            table.add_row(*cells[: len(ends)])
        if len(chosen) > n_shown:
            table.caption = f"{n_shown} of {len(chosen)} points"
        return table


def _cells(row: Row, axes: Sequence[str]) -> list[str]:
    """Give the texts of a point, in the order of the columns."""
    state, measured = str(row["state"]), _measured(row)
    told = [*(str(row[name]) for name in axes), _STATES.get(state, state)]
    return [*map(printable_line, told), *(measured.get(name, "") for name in _HEADINGS)]


def table_as_csv(rows: Sequence[Row]) -> bytes:
    """Give rows as a CSV file that a spreadsheet does not run."""
    table = sweep_table(rows)
    return csv_text(table.column_names, table.to_pylist()).encode()


def _is_ended(row: Row) -> bool:
    return row["state"] in ("done", "failed")


def _measured(row: Row) -> dict[str, str]:
    """Give what is known of a point, as people read it, by name."""
    values = {name: row.get(name) for name in _MEASURED}
    return {
        name: _MEASURED[name](value)
        for name, value in values.items()
        if isinstance(value, int | float)
    }

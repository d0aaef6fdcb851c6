"""Rows as a table of text, for a terminal, a pipe or a file."""

import io
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.terminal.printable import printable_line

Cell = str | Sequence[str]
"""One line, or several below each other; what could command a terminal is escaped."""
_WIDTH = 160


def text_table(
    headings: Sequence[str],
    rows: Iterable[Sequence[Cell] | None],
    *,
    whole: int | None = None,
    numbers_from: int | None = None,
    width: int = _WIDTH,
) -> str:
    """Lay rows out below headings; long texts are folded, never cut, so that they can be copied.

    Args:
        headings: one a column.
        rows: cells of each row, as many as there are or fewer; None opens a new section.
        whole: the column that is never folded.
        numbers_from: the first of the columns that are numbers, which stand to the right.
        width: letters of a line.
    """
    table = Table(box=box.SIMPLE_HEAD)
    for at, heading in enumerate(headings):
        numbers = numbers_from is not None and at >= numbers_from
        table.add_column(
            _text(heading),
            overflow="fold",
            no_wrap=at == whole,
            justify="right" if numbers else "left",
        )
    for row in rows:
        if row is None:
            table.add_section()
        else:
            table.add_row(*map(_text, row))
    text = io.StringIO()
    Console(file=text, width=width).print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()).strip("\n")


def _text(cell: Cell) -> Text:
    return Text("\n".join(map(printable_line, [cell] if isinstance(cell, str) else cell)))

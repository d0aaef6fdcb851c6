"""Progress on terminals of every kind: narrow ones, dumb ones, none."""

import io
import re

import pytest

from cache.store import open_store
from pipeline.sweep import board
from pipeline.sweep.board import Board
from pipeline.terminal import progress
from pipeline.terminal.progress import bar, say

ROW = {"width": 4096, "k": 8, "seed": 1, "failed_at": None, "reason": None}
DONE = {"fvu": 0.123, "dead_atoms": 12, "ema_nnz_anomaly": 100.0, "image_auroc": 0.9}
ROWS = [
    {**ROW, "state": "guides", "fvu": 0.123},
    {**ROW, "k": 16, "state": "done", **DONE, "pixel_aupro": 0.5},
]


@pytest.fixture
def terminal(monkeypatch):
    """Give a function that makes stderr a terminal of so many columns and gives what it got."""

    def opened(columns, kind="xterm"):
        stream = io.StringIO()
        console = type(progress.console)(
            file=stream, force_terminal=True, width=columns, _environ={"TERM": kind}
        )
        monkeypatch.setattr(progress, "console", console)
        monkeypatch.setattr(board, "console", console)
        return stream

    return opened


def shown(stream):
    """Give the last line that was drawn, without what steers the terminal."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    return plain.replace("\r", "\n").strip().split("\n")[-1]


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
def test_no_number_beside_a_bar_is_cut(terminal, columns):
    stream = terminal(columns)

    with bar("Fitting guides", 12345) as advance:
        advance(1234, note="loss 1.09")

    line = shown(stream)
    assert "1234/12345" in line
    assert "\N{HORIZONTAL ELLIPSIS}" not in line
    assert re.search(r"left +[-:0-9]+", line)
    assert ("loss 1.09" in line) == (columns > 72)


@pytest.mark.parametrize(
    ("columns", "last"), [(20, "state"), (40, "used"), (60, "AUPRO"), (200, "pixel AUPRO")]
)
def test_the_table_of_a_sweep_leaves_out_what_has_no_room(terminal, tmp_path, columns, last):
    stream = terminal(columns)
    table = Board(open_store(tmp_path), "a-to-b-12345678", ROWS)._table()

    progress.console.print(table)

    lines = [line for line in stream.getvalue().splitlines() if line.strip()]
    plain = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).rstrip() for line in lines]
    assert max(map(len, plain)) <= columns
    assert plain[-3].endswith(last)
    assert not any("\N{HORIZONTAL ELLIPSIS}" in line for line in plain)
    assert plain[-1].split()[0] == "16"


def test_a_dumb_terminal_gets_lines(terminal):
    stream = terminal(80, "dumb")

    with bar("Scoring", 2) as advance:
        advance(2)
    say("done")

    assert stream.getvalue() == "Scoring: 2 of 2 in 0 s\ndone\n"

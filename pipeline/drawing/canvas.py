"""A sheet of plots for a paper, and one way to make a file of it: PNG, PDF or SVG.

A sheet is strips below each other, a strip is panels beside each other below a title. Widths are
those of a column and of two; letters are as large as a paper's notes.
"""

import io
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING, Any, Final

from pipeline.drawing.mark import MARK
from pipeline.drawing.palette import LINES
from pipeline.terminal.printable import printable

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

COLUMN: Final = 3.3
TWO_COLUMNS: Final = 6.9
"""Widths in inches."""
FORMATS: Final = (".png", ".pdf", ".svg")

Panel = Callable[["Axes"], None]
"""What draws into axes."""

_DPI = 300
_LETTERS = 140
"""That a line of a legend holds over two columns."""
_LINE = 0.13
"""Of text, in inches."""
_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: no file depends on the machine's fonts
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "xtick.labelsize": 6,
    "ytick.labelsize": 6,
    "legend.fontsize": 6,
    "legend.frameon": False,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.1,
    "lines.markersize": 3,
    "grid.linewidth": 0.4,
    "grid.alpha": 0.35,
    "pdf.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "spg-pipe",
    "text.parse_math": False,  # a dollar sign in a name is one
}
_METADATA: dict[str, dict[str, str | None]] = {
    ".png": dict([MARK]),
    ".pdf": {"Creator": MARK[1], "Producer": None, "CreationDate": None},
    ".svg": {"Creator": MARK[1], "Date": None},
}


@dataclass(frozen=True, kw_only=True)
class Strip:
    """Panels beside each other."""

    title: str
    panels: Sequence[Panel]
    height: float = 1.45
    """In inches, without title and legend."""
    wide: bool = False
    """Whether it fills two columns though it has two panels or fewer."""

    @property
    def is_wide(self) -> bool:
        """Whether it fills two columns."""
        return self.wide or len(self.panels) > 2


def draw_sheet(strips: Sequence[Strip], suffix: str = ".png") -> bytes:
    """Draw strips below each other as a file; the same strips give the same bytes.

    What their panels name is explained once, below each strip.

    Args:
        strips: one at least.
        suffix: one of `FORMATS`.
    """
    from matplotlib.figure import Figure

    with _style():
        two = any(strip.is_wide for strip in strips)
        figure = Figure(figsize=(TWO_COLUMNS if two else COLUMN, 1), layout="constrained")
        grid = figure.add_gridspec(len(strips), 1)
        heights = [
            strip.height + _LINE * _draw_strip(figure.add_subfigure(grid[at]), strip)
            for at, strip in enumerate(strips)
        ]
        grid.set_height_ratios(heights)
        figure.set_figheight(sum(heights))
        buffer = io.BytesIO()
        figure.savefig(buffer, format=suffix[1:], dpi=_DPI, metadata=_METADATA[suffix])
    return buffer.getvalue()


@contextmanager
def _style() -> Iterator[None]:
    """Draw in our style, whatever the user's settings of matplotlib are."""
    import matplotlib as mpl
    from cycler import cycler

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)  # type: ignore[arg-type]
        mpl.rcParams["axes.prop_cycle"] = cycler(color=LINES)
        with warnings.catch_warnings():
            # a letter that the font lacks is drawn as a box
            warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
            yield


def _draw_strip(part: "SubFigure", strip: Strip) -> int:
    """Draw title, panels and legend; give how many lines of text the first and last take."""
    room = _LETTERS if strip.is_wide else _LETTERS // 2
    title = [
        line for text in printable(strip.title).split("\n") for line in wrap(text, room * 3 // 4)
    ]
    part.suptitle("\n".join(title), fontsize=8)
    axes = part.subplots(1, len(strip.panels), squeeze=False)[0]
    named: dict[str, Artist] = {}
    for axis, panel in zip(axes, strip.panels, strict=True):
        panel(axis)
        handles, labels = axis.get_legend_handles_labels()
        named |= dict(zip(labels, handles, strict=True))
    if not named:
        return len(title)
    columns = max(1, min(len(named), 6, room // (max(map(len, named)) + 9)))
    part.legend(named.values(), list(named), loc="outside lower center", ncols=columns)
    return len(title) + math.ceil(len(named) / columns)

"""A sweep over C and k as heatmaps, one panel a metric, on one scale in all strips of a sheet."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.drawing.canvas import Panel, Strip
from pipeline.drawing.points import Row, cells, held_by, number, with_seeds
from pipeline.tables.metrics import METRICS, PUBLISHED, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = "viridis"
_PUBLISHED_AT = "; published is C = 4096, k = 32"


def heat_strips(
    sets: Mapping[str, Sequence[Row]], published: Mapping[str, Row] | None = None
) -> list[Strip]:
    """Draw a strip a set of rows, below its title: C to the right, k upwards.

    A cell is the mean over seeds, a cross where a point failed; the best of a panel has a frame.
    Of a metric all strips have one scale; one that no point has gets no panel. `published` has what
    the paper states by title.
    """
    every = [row for rows in sets.values() for row in rows]
    scales = {metric: _scale(list(sets.values()), metric) for metric in held_by(every, PUBLISHED)}
    stated = published or {}
    return [
        Strip(
            title=with_seeds(title + (_PUBLISHED_AT if title in stated else ""), rows),
            panels=[
                _panel(rows, metric, scale, stated.get(title), first=metric == next(iter(scales)))
                for metric, scale in scales.items()
            ],
            height=1.95,
        )
        for title, rows in sets.items()
    ]


def _scale(sets: Sequence[Sequence[Row]], metric: str) -> tuple[float, float]:
    """Give the lowest and the highest cell in %, somewhat apart where they are one."""
    every = np.concatenate([cells(rows, metric)[2].ravel() for rows in sets])
    known = 100 * every[~np.isnan(every)]
    if not known.size:
        return 0.0, 100.0
    low, high = float(known.min()), float(known.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _panel(
    rows: Sequence[Row],
    metric: str,
    scale: tuple[float, float],
    stated: Row | None,
    *,
    first: bool,
) -> Panel:
    def draw(axis: "Axes") -> None:
        widths, ks, values = cells(rows, metric)
        shown = np.ma.masked_invalid(100 * values)
        image = axis.imshow(
            shown, _COLOURS, origin="lower", aspect="auto", vmin=scale[0], vmax=scale[1]
        )
        _write_values(axis, values, sum(scale) / 200)
        _frame_best(axis, values)
        axis.set_xticks(range(len(widths)), [str(width) for width in widths])
        axis.tick_params("x", rotation=45 if len(widths) > 4 else 0)
        axis.set_yticks(range(len(ks)), [str(k) for k in ks])
        axis.spines[:].set_visible(False)
        axis.tick_params(length=0)
        known = np.nan if stated is None else number(stated, metric)
        said = "" if np.isnan(known) else f"\npublished: {percent(known)}"
        axis.set(title=f"{METRICS[metric].label} (%){said}", xlabel="dictionary size C")
        if first:
            axis.set_ylabel("sparsity k")
        axis.figure.colorbar(image, ax=axis, orientation="horizontal", aspect=25, pad=0.04)

    return draw


def _write_values(axis: "Axes", values: NDArray[np.float64], middle: float) -> None:
    """Write each cell's number in %, light on the dark half of the colours."""
    size = 5 if values.shape[1] > 4 else 6
    for (i, j), value in np.ndenumerate(values):
        text = "x" if np.isnan(value) else percent(float(value))
        colour = "white" if value <= middle else "black"
        axis.text(j, i, text, ha="center", va="center", fontsize=size, color=colour)


def _frame_best(axis: "Axes", values: NDArray[np.float64]) -> None:
    """Put a frame around the cells of the highest value, where there are two to compare."""
    from matplotlib.patches import Rectangle

    if np.count_nonzero(~np.isnan(values)) < 2:
        return
    for i, j in np.argwhere(values == np.nanmax(values)):
        # white within black: to be seen on every colour
        for colour, width in (("black", 2.2), ("white", 1.0)):
            corner = j - 0.46, i - 0.46
            axis.add_patch(
                Rectangle(corner, 0.92, 0.92, fill=False, ec=colour, lw=width, clip_on=False)
            )

"""One way to set up a plot, and one to make a file of it."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.drawing.palette import LINES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def panels(
    n: int, title: str, size: tuple[float, float] = (4.0, 3.4)
) -> "tuple[Figure, list[Axes]]":
    """Give a figure of `n` panels in a row, each of a size in inches, below one title."""
    from cycler import cycler
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(size[0] * n, size[1]), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=9)
    axes: Sequence[Axes] = figure.subplots(1, n, squeeze=False)[0]
    for axis in axes:
        axis.set_prop_cycle(cycler(color=LINES))
    return figure, list(axes)


def one_below_the_other(pictures: Sequence[bytes]) -> bytes:
    """Give PNG pictures as one, on white; a single one as it is."""
    from PIL import Image

    if len(pictures) == 1:
        return pictures[0]
    shown = [Image.open(io.BytesIO(data)).convert("RGB") for data in pictures]
    size = max(one.width for one in shown), sum(one.height for one in shown)
    sheet, top = Image.new("RGB", size, "white"), 0
    for one in shown:
        sheet.paste(one, (0, top))
        top += one.height
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def as_png(figure: "Figure") -> bytes:
    """Give a figure as a PNG file; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()

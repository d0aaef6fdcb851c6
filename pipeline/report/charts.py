"""Small charts as geometry in SVG user units; `templates/macros.html` draws them.

Colours, fonts and line styles are the style sheet's, so a chart follows the light or dark theme.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.ticker import LogLocator, MaxNLocator

from pipeline.report.data import Line
from pipeline.terminal.printable import counted

WIDTH, HEIGHT = 340.0, 230.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 56.0, 14.0, 12.0, 42.0
_ROUND = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10])
_POWERS = LogLocator(numticks=7)

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Tick:
    """A labelled place on an axis, in user units."""

    at: float
    label: str


@dataclass(frozen=True)
class Path:
    """One drawn series: the SVG path and its place in the colour order."""

    name: str
    d: str
    order: int
    filled: bool


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart, ready to draw in a box of `WIDTH` x `HEIGHT`."""

    title: str
    x_label: str
    y_label: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    paths: list[Path]
    summary: str
    """The chart in words, for those who cannot see it."""
    width: float = WIDTH
    height: float = HEIGHT
    left: float = _LEFT
    right: float = WIDTH - _RIGHT
    top: float = _TOP
    bottom: float = HEIGHT - _BOTTOM


@dataclass(frozen=True)
class Axis:
    """Values from `low` to `high` laid over user units from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def place(self, values: FloatArray) -> FloatArray:
        """Give the user unit of each value."""
        ends = np.array([self.low, self.high])
        if self.log:
            values, ends = np.log10(values), np.log10(ends)
        shares: FloatArray = (values - ends[0]) / (ends[1] - ends[0])
        return self.start + shares * (self.end - self.start)

    def ticks(self) -> list[Tick]:
        """Give round values within the axis: powers of ten on a log axis, its ends if too few."""
        locator = _POWERS if self.log else _ROUND
        values = np.asarray(locator.tick_values(self.low, self.high), np.float64)
        slack = 1e-9 * (self.high - self.low)
        values = values[(values >= self.low - slack) & (values <= self.high + slack)]
        if len(values) < 2:
            values = np.array([self.low, self.high])
        places = np.round(self.place(values), 1).tolist()
        return [Tick(p, f"{v:.6g}") for p, v in zip(places, values, strict=True)]


def line_chart(
    title: str,
    x_label: str,
    y_label: str,
    lines: Mapping[str, Line | None],
    *,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    log_x: bool = False,
) -> Chart | None:
    """Draw named lines; None where no line has two finite points.

    Ranges not given are those of the data. Lines of ascending x are cut at a given x range.
    """
    clean = {
        name: _finite(curve, x_range, log_x) for name, curve in lines.items() if curve is not None
    }
    clean = {name: points for name, points in clean.items() if len(points[0]) > 1}
    if not clean:
        return None
    x_axis = _axis([x for x, _ in clean.values()], x_range, _LEFT, WIDTH - _RIGHT, log_x)
    y_axis = _axis([y for _, y in clean.values()], y_range, HEIGHT - _BOTTOM, _TOP, False)
    paths = [
        Path(name, _polyline(x_axis.place(x), y_axis.place(y)), order, filled=False)
        for order, (name, (x, y)) in enumerate(clean.items())
    ]
    ends = "; ".join(
        f"{name}: {y[0]:.4g} at {x[0]:.4g} to {y[-1]:.4g} at {x[-1]:.4g}"
        for name, (x, y) in clean.items()
    )
    return Chart(
        title=title, x_label=x_label, y_label=y_label, x_ticks=x_axis.ticks(),
        y_ticks=y_axis.ticks(), paths=paths, summary=f"{title}. {ends}.",
    )  # fmt: skip


def histogram(
    title: str,
    x_label: str,
    groups: Mapping[str, FloatArray],
    x_range: tuple[float, float],
    n_bins: int = 24,
) -> Chart | None:
    """Draw the share of each group in equal bins of `x_range`; None where all groups are empty."""
    filled = {name: values for name, values in groups.items() if len(values)}
    if not filled:
        return None
    low, high = _widen(*x_range)
    edges = np.linspace(low, high, n_bins + 1)
    shares = {name: np.histogram(values, edges)[0] / len(values) for name, values in filled.items()}
    x_axis = Axis(low, high, _LEFT, WIDTH - _RIGHT)
    y_axis = Axis(0.0, max(float(s.max()) for s in shares.values()), HEIGHT - _BOTTOM, _TOP)
    corners = np.repeat(x_axis.place(edges), 2)
    paths = [
        Path(
            f"{name} ({len(filled[name])})",
            _polyline(corners, y_axis.place(np.concatenate([[0], np.repeat(s, 2), [0]]))),
            order,
            filled=True,
        )
        for order, (name, s) in enumerate(shares.items())
    ]
    words = "; ".join(
        f"{name}: {counted(len(v), 'image')}, {v.min():.4g} to {v.max():.4g}, "
        f"median {np.median(v):.4g}"
        for name, v in filled.items()
    )
    return Chart(
        title=title, x_label=x_label, y_label="share of images", x_ticks=x_axis.ticks(),
        y_ticks=y_axis.ticks(), paths=paths, summary=f"{title}. {words}.",
    )  # fmt: skip


def _finite(
    curve: Line, x_range: tuple[float, float] | None, log_x: bool
) -> tuple[FloatArray, FloatArray]:
    x, y = np.asarray(curve.x, dtype=np.float64), np.asarray(curve.y, dtype=np.float64)
    kept = np.isfinite(x) & np.isfinite(y)
    if log_x:
        kept &= x > 0
    x, y = x[kept], y[kept]
    if x_range is None:
        return x, y
    inside = (x >= x_range[0]) & (x <= x_range[1])
    ends = np.array([x_range[1]] if (x > x_range[1]).any() else [])
    return np.append(x[inside], ends), np.append(y[inside], np.interp(ends, x, y))


def _axis(
    series: list[FloatArray],
    given: tuple[float, float] | None,
    start: float,
    end: float,
    log: bool,
) -> Axis:
    if given is None:
        given = min(float(s.min()) for s in series), max(float(s.max()) for s in series)
    return Axis(*_widen(*given), start, end, log)


def _widen(low: float, high: float) -> tuple[float, float]:
    """Give an interval of no length some: a constant series is a line in the middle."""
    if high > low:
        return low, high
    margin = abs(low) / 2 or 0.5
    return low - margin, high + margin


def _polyline(x: FloatArray, y: FloatArray) -> str:
    """Join points to 0.01 unit, leaving out those that nobody could see.

    A curve over every threshold has up to millions of points; a picture of it has a few dozen. The
    area below stays what it is to 1e-3 of the box.
    """
    points = np.rint(np.stack([x, y], axis=1) * 100)
    moved = np.any(np.diff(points, axis=0) != 0, axis=1)
    points = points[np.concatenate([[True], moved])] / 100
    return "M" + "L".join(f"{px:g} {py:g}" for px, py in _thin(points).tolist())


def _thin(points: FloatArray, tolerance: float = 0.05) -> FloatArray:
    """Keep the points `(n, 2)` that lie farther than `tolerance` from a chord between kept ones.

    Source: Douglas and Peucker 1973.
    """
    kept = np.zeros(len(points), dtype=bool)
    kept[[0, -1]] = True
    spans = [(0, len(points) - 1)]
    while spans:
        first, last = spans.pop()
        if last - first < 2:
            continue
        chord = points[last] - points[first]
        offsets = points[first + 1 : last] - points[first]
        length = float(np.hypot(*chord))
        if length > 0:
            distances = np.abs(chord[0] * offsets[:, 1] - chord[1] * offsets[:, 0]) / length
        else:
            distances = np.hypot(offsets[:, 0], offsets[:, 1])
        farthest = int(distances.argmax())
        if distances[farthest] > tolerance:
            middle = first + 1 + farthest
            kept[middle] = True
            spans += [(first, middle), (middle, last)]
    return points[kept]

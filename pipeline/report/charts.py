"""Small charts as geometry in SVG user units; `templates/macros.html` draws them.

Colours, fonts and line styles are the style sheet's, so a chart follows the light or dark theme.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.report.data import Line

WIDTH, HEIGHT = 340.0, 230.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 56.0, 14.0, 12.0, 42.0
_N_TICKS = 5

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
        low, high = self.low, self.high
        if self.log:
            values, low, high = np.log10(values), math.log10(low), math.log10(high)
        return self.start + (values - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[Tick]:
        """Give round values within the axis: powers of ten on a log axis."""
        values = _powers(self.low, self.high) if self.log else _round_steps(self.low, self.high)
        places = self.place(np.array(values))
        return [Tick(round(float(p), 1), f"{v:.6g}") for p, v in zip(places, values, strict=True)]


def line_chart(
    title: str,
    x_label: str,
    y_label: str,
    lines: Mapping[str, Line],
    *,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    log_x: bool = False,
) -> Chart | None:
    """Draw named lines; None where no line has two finite points.

    Ranges not given are those of the data. Points outside a given x range are left out.
    """
    clean = {name: _finite(curve, x_range, log_x) for name, curve in lines.items()}
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
        f"{name}: {len(v)} images, {v.min():.4g} to {v.max():.4g}, median {np.median(v):.4g}"
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
    if x_range is not None:
        kept &= (x >= x_range[0]) & (x <= x_range[1])
    return x[kept], y[kept]


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


def _round_steps(low: float, high: float) -> list[float]:
    rough = (high - low) / _N_TICKS
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= rough)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def _powers(low: float, high: float) -> list[float]:
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    if last <= first:
        return [low, high]
    stride = max(1, math.ceil((last - first) / 6))
    return [10.0**i for i in range(first, last + 1, stride)]


def _polyline(x: FloatArray, y: FloatArray) -> str:
    """Join points to 0.1 unit, leaving out those that nobody could see.

    A curve over every threshold has up to millions of points; a picture of it has a few dozen.
    """
    points = np.rint(np.stack([x, y], axis=1) * 10)
    moved = np.any(np.diff(points, axis=0) != 0, axis=1)
    points = points[np.concatenate([[True], moved])] / 10
    return "M" + "L".join(f"{px:g} {py:g}" for px, py in _thin(points).tolist())


def _thin(points: FloatArray, tolerance: float = 0.15) -> FloatArray:
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

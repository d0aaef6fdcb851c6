"""Numbers of rows to be drawn: a metric against an axis, mean and spread over what is the same."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Row = Mapping[str, str | float | None]
"""A point or a line of a log: settings and numbers by name."""


@dataclass(frozen=True)
class Points:
    """A line to draw, by rising x; `(n,)` each."""

    x: NDArray[np.float64]
    mean: NDArray[np.float64]
    spread: NDArray[np.float64]
    """Standard deviation over the rows of one x; 0 where there is one row."""


def number(row: Row, name: str) -> float:
    """Give a number of a row, NaN where it has none."""
    value = row.get(name)
    return np.nan if value is None else float(value)


def held_by(rows: Sequence[Row], names: Sequence[str]) -> list[str]:
    """Give the names of which some row has a number; all where none has any."""
    held = [name for name in names if not all(np.isnan(number(row, name)) for row in rows)]
    return held or list(names)


def points_of(rows: Sequence[Row], x: str, y: str) -> Points:
    """Give field `y` against `x`, both in the rows' units; rows without either are left out."""
    found: dict[float, list[float]] = {}
    for row in rows:
        at, value = number(row, x), number(row, y)
        if not (np.isnan(at) or np.isnan(value)):
            found.setdefault(at, []).append(value)
    told = [mean_and_spread(found[one]) for one in sorted(found)]
    means, spreads = np.array(told, np.float64).reshape(-1, 2).T
    return Points(np.array(sorted(found), np.float64), means, spreads)


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Give mean and standard deviation, without the NaNs; (NaN, 0) of none."""
    known = [value for value in values if not np.isnan(value)]
    if not known:
        return np.nan, 0.0
    return float(np.mean(known)), float(np.std(known, ddof=1)) if len(known) > 1 else 0.0


def cells(rows: Sequence[Row], metric: str) -> tuple[list[int], list[int], NDArray[np.float64]]:
    """Give widths, ks and the metric's mean over seeds `(len(ks), len(widths))`, NaN for none."""
    found: dict[tuple[int, int], list[float]] = {}
    for row in rows:
        place = int(number(row, "k")), int(number(row, "width"))
        found.setdefault(place, []).append(number(row, metric))
    ks, widths = (sorted(set(axis)) for axis in zip(*found, strict=True))
    values = np.full((len(ks), len(widths)), np.nan)
    for (k, width), here in found.items():
        values[ks.index(k), widths.index(width)] = mean_and_spread(here)[0]
    return widths, ks, values


def with_seeds(title: str, rows: Sequence[Row]) -> str:
    """Say in a title over how many seeds mean and spread are taken, where there are several."""
    seeds = {row["seed"] for row in rows if row.get("seed") is not None}
    if len(seeds) < 2:
        return title
    return f"{title}\nmean and standard deviation of {len(seeds)} seeds"

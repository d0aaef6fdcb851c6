"""Metrics as strips of plots: lines against an axis or by layer, bars; and fits as curves.

Metrics are shares in [0, 1], drawn in %.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Literal

import numpy as np

from pipeline.drawing.canvas import Panel, Strip, draw_sheet
from pipeline.drawing.palette import LINES
from pipeline.drawing.points import Row, held_by, mean_and_spread, number, points_of, with_seeds
from pipeline.tables.metrics import METRICS, PUBLISHED, percent
from pipeline.words import field_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STYLES = ("--", ":", "-.", (0, (1, 4)))
"""Of lines across."""


@dataclass(frozen=True, kw_only=True)
class Across:
    """An axis of what was tested, logarithmic, over the range that the paper shows."""

    field: str
    label: str
    ticks: Literal["tested", "tens"]
    """Labels at the tested values, or at powers of ten with small ticks at the tested values."""
    paper: tuple[float, float]
    """The range of the paper."""


def line_strip(
    rows: Sequence[Row],
    across: Across,
    metrics: Sequence[str],
    title: str,
    references: Mapping[str, Sequence[Row]] | None = None,
) -> Strip:
    """Draw metrics against an axis, one panel a metric; the mean and its spread over seeds.

    Args:
        rows: the points; those without the metric are left out.
        across: the axis that runs to the right.
        metrics: fields to draw.
        title: above all.
        references: further results, drawn as broken lines across: name -> its rows, one a seed.
    """

    def panel(metric: str) -> Panel:
        def draw(axis: "Axes") -> None:
            points = points_of(rows, across.field, metric)
            axis.plot(points.x, 100 * points.mean, marker="o", color=LINES[0])
            if points.spread.any():
                low, high = points.mean - points.spread, points.mean + points.spread
                axis.fill_between(points.x, 100 * low, 100 * high, color=LINES[0], alpha=0.2, lw=0)
            _lines_across(axis, references or {}, metric)
            _ticks_across(axis, across, [number(row, across.field) for row in rows])
            axis.set(title=f"{METRICS[metric].label} (%)", xlabel=across.label)
            axis.grid()

        return draw

    every = [*rows, *(row for found in (references or {}).values() for row in found)]
    panels = [panel(metric) for metric in held_by(every, metrics)]
    return Strip(title=with_seeds(title, rows), panels=panels)


def _lines_across(
    axis: "Axes",
    references: Mapping[str, Sequence[Row]],
    metric: str,
    colours: Sequence[str] = LINES[1:],
) -> None:
    for (name, found), colour, style in zip(
        references.items(), cycle(colours), cycle(_STYLES), strict=False
    ):
        mean, spread = mean_and_spread([number(row, metric) for row in found])
        if not np.isnan(mean):
            axis.axhline(100 * mean, linestyle=style, color=colour, label=name)
            if spread:
                axis.axhspan(100 * (mean - spread), 100 * (mean + spread), color=colour, alpha=0.12)


def _ticks_across(axis: "Axes", across: Across, tested: Sequence[float]) -> None:
    from matplotlib.ticker import FixedLocator, NullFormatter

    values = sorted({value for value in tested if 0 < value < np.inf})
    low, high = min([across.paper[0], *values]), max([across.paper[1], *values])
    axis.set_xscale("log")
    margin = (high / low) ** 0.04
    axis.set_xlim(low / margin, high * margin)
    axis.xaxis.set_minor_formatter(NullFormatter())
    if across.ticks == "tested":
        axis.set_xticks(values, [f"{value:g}" for value in values])
        axis.xaxis.set_minor_locator(FixedLocator([]))
        axis.tick_params("x", rotation=45 if len(values) > 6 else 0)
    else:
        tens = [10.0**n for n in range(round(np.log10(low)), round(np.log10(high)) + 1)]
        axis.set_xticks(tens, [f"{ten:g}" for ten in tens])
        axis.xaxis.set_minor_locator(FixedLocator(values))


def layer_strip(lines: Mapping[str, Sequence[Row]], title: str) -> Strip:
    """Draw one panel a metric, layers to the right: a line a name, mean and spread of a layer.

    Rows whose `layer` is several, `2+5`, are lines across.
    """
    single = {name: [row for row in rows if _is_single(row)] for name, rows in lines.items()}
    layers = sorted({int(str(row["layer"])) for rows in single.values() for row in rows})
    several: dict[str, list[Row]] = {}
    colours: dict[str, str] = {}
    for (name, rows), colour in zip(lines.items(), cycle(LINES), strict=False):
        for row in rows:
            if not _is_single(row):
                told = f"mean map of {str(row['layer']).replace('+', ', ')}"
                called = f"{name}, {told}" if name else told
                several.setdefault(called, []).append(row)
                colours[called] = colour

    def panel(metric: str) -> Panel:
        def draw(axis: "Axes") -> None:
            for (name, rows), colour in zip(single.items(), cycle(LINES), strict=False):
                points = points_of(rows, "layer", metric)
                spread = 100 * points.spread if points.spread.any() else None
                axis.errorbar(
                    points.x, 100 * points.mean, spread, marker="o", color=colour, label=name
                )
            _lines_across(axis, several, metric, list(colours.values()) or LINES)
            axis.set_xticks(layers)
            axis.set(title=f"{METRICS[metric].label} (%)", xlabel="layer")
            axis.grid()

        return draw

    every = [row for rows in lines.values() for row in rows]
    return Strip(
        title=with_seeds(title, every),
        panels=[panel(metric) for metric in held_by(every, PUBLISHED)],
    )


def _is_single(row: Row) -> bool:
    return str(row["layer"]).isdigit()


def bar_strip(
    rows: Mapping[str, Sequence[Row]], title: str, published: Mapping[str, Row] | None = None
) -> Strip:
    """Draw a group of bars a metric, a bar a name: mean and spread of its rows.

    `published` has what the paper states by name; it is drawn as a mark over the bar.
    """
    places, width = np.arange(len(PUBLISHED)), 0.8 / len(rows)

    def draw(axis: "Axes") -> None:
        for i, (name, found) in enumerate(rows.items()):
            told = [mean_and_spread([number(row, metric) for row in found]) for metric in PUBLISHED]
            means, spreads = np.array(told).T
            x = places + (i - (len(rows) - 1) / 2) * width
            bars = axis.bar(x, 100 * np.nan_to_num(means), width, label=name, color=LINES[i % 7])
            if spreads.any():
                axis.errorbar(x, 100 * means, 100 * spreads, fmt="none", ecolor="black", lw=0.7)
            labels = [percent(None if np.isnan(mean) else mean) for mean in means]
            colour = "white" if i % 7 < 3 else "black"
            axis.bar_label(bars, labels, label_type="center", fontsize=6, color=colour)
            stated = (published or {}).get(name)
            if stated is not None:
                heights = [100 * number(stated, metric) for metric in PUBLISHED]
                axis.scatter(x, heights, marker="*", color="black", s=12, zorder=3)
        if published:
            axis.scatter([], [], marker="*", color="black", s=12, label="as published")
        axis.set_xticks(places, [f"{METRICS[metric].label} (%)" for metric in PUBLISHED])
        axis.set(ylim=(0, 105))

    every = [row for found in rows.values() for row in found]
    return Strip(title=with_seeds(title, every), panels=[draw], wide=True, height=1.6)


def training_strip(lines: Sequence[Row], plots: Mapping[str, Sequence[str]], title: str) -> Strip:
    """Draw fields of a log over its steps, one panel an entry of `plots`: title -> fields."""

    def panel(name: str, fields: Sequence[str]) -> Panel:
        def draw(axis: "Axes") -> None:
            for field in fields:
                points = points_of(lines, "step", field)
                told = field_words(field) if len(fields) > 1 else None
                colour = LINES[1] if field.endswith("anomaly") else LINES[0]
                style = "--" if field.startswith("ema_") else "-"
                axis.plot(points.x, points.mean, linestyle=style, color=colour, label=told)
            axis.set(title=name, xlabel="step")
            axis.grid()

        return draw

    return Strip(title=title, panels=[panel(*one) for one in plots.items()])


def draw_training(lines: Sequence[Row], plots: Mapping[str, Sequence[str]], title: str) -> bytes:
    """Draw one log as a PNG."""
    return draw_sheet([training_strip(lines, plots, title)])

"""Metrics as plots: lines against one axis, a grid of heatmaps, groups of bars; and fits as curves.

Metrics are shares in [0, 1], drawn in %.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
from numpy.typing import NDArray

from pipeline.drawing.canvas import as_png, panels
from pipeline.metrics import METRICS, PUBLISHED, percent

Row = Mapping[str, str | float | None]
"""A point or a line of a log: settings and numbers by name."""

_STYLES = ("--", ":", "-.", (0, (1, 4)))
"""Of lines across."""


def draw_lines(
    rows: Sequence[Row],
    axis_name: str,
    label: str,
    metrics: Sequence[str],
    title: str,
    references: Mapping[str, Row] | None = None,
) -> bytes:
    """Draw metrics against an axis of `rows` on a logarithmic scale, one panel a metric.

    Args:
        rows: the points; those without the metric are left out.
        axis_name: the field that runs to the right.
        label: what that axis is called.
        metrics: fields to draw.
        title: above all.
        references: further results, drawn as broken lines across: name -> row.
    """
    figure, axes = panels(len(metrics), title)
    for panel, metric in zip(axes, metrics, strict=True):
        x, y = _points(rows, axis_name, metric)
        panel.plot(x, 100 * y, marker="o", markersize=4)
        for (name, row), style in zip((references or {}).items(), cycle(_STYLES), strict=False):
            if not np.isnan(_number(row, metric)):
                height = 100 * _number(row, metric)
                panel.axhline(height, linestyle=style, color="grey", label=name)
                panel.legend(fontsize=8)
        if len(x):
            panel.set_xscale("log")
        panel.set(title=f"{METRICS[metric].label} (%)", xlabel=label)
        panel.grid(alpha=0.3)
    return as_png(figure)


def _number(row: Row, name: str) -> float:
    value = row.get(name)
    return np.nan if value is None else float(value)


def _points(rows: Sequence[Row], x: str, y: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give fields `x` and `y` of the rows that have both, by rising x."""
    points = np.array([[_number(row, x), _number(row, y)] for row in rows]).reshape(-1, 2)
    points = points[~np.isnan(points).any(axis=1)]
    points = points[points[:, 0].argsort(kind="stable")]
    return points[:, 0], points[:, 1]


def draw_heatmaps(rows: Sequence[Row], title: str) -> bytes:
    """Draw one panel a metric: C to the right, k upwards; a cross where a point failed."""
    figure, axes = panels(len(PUBLISHED), title, (4.0, 3.8))
    for axis, metric in zip(axes, PUBLISHED, strict=True):
        widths, ks, values = cells(rows, metric)
        shown = np.ma.masked_invalid(100 * values)
        axis.imshow(shown, origin="lower", cmap="viridis", aspect="auto")
        middle = float(shown.mean()) if shown.count() else 0.0
        for (i, j), value in np.ndenumerate(values):
            colour = "white" if 100 * value <= middle else "black"
            text = "x" if np.isnan(value) else percent(value)
            axis.text(j, i, text, ha="center", va="center", fontsize=8, color=colour)
        axis.set_xticks(range(len(widths)), [str(width) for width in widths])
        axis.set_yticks(range(len(ks)), [str(k) for k in ks])
        label = METRICS[metric].label
        axis.set(title=f"{label} (%)", xlabel="dictionary size C", ylabel="sparsity k")
    return as_png(figure)


def cells(rows: Sequence[Row], metric: str) -> tuple[list[int], list[int], NDArray[np.float64]]:
    """Give widths, ks and the metric's mean over seeds `(len(ks), len(widths))`, NaN for none."""
    found: dict[tuple[int, int], list[float]] = {}
    for row in rows:
        place = int(_number(row, "k")), int(_number(row, "width"))
        found.setdefault(place, []).append(_number(row, metric))
    known = {place: [v for v in values if not np.isnan(v)] for place, values in found.items()}
    ks, widths = (sorted(set(axis)) for axis in zip(*found, strict=True))
    values = np.full((len(ks), len(widths)), np.nan)
    for (k, width), here in known.items():
        if here:
            values[ks.index(k), widths.index(width)] = np.mean(here)
    return widths, ks, values


def draw_by_layer(lines: Mapping[str, Sequence[Row]], title: str) -> bytes:
    """Draw one panel a metric, layers to the right: a line a name, the mean of a layer's rows.

    Rows whose `layer` is several, `2+5`, are lines across.
    """
    figure, axes = panels(len(PUBLISHED), title)
    for axis, metric in zip(axes, PUBLISHED, strict=True):
        for name, rows in lines.items():
            means = _means(rows, "layer", metric)
            single = sorted((int(layer), mean) for layer, mean in means.items() if layer.isdigit())
            layers, values = [layer for layer, _ in single], [mean for _, mean in single]
            [line] = axis.plot(layers, values, marker="o", markersize=4, label=name)
            axis.set_xticks(layers)
            several = [(layer, mean) for layer, mean in means.items() if not layer.isdigit()]
            for (layer, mean), style in zip(several, cycle(_STYLES), strict=False):
                axis.axhline(mean, linestyle=style, color=line.get_color(), label=layer)
        axis.set(title=f"{METRICS[metric].label} (%)", xlabel="layer")
        axis.grid(alpha=0.3)
        if len(axis.get_legend_handles_labels()[1]) > 1:
            axis.legend(fontsize=8)
    return as_png(figure)


def _means(rows: Sequence[Row], name: str, metric: str) -> dict[str, float]:
    """Give the mean of a metric in % for each value of a field, NaN for none."""
    found: dict[str, list[float]] = {}
    for row in rows:
        found.setdefault(str(row[name]), []).append(100 * _number(row, metric))
    known = {value: [v for v in all_ if not np.isnan(v)] for value, all_ in found.items()}
    return {value: float(np.mean(one)) if one else np.nan for value, one in known.items()}


def draw_bars(rows: Sequence[Row], name: str, title: str) -> bytes:
    """Draw a group of bars a metric, a bar a row, which field `name` tells apart."""
    figure, (axis,) = panels(1, title, (8.0, 3.8))
    places, width = np.arange(len(PUBLISHED)), 0.8 / len(rows)
    for i, row in enumerate(rows):
        values = np.array([_number(row, metric) for metric in PUBLISHED])
        heights = 100 * np.nan_to_num(values)
        bars = axis.bar(places + (i - (len(rows) - 1) / 2) * width, heights, width)
        bars.set_label(str(row[name]))
        told = [percent(None if np.isnan(value) else value) for value in values]
        axis.bar_label(bars, told, fontsize=7, rotation=90, padding=2)
    axis.set_xticks(places, [METRICS[metric].label for metric in PUBLISHED])
    axis.set(ylabel="%", ylim=(0, 115))
    axis.legend(fontsize=8, ncols=len(rows), loc="upper center")
    return as_png(figure)


def draw_training(lines: Sequence[Row], plots: Mapping[str, Sequence[str]], title: str) -> bytes:
    """Draw fields of a log over its steps, one panel an entry of `plots`: title -> fields."""
    figure, axes = panels(len(plots), title, (4.2, 3.2))
    for axis, (name, fields) in zip(axes, plots.items(), strict=True):
        for field in fields:
            axis.plot(*_points(lines, "step", field), linewidth=1.2, label=field)
        axis.set(title=name, xlabel="step")
        axis.grid(alpha=0.3)
        if len(fields) > 1:
            axis.legend(fontsize=8)
    return as_png(figure)

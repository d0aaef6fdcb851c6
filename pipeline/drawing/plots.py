"""Metrics as plots: lines against one axis, a grid of heatmaps, groups of bars; and fits as curves.

Metrics are shares in [0, 1], drawn in %.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.drawing.canvas import as_png, panels
from pipeline.metrics import METRICS, PUBLISHED, percent

Row = Mapping[str, Any]


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
        references: further results, drawn as dashed lines: name -> row.
    """
    figure, axes = panels(len(metrics), title)
    for panel, metric in zip(axes, metrics, strict=True):
        known = sorted(
            (row[axis_name], 100 * row[metric]) for row in rows if row.get(metric) is not None
        )
        panel.plot([x for x, _ in known], [y for _, y in known], marker="o", markersize=4)
        for name, row in (references or {}).items():
            if row.get(metric) is not None:
                panel.axhline(100 * row[metric], linestyle="--", color="grey", label=name)
                panel.legend(fontsize=8)
        if known:
            panel.set_xscale("log")
        panel.set(title=f"{METRICS[metric].label} (%)", xlabel=label)
        panel.grid(alpha=0.3)
    return as_png(figure)


def draw_heatmaps(rows: Sequence[Row], title: str) -> bytes:
    """Draw one panel a metric: C to the right, k upwards; a cross where a point failed."""
    figure, axes = panels(len(PUBLISHED), title, (4.0, 3.8))
    for axis, metric in zip(axes, PUBLISHED, strict=True):
        widths, ks, values = cells(rows, metric)
        shown = np.ma.masked_invalid(100 * values)
        axis.imshow(shown, origin="lower", cmap="viridis", aspect="auto")
        middle = float(shown.mean()) if shown.count() else 0.0
        for (i, j), value in np.ndenumerate(values):
            known = not np.isnan(value)
            colour = "white" if known and 100 * value <= middle else "black"
            text = percent(value) if known else "x"
            axis.text(j, i, text, ha="center", va="center", fontsize=8, color=colour)
        axis.set_xticks(range(len(widths)), [str(width) for width in widths])
        axis.set_yticks(range(len(ks)), [str(k) for k in ks])
        label = METRICS[metric].label
        axis.set(title=f"{label} (%)", xlabel="dictionary size C", ylabel="sparsity k")
    return as_png(figure)


def cells(rows: Sequence[Row], metric: str) -> tuple[list[int], list[int], NDArray[np.float64]]:
    """Give widths, ks and the metric's mean over seeds `(len(ks), len(widths))`, NaN for none."""
    widths = sorted({int(row["width"]) for row in rows})
    ks = sorted({int(row["k"]) for row in rows})
    values = np.full((len(ks), len(widths)), np.nan)
    for i, k in enumerate(ks):
        for j, width in enumerate(widths):
            here = [
                row[metric]
                for row in rows
                if (row["k"], row["width"]) == (k, width) and row.get(metric) is not None
            ]
            if here:
                values[i, j] = np.mean(here)
    return widths, ks, values


def draw_bars(rows: Sequence[Row], name: str, title: str) -> bytes:
    """Draw a group of bars a metric, a bar a row, which field `name` tells apart."""
    figure, (axis,) = panels(1, title, (8.0, 3.8))
    places, width = np.arange(len(PUBLISHED)), 0.8 / len(rows)
    for i, row in enumerate(rows):
        heights = [100 * (row.get(metric) or 0.0) for metric in PUBLISHED]
        bars = axis.bar(places + (i - (len(rows) - 1) / 2) * width, heights, width)
        bars.set_label(str(row[name]))
        told = [percent(row.get(metric)) for metric in PUBLISHED]
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
            points = [(line["step"], line[field]) for line in lines if field in line]
            axis.plot([x for x, _ in points], [y for _, y in points], linewidth=1.2, label=field)
        axis.set(title=name, xlabel="step")
        axis.grid(alpha=0.3)
        if len(fields) > 1:
            axis.legend(fontsize=8)
    return as_png(figure)

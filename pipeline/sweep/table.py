"""A sweep's results: one Parquet table, and heatmaps over width and k as in the paper's Fig. 2."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

PANELS = {
    "image_auroc": "image AUROC",
    "image_ap": "image AP",
    "pixel_auroc": "pixel AUROC",
    "pixel_aupro": "pixel AUPRO",
}
_AXES = ("recipe", "order")


def sweep_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Give one row a configuration; null where a point did not get that far."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pa.table({name: _column([row.get(name) for row in rows]) for name in names})


def _column(values: list[Any]) -> "pa.Array[Any]":
    """Give a column; one without any value, such as reasons of failure, is text."""
    return pa.array(values, pa.string() if all(value is None for value in values) else None)


def to_parquet(table: pa.Table) -> bytes:
    """Give a table as a Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue().to_pybytes())


def heatmaps(rows: Sequence[Mapping[str, Any]], title: str) -> dict[str, bytes]:
    """Draw C x k for every combination of the other axes, mean over seeds: file name -> PNG."""
    others = [name for name in rows[0] if name in _AXES or "." in name]
    combinations: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        combinations.setdefault(tuple(row[name] for name in others), []).append(row)
    varied = [i for i in range(len(others)) if len({values[i] for values in combinations}) > 1]
    figures = {}
    for number, (values, chosen) in enumerate(combinations.items(), start=1):
        name = "heatmaps.png" if number == 1 else f"heatmaps-{number}.png"
        told = ", ".join(f"{others[i]} {values[i]}" for i in varied)
        figures[name] = draw_heatmaps(chosen, f"{title}\n{told}" if told else title)
    return figures


def cells(
    rows: Sequence[Mapping[str, Any]], metric: str
) -> tuple[list[int], list[int], np.ndarray[Any, np.dtype[np.float64]]]:
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


def draw_heatmaps(rows: Sequence[Mapping[str, Any]], title: str) -> bytes:
    """Draw one panel a metric, in %: C to the right, k upwards; a cross where a point failed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.0 * len(PANELS), 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(PANELS), squeeze=False)[0]
    for axis, (metric, label) in zip(panels, PANELS.items(), strict=True):
        widths, ks, values = cells(rows, metric)
        shown = np.ma.masked_invalid(100 * values)
        axis.imshow(shown, origin="lower", cmap="viridis", aspect="auto")
        middle = float(shown.mean()) if shown.count() else 0.0
        for i in range(len(ks)):
            for j in range(len(widths)):
                known = not np.isnan(values[i, j])
                text = f"{100 * values[i, j]:.1f}" if known else "x"
                colour = "white" if known and 100 * values[i, j] <= middle else "black"
                axis.text(j, i, text, ha="center", va="center", fontsize=8, color=colour)
        axis.set_xticks(range(len(widths)), [str(width) for width in widths])
        axis.set_yticks(range(len(ks)), [str(k) for k in ks])
        axis.set(title=f"{label} (%)", xlabel="dictionary size C", ylabel="sparsity k")
    figure.suptitle(title, fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()

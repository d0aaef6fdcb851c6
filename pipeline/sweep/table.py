"""A sweep's results: one Parquet table, and heatmaps over width and k as in the paper's Fig. 2."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipeline.artifacts.terms import Cell, Row
from pipeline.drawing.plots import draw_by_layer, draw_heatmaps

_AXES = ("layer", "recipe", "order")


def sweep_table(rows: Sequence[Mapping[str, Cell]]) -> pa.Table:
    """Give one row a configuration; null where a point did not get that far."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pa.table({name: _column([row.get(name) for row in rows]) for name in names})


def _column(values: list[Cell]) -> "pa.Array[Any]":
    """Give a column; one without any value, such as reasons of failure, is text."""
    return pa.array(values, pa.string() if all(value is None for value in values) else None)


def heatmaps(rows: Sequence[Row], title: str) -> dict[str, bytes]:
    """Draw C x k for every combination of the other axes, mean over seeds: file name -> PNG."""
    others = [name for name in rows[0] if name in _AXES or "." in name]
    combinations: dict[tuple[Cell, ...], list[Row]] = {}
    for row in rows:
        combinations.setdefault(tuple(row[name] for name in others), []).append(row)
    varied = [i for i in range(len(others)) if len({values[i] for values in combinations}) > 1]
    figures = {}
    for number, (values, chosen) in enumerate(combinations.items(), start=1):
        name = "heatmaps.png" if number == 1 else f"heatmaps-{number}.png"
        told = ", ".join(f"{others[i]} {values[i]}" for i in varied)
        figures[name] = draw_heatmaps(chosen, f"{title}\n{told}" if told else title)
    return figures


def by_layer(rows: Sequence[Row], title: str) -> dict[str, bytes]:
    """Draw metrics by layer, a line a configuration, mean over seeds; none for one layer."""
    if len({row.get("layer") for row in rows}) < 2:
        return {}
    others = [name for name in rows[0] if name in ("width", "k", *_AXES[1:]) or "." in name]
    lines: dict[tuple[Cell, ...], list[Row]] = {}
    for row in rows:
        lines.setdefault(tuple(row.get(name) for name in others), []).append(row)
    varied = [i for i in range(len(others)) if len({values[i] for values in lines}) > 1]
    named = {
        ", ".join(f"{others[i]} {values[i]}" for i in varied): found
        for values, found in lines.items()
    }
    return {"layers.png": draw_by_layer(named, title)}

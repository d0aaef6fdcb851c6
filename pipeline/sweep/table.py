"""A sweep's results: one Parquet table, heatmaps over C and k as in Fig. 2, lines by layer."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipeline.artifacts.terms import Cell, Row
from pipeline.drawing.canvas import Strip
from pipeline.drawing.heat import heat_strips
from pipeline.drawing.plots import layer_strip
from pipeline.words import option_words

_AXES = ("layer", "recipe", "order")


def sweep_table(rows: Sequence[Mapping[str, Cell]]) -> pa.Table:
    """Give one row a configuration; null where a point did not get that far."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pa.table({name: _column([row.get(name) for row in rows]) for name in names})


def _column(values: list[Cell]) -> "pa.Array[Any]":
    """Give a column; one without any value, such as reasons of failure, is text."""
    return pa.array(values, pa.string() if all(value is None for value in values) else None)


def heatmaps(rows: Sequence[Row], title: str) -> list[Strip]:
    """Draw C x k for every combination of the other axes, mean over seeds, a strip each."""
    others = [name for name in rows[0] if name in _AXES or "." in name]
    return heat_strips(_told(rows, others, title))


def by_layer(rows: Sequence[Row], title: str) -> list[Strip]:
    """Draw metrics by layer, a line a configuration, mean over seeds; none for one layer."""
    if len({row.get("layer") for row in rows}) < 2:
        return []
    others = [name for name in rows[0] if name in ("width", "k", *_AXES[1:]) or "." in name]
    return [layer_strip(_told(rows, others), title)]


def figures(rows: Sequence[Row], title: str) -> dict[str, list[Strip]]:
    """Give all pictures of a sweep: file name -> what is drawn in it."""
    drawn = {
        "heatmaps.png" if number == 1 else f"heatmaps-{number}.png": [strip]
        for number, strip in enumerate(heatmaps(rows, title), start=1)
    }
    layers = by_layer(rows, title)
    return drawn | ({"layers.png": layers} if layers else {})


def _told(rows: Sequence[Row], others: Sequence[str], title: str = "") -> dict[str, list[Row]]:
    """Part rows by some axes, and say of each part what it does not share with all."""
    parts: dict[tuple[Cell, ...], list[Row]] = {}
    for row in rows:
        parts.setdefault(tuple(row.get(name) for name in others), []).append(row)
    varied = [i for i in range(len(others)) if len({values[i] for values in parts}) > 1]
    found = {}
    for values, chosen in parts.items():
        told = [option_words(others[i], values[i]) for i in varied]
        found[", ".join([title, *told] if title else told)] = chosen
    return found

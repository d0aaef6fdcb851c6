"""Metrics as tables that people read."""

import io
from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

COLUMNS = {
    "image_auroc": "image AUROC",
    "image_ap": "AP",
    "image_f1max": "F1-max",
    "pixel_auroc": "pixel AUROC",
    "pixel_ap": "AP",
    "pixel_aupro": "AUPRO",
    "pixel_f1max": "F1-max",
}


def metrics_table(document: Mapping[str, Any]) -> str:
    """Give the content of `metrics.json` as a text table in %, the mean last, with footnotes."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("category")
    for title in COLUMNS.values():
        table.add_column(title, justify="right")
    rows = dict(document["categories"])
    for name, values in rows.items():
        table.add_row(name, *(percent(values[column]) for column in COLUMNS))
    table.add_section()
    table.add_row("mean", *(percent(document["mean"][column]) for column in COLUMNS))
    notes = [f"in %; AUPRO {document['aupro']}"]
    for name, values in rows.items():
        reasons = {values.get("image_reason"), values.get("pixel_reason")} - {None}
        notes += [f"{name}: {reason}" for reason in sorted(reasons)]
    text = io.StringIO()
    console = Console(file=text, width=max(80, len(max(rows, key=len)) + 90))
    console.print(table)
    return text.getvalue().rstrip() + "\n" + "\n".join(notes)


def percent(value: float | None) -> str:
    """Give a share as `92.3`, a dash where there is none."""
    return "-" if value is None else f"{100 * value:.1f}"

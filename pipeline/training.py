"""What both fits share: a JSON-lines log beside the artifact, and its picture."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cache.objects import Objects

LOG = "training.jsonl"
PICTURE = "training.png"


class TrainingLog:
    """Metrics of a running fit, one JSON object a line, in `training.jsonl` of its folder.

    On a local store each line is on disk as soon as it is written, so `tail -f` follows a run. An
    object store cannot append: there the file is written by `close`.
    """

    def __init__(self, store: Objects, folder: str) -> None:
        self.lines: list[dict[str, Any]] = []
        self._store = store
        self._name = f"{folder}/{LOG}"
        path: Path | None = store.local_path(self._name)
        self._file = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("w", encoding="utf-8")

    def add(self, line: Mapping[str, Any]) -> None:
        """Append one line."""
        self.lines.append(dict(line))
        if self._file is not None:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Finish the file; on an object store this is what writes it."""
        if self._file is not None:
            self._file.close()
        else:
            text = "".join(json.dumps(line) + "\n" for line in self.lines)
            self._store.replace(self._name, [text.encode()])


def plot_training(
    lines: Sequence[Mapping[str, Any]], panels: Mapping[str, Sequence[str]], title: str
) -> bytes:
    """Draw curves over steps as a PNG, one panel an entry of `panels` (title -> fields to draw)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(panels), 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, (name, fields) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
    ):
        for field in fields:
            points = [(line["step"], line[field]) for line in lines if field in line]
            axis.plot([x for x, _ in points], [y for _, y in points], linewidth=1.2, label=field)
        axis.set(title=name, xlabel="step")
        axis.grid(alpha=0.3)
        if len(fields) > 1:
            axis.legend(fontsize=8)
    figure.suptitle(title, fontsize=10)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()

"""The log of a running fit: a JSON object a line beside the artifact, and what is drawn of it."""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cache.objects import Objects
from pipeline.tracking import Following
from spg_core.errors import StoreError

LOG = "training.jsonl"
PICTURE = "training.png"
_LARGEST = 1e300

Line = dict[str, float]
"""Of a log: a step, and what was measured there."""

SAE_PANELS: dict[str, list[str]] = {"loss": ["loss"], "FVU": ["fvu"], "dead atoms": ["dead"]}
"""What is drawn of an SAE's log: the title of a panel, the fields in it."""
GUIDE_PANELS: dict[str, list[str]] = {
    "loss": ["loss"],
    "non-zero, last": ["nnz_normal", "nnz_anomaly"],
    "non-zero, EMA": ["ema_nnz_normal", "ema_nnz_anomaly"],
    "l1 norm": ["l1_normal", "l1_anomaly", "ema_l1_normal", "ema_l1_anomaly"],
}
"""What is drawn of the guides' log."""


class TrainingLog:
    """Metrics of a running fit, one JSON object a line, in `training.jsonl` of its folder.

    On a local store each line is on disk as soon as it is written, so `tail -f` follows a run. An
    object store cannot append: there the file is written by `save` and `close`.
    """

    def __init__(
        self, store: Objects, folder: str, keep: int = 0, following: Following | None = None
    ) -> None:
        """Start a log, or go on after step `keep` of the one that is there; a tracker may follow.

        Raises: StoreError.
        """
        self._following = following
        self._store = store
        self._name = f"{folder}/{LOG}"
        self.lines: list[Line] = []
        if keep and store.size(self._name) is not None:
            self.lines = [line for line in read_log(store, folder) if line["step"] <= keep]
        self.save()
        path: Path | None = store.local_path(self._name)
        with self._explained():
            self._file = None if path is None else path.open("a", encoding="utf-8")

    def add(self, line: Mapping[str, float]) -> None:
        """Append one line. Raises: StoreError."""
        self.lines.append(dict(line))
        if self._following is not None:
            self._following.add(line)
        if self._file is not None:
            with self._explained():
                self._file.write(json.dumps(line) + "\n")
                self._file.flush()

    def save(self) -> None:
        """Write the whole file; on a local store each line is there already."""
        text = "".join(json.dumps(line) + "\n" for line in self.lines)
        self._store.replace(self._name, [text.encode()])

    def close(self, finished: bool = True) -> None:
        """Finish the file; `finished` tells a tracker whether the fit is. Raises: StoreError."""
        if self._following is not None:
            self._following.close(finished)
        if self._file is None:
            self.save()
            return
        with self._explained():
            self._file.close()

    @property
    def is_followed(self) -> bool:
        """Whether lines are on disk as soon as they are added."""
        return self._file is not None

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"cannot write {self._store.where}/{self._name} ({error.strerror or error}); once "
                "it can be, run again: the fit goes on from its last checkpoint"
            ) from error


def read_log(store: Objects, folder: str) -> list[Line]:
    """Give the lines of a fit's log, up to a torn or foreign one. Raises: NotInStore."""
    lines: list[Line] = []
    for text in store.get(f"{folder}/{LOG}").splitlines():
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            break
        if not isinstance(line, dict) or not _is_line(line):
            break
        lines.append(line)
    return lines


def _is_line(line: Mapping[str, object]) -> bool:
    """Tell whether a line is of a fit: a step and numbers, none so large that no axis holds it."""
    return type(line.get("step")) is int and all(
        isinstance(value, int | float) and not _LARGEST < abs(value) < math.inf
        for value in line.values()
    )

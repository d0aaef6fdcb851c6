"""What both fits share: a JSON-lines log beside the artifact, its picture, and checkpoints."""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from cache.objects import Objects
from spg_core.errors import CorruptStore, NotInStore

LOG = "training.jsonl"
PICTURE = "training.png"
CHECKPOINT = "checkpoint.safetensors"

SAE_PANELS: dict[str, list[str]] = {"loss": ["loss"], "FVU": ["fvu"], "dead atoms": ["dead"]}
"""What is drawn of an SAE's log: the title of a panel, the fields in it."""
GUIDE_PANELS: dict[str, list[str]] = {
    "loss": ["loss"],
    "non-zero, last": ["nnz_normal", "nnz_anomaly"],
    "non-zero, EMA": ["ema_nnz_normal", "ema_nnz_anomaly"],
    "l1 norm": ["l1_normal", "l1_anomaly", "ema_l1_normal", "ema_l1_anomaly"],
}
"""What is drawn of the guides' log."""


@dataclass(frozen=True)
class Checkpoint:
    """Where a fit stood: the number of steps taken, and its trainer's state."""

    step: int
    tensors: dict[str, Tensor]


def save_checkpoint(store: Objects, folder: str, checkpoint: Checkpoint) -> None:
    """Write a checkpoint in place of the one before, whole or not at all."""
    tensors = {name: tensor.cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
    data = safetensors.torch.save(tensors | {"__step": torch.tensor(checkpoint.step)})
    store.replace(f"{folder}/{CHECKPOINT}", [data])


def load_checkpoint(store: Objects, folder: str) -> Checkpoint | None:
    """Read the last checkpoint, None where there is none. Raises: CorruptStore."""
    name = f"{folder}/{CHECKPOINT}"
    try:
        tensors = safetensors.torch.load(store.get(name))
    except NotInStore:
        return None
    except safetensors.SafetensorError as error:
        raise CorruptStore(
            f"{store.where}/{name} cannot be read ({error}); delete it to start this fit anew"
        ) from None
    return Checkpoint(int(tensors.pop("__step")), tensors)


def drop_checkpoint(store: Objects, folder: str) -> None:
    """Delete the checkpoint of a fit that is finished."""
    store.delete(f"{folder}/{CHECKPOINT}")


class TrainingLog:
    """Metrics of a running fit, one JSON object a line, in `training.jsonl` of its folder.

    On a local store each line is on disk as soon as it is written, so `tail -f` follows a run. An
    object store cannot append: there the file is written by `save` and `close`.
    """

    def __init__(self, store: Objects, folder: str, keep: int = 0) -> None:
        """Start a log, or go on after step `keep` of the one that is there."""
        self._store = store
        self._name = f"{folder}/{LOG}"
        self.lines: list[dict[str, Any]] = []
        if keep and store.size(self._name) is not None:
            self.lines = [line for line in read_log(store, folder) if line["step"] <= keep]
        path: Path | None = store.local_path(self._name)
        self._file = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("w", encoding="utf-8")
            self._file.write("".join(json.dumps(line) + "\n" for line in self.lines))

    def add(self, line: Mapping[str, Any]) -> None:
        """Append one line."""
        self.lines.append(dict(line))
        if self._file is not None:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()

    def save(self) -> None:
        """Write the file on an object store; on a local one each line is there already."""
        if self._file is None:
            text = "".join(json.dumps(line) + "\n" for line in self.lines)
            self._store.replace(self._name, [text.encode()])

    def close(self) -> None:
        """Finish the file."""
        if self._file is not None:
            self._file.close()
        else:
            self.save()


def read_log(store: Objects, folder: str) -> list[dict[str, Any]]:
    """Give the lines of a fit's log, up to a torn one. Raises: NotInStore."""
    lines = []
    with contextlib.suppress(ValueError):
        for text in store.get(f"{folder}/{LOG}").decode().splitlines():
            lines.append(json.loads(text))
    return lines

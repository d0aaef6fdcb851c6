"""Checkpoints: where a fit stood, so that one that was killed ends with the bits of one go."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from blake3 import blake3
from msgspec import Meta
from torch import Tensor

from cache.objects import Objects
from pipeline.artifacts.bodies import carried_document, decode_tensors, encode_tensors
from pipeline.artifacts.parse import FORMAT, parse_document, read_document, to_json
from pipeline.artifacts.terms import Number
from pipeline.kinds import CHECKPOINT
from spg_core.errors import CorruptStore

_HEADER_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class CheckpointDocument:
    """What a checkpoint says of itself."""

    kind: ClassVar[str] = "checkpoint"
    steps: Number
    """Taken so far."""
    blake3: Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z", description="64 hex digits")]
    """Of the names, types, shapes and values of the tensors."""

    def check(self) -> None:
        """Nothing can contradict itself here."""


def save_checkpoint(store: Objects, folder: str, state: Mapping[str, Tensor]) -> None:
    """Write a trainer's state in place of the one before, whole or not at all. Raises: StoreError.

    One that cannot be written leaves the one before as it is.
    """
    document = to_json(_describe(state))
    text = json.dumps({"format": FORMAT, "kind": CheckpointDocument.kind, **document})
    store.replace(f"{folder}/{CHECKPOINT}", [encode_tensors(state, text)])


def load_checkpoint(
    store: Objects, folder: str, like: Mapping[str, Tensor]
) -> dict[str, Tensor] | None:
    """Read the state of the last checkpoint, as large as `like`; None where there is none.

    Raises: CorruptStore for one that is damaged, StoreError for one that cannot be read.
    """
    name = f"{folder}/{CHECKPOINT}"
    size_bytes = store.size(name)
    if size_bytes is None:
        return None
    try:
        most = sum(tensor.nbytes for tensor in like.values()) + _HEADER_BYTES
        if size_bytes > most:
            raise CorruptStore(f"it holds {size_bytes} bytes")
        return _checked(store.get(name, most))
    except CorruptStore as error:
        raise CorruptStore(f"{store.where}/{name} is damaged ({error})") from None


def checkpoint_time(store: Objects, folder: str) -> float | None:
    """Tell when a checkpoint was written, in seconds since the epoch, None where there is none."""
    name = f"{folder}/{CHECKPOINT}"
    return next((one.modified for one in store.walk(folder) if one.name == name), None)


def _checked(data: bytes) -> dict[str, Tensor]:
    """Give the tensors of a file, if they are those that it describes. Raises: CorruptStore."""
    raw = read_document(carried_document(data, "it"), "it", CheckpointDocument.kind, "a checkpoint")
    document, tensors = parse_document(raw, CheckpointDocument, "it"), decode_tensors(data, "it")
    if "n_steps" not in tensors or _describe(tensors) != document:
        raise CorruptStore("its steps or its checksum are others")
    return tensors


def drop_checkpoint(store: Objects, folder: str) -> None:
    """Delete the checkpoint of a fit that is finished."""
    store.delete(f"{folder}/{CHECKPOINT}")


def _describe(state: Mapping[str, Tensor]) -> CheckpointDocument:
    digest = blake3()
    for name, tensor in sorted(state.items()):
        values = tensor.cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return CheckpointDocument(steps=int(state["n_steps"]), blake3=digest.hexdigest())

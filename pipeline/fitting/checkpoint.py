"""Checkpoints: where a fit stood, so that one that was killed ends with the bits of one go."""

import json
from collections.abc import Mapping
from contextlib import suppress

import safetensors
import safetensors.torch
import torch
from blake3 import blake3
from torch import Tensor

from cache.objects import Objects
from spg_core.errors import CorruptStore, StoreError

CHECKPOINT = "checkpoint.safetensors"
_HEADER_BYTES = 1 << 20


def save_checkpoint(store: Objects, folder: str, state: Mapping[str, Tensor]) -> None:
    """Write a trainer's state in place of the one before, whole or not at all. Raises: StoreError.

    One that cannot be written leaves the one before as it is.
    """
    tensors = {name: tensor.cpu().contiguous() for name, tensor in state.items()}
    data = safetensors.torch.save(tensors, {"blake3": _digest(tensors)})
    store.replace(f"{folder}/{CHECKPOINT}", [data])


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
    most = sum(tensor.nbytes for tensor in like.values()) + _HEADER_BYTES
    if size_bytes > most:
        raise CorruptStore(f"{store.where}/{name} is damaged (it holds {size_bytes} bytes)")
    data = store.get(name, most)
    try:
        tensors = dict(safetensors.torch.load(data))
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except (safetensors.SafetensorError, ValueError, LookupError, TypeError) as error:
        raise CorruptStore(f"{store.where}/{name} is damaged ({error})") from None
    if (header.get("__metadata__") or {}).get("blake3") != _digest(tensors):
        raise CorruptStore(f"{store.where}/{name} is damaged (its checksum is another)")
    return tensors


def drop_checkpoint(store: Objects, folder: str) -> None:
    """Delete the checkpoint of a fit that is finished."""
    store.delete(f"{folder}/{CHECKPOINT}")


def drop_leftover(store: Objects, folder: str) -> None:
    """Delete the checkpoint of an artifact that was whole when its fit was cut off."""
    with suppress(StoreError):  # it only takes room
        if not store.read_only and store.size(f"{folder}/{CHECKPOINT}") is not None:
            drop_checkpoint(store, folder)


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = blake3()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()

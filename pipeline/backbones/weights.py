"""Weights files: what is in them, and their digest.

Hub weights are first had as a local file, so a file given by hand and the same file from the hub
have one digest and hence one cache key. What a file is, its bytes say, never its name.
"""

import hashlib
import pickle
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.backbones.hub import first_line
from spg_core.errors import BackboneError


def sha256_of_file(path: Path) -> str:
    """Give the SHA-256 of a file's bytes as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_weights_file(path: Path) -> None:
    """Refuse a path that is not a regular file; nothing is opened, so nothing can wait.

    Raises:
        BackboneError: there is no such file, or it is a folder, a pipe, a device, or empty.
    """
    try:
        status = path.stat()
    except OSError:
        raise BackboneError(
            f"no weights file at {path}; --weights takes a safetensors or torch file"
        ) from None
    if not stat.S_ISREG(status.st_mode):
        kind = "folder" if stat.S_ISDIR(status.st_mode) else "pipe, socket or device"
        raise BackboneError(
            f"{path} is a {kind}; --weights takes a safetensors or torch file, so name the file"
        )
    if status.st_size == 0:
        raise BackboneError(f"the weights file {path} is empty; download it again")


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read named tensors from a safetensors file or, with `weights_only=True`, from a torch file.

    A training checkpoint that wraps them (`state_dict`, `model`, their EMA forms) is unwrapped, and
    the prefixes that data-parallel and compiled models add are removed.

    Returns: tensors by name; those of floats are float32, whatever the file stores.

    Raises:
        BackboneError: the file is damaged, holds other objects, or holds no named tensors.
    """
    check_weights_file(path)
    state = _unwrapped(_read_safetensors(path) if _is_safetensors(path) else _read_torch(path))
    if not state:
        raise BackboneError(f"{path} holds no named tensors; expected a model's state dict")
    return {
        _bare(key): value.float() if value.is_floating_point() else value
        for key, value in state.items()
    }


def _is_safetensors(path: Path) -> bool:
    """Tell by a file's first bytes: the length of a JSON header, then the header."""
    with path.open("rb") as file:
        start = file.read(9)
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size


def _read_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise BackboneError(
            f"{path} is a damaged safetensors file ({first_line(error)}); download it again"
        ) from error


def _read_torch(path: Path) -> Any:
    try:
        with path.open("rb") as file:  # of a path, torch judges by its name, too
            return torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, AttributeError, KeyError) as error:
        raise BackboneError(
            f"{path} cannot be read as weights ({first_line(error)}); expected a safetensors "
            f"file or a torch file of plain tensors, which is all that weights_only=True lets in"
        ) from error


_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model_state", "model")


def _unwrapped(content: Any) -> dict[str, Tensor]:
    """Find the named tensors in what a file held, EMA first, as timm does."""
    if not isinstance(content, dict):
        return {}
    for wrapper in _WRAPPERS:
        if isinstance(content.get(wrapper), dict):
            return _unwrapped(content[wrapper])
    return {str(key): value for key, value in content.items() if isinstance(value, Tensor)}


def _bare(key: str) -> str:
    """Remove what data-parallel and compiled models put before a name, in either order."""
    for prefix in ("_orig_mod.", "module.", "_orig_mod."):
        key = key.removeprefix(prefix)
    return key


_NAMED = 5


def require_fit(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], subject: str) -> None:
    """Refuse tensors that are not, by name and shape, those that a model has.

    Raises:
        BackboneError: `subject`, then what is missing, what has no place and what has another
            shape, at most five names of each.
    """
    both = [key for key in wanted if key in found]
    problems = [
        ("Missing keys: ", [key for key in wanted if key not in found]),
        ("Unexpected keys: ", [key for key in found if key not in wanted]),
        ("", [
            f"size mismatch for {key}: {tuple(found[key].shape)} in the file, "
            f"{tuple(wanted[key].shape)} in the model"
            for key in both if found[key].shape != wanted[key].shape
        ]),
    ]  # fmt: skip
    said = [
        word + ", ".join(names[:_NAMED]) + (f", .. {len(names)} in all" * (len(names) > _NAMED))
        for word, names in problems
        if names
    ]
    if said:
        raise BackboneError(f"{subject}: {'; '.join(said)}; give the weights of this very model")

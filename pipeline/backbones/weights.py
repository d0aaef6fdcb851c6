"""Weights files: the tensors in them, and whether they are a model's.

Hub weights are first had as a local file, so a file given by hand and the same file from the hub
have one digest and hence one cache key. What a file is, its bytes say, never its name.
"""

import argparse
import pickle
import warnings
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor

from pipeline.backbones.archives import (
    check_archive,
    module_tensors,
    read_among_objects,
    read_torchscript,
)
from pipeline.backbones.file_kind import kind_of
from pipeline.backbones.hub import first_line
from pipeline.backbones.in_parts import index_of, parts_of
from pipeline.backbones.key_names import COUNTERS, NOISE, WRAPPERS
from spg_core.errors import BackboneError


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read named tensors from a safetensors file, a torch file, a TorchScript archive, an index.

    Nothing of the file is run. A training checkpoint that wraps the tensors (`state_dict`,
    `teacher`, their averages) is unwrapped, and what data-parallel and compiled models add to
    names is removed.

    Raises:
        BackboneError: the file is damaged, holds other objects, or holds no named tensors; a part
            that an index names is not there, or does not hold what the index says.
    """
    content: object
    match kind_of(path):
        case "safetensors":
            if index := index_of(path):
                raise BackboneError(f"{path} is one part of weights in several files; give {index}")
            content = _read_safetensors(path)
        case "torchscript":
            content = read_torchscript(path)
        case "torch":
            content = _read_torch(path)
        case "index":
            content = _read_parts(path)
    state = _unwrapped(content)
    if not state:
        raise BackboneError(f"{path} holds no named tensors; expected a model's state dict")
    return {_bare(key): value for key, value in state.items() if key not in COUNTERS}


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except (SafetensorError, OSError, RuntimeError) as error:
        raise BackboneError(
            f"{path} is a damaged safetensors file ({first_line(error)}); download it again"
        ) from error


def _read_parts(index: Path) -> dict[str, Tensor]:
    """Read weights in several files, each held to what the index says of it."""
    found: dict[str, Tensor] = {}
    for part, names in parts_of(index).items():
        kind = kind_of(part)
        if kind not in ("safetensors", "torch"):
            raise BackboneError(f"{index} names {part.name}, which is no file of tensors: {kind}")
        content = _read_safetensors(part) if kind == "safetensors" else _read_torch(part)
        tensors = _unwrapped(content)
        require_names(tensors, names, f"{part} does not hold what {index.name} says")
        found |= tensors
    return found


def _read_torch(path: Path) -> object:
    if zipfile.is_zipfile(path):
        check_archive(path)
    try:
        # An open file: of a path, torch judges by its name, too. timm keeps its options in the
        # files, as a Namespace, which can do no harm.
        with (
            warnings.catch_warnings(action="ignore"),
            path.open("rb") as file,
            torch.serialization.safe_globals([argparse.Namespace]),
        ):
            return torch.load(file, map_location="cpu", weights_only=True)
    except (
        pickle.UnpicklingError, RuntimeError, EOFError, AttributeError, KeyError, ValueError,
        TypeError, IndexError, OSError, MemoryError, OverflowError, RecursionError,
    ) as error:  # fmt: skip
        content = read_among_objects(path)
        if _unwrapped(content):
            return content
        said = first_line(error)
        reason = "it holds other objects" if said.startswith("Weights only") else said
        raise BackboneError(
            f"{path} cannot be read as weights ({reason}); expected a torch file of plain tensors, "
            "which is all that weights_only=True lets in. Where you trust it: "
            f"python -c \"import torch; m = torch.load('{path.name}', 'cpu', weights_only=False); "
            "torch.save(m['state_dict'] if type(m) is dict else m.state_dict(), 'weights.pth')\""
        ) from error


def _unwrapped(content: object) -> dict[str, Tensor]:
    """Find the named tensors in what a file held, the averaged ones first, as timm does."""
    if not isinstance(content, dict):
        return module_tensors(content)
    for wrapper in WRAPPERS:
        inner = content.get(wrapper)
        if isinstance(inner, dict) or module_tensors(inner):
            return _unwrapped(inner)
    return {str(key): value for key, value in content.items() if isinstance(value, Tensor)}


def _bare(key: str) -> str:
    """Remove what compiled, sharded and data-parallel models put into a name."""
    for noise in NOISE:
        key = key.replace(noise, "")
    return key.removeprefix("module.")


_NAMED = 5


def require_names(found: Collection[str], wanted: Collection[str], subject: str) -> None:
    """Refuse tensors that are not, by name, those that a model has.

    Raises:
        BackboneError: `subject`, then what is missing and what has no place, at most five names.
    """
    problems = {
        "Missing keys": [key for key in wanted if key not in found],
        "Unexpected keys": [key for key in found if key not in wanted],
    }
    said = [f"{word}: {some(names)}" for word, names in problems.items() if names]
    if said:
        raise BackboneError(f"{subject}: {'; '.join(said)}; give the weights of this very model")


def require_shapes(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], subject: str) -> None:
    """Refuse tensors that have not, name for name, the shapes of a model's.

    Raises:
        BackboneError: `subject`, then at most five that differ, with both shapes.
    """
    said = [
        f"size mismatch for {key}: {tuple(found[key].shape)} in the file, "
        f"{tuple(wanted[key].shape)} in the model"
        for key in wanted
        if found[key].shape != wanted[key].shape
    ]
    if said:
        raise BackboneError(f"{subject}: {some(said)}; give the weights of this very model")


def some(names: Collection[str]) -> str:
    """Write at most five names."""
    first = ", ".join(sorted(names)[:_NAMED])
    return first + (f", .. {len(names)} in all" if len(names) > _NAMED else "")

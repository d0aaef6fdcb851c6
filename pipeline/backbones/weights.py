"""Weights files: where they come from, what is in them, and their digest.

Hub weights are first resolved to a local file, so a file given by hand and the same file from the
hub have one digest and hence one cache key. Weights that cannot be had are an error, never random.
"""

import hashlib
import pickle
from collections.abc import Sequence
from pathlib import Path

import torch

from spg_core.errors import BackboneError


def sha256_of_file(path: Path) -> str:
    """Give the SHA-256 of a file's bytes as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_weights_file(path: Path) -> None:
    """Refuse a path that is not a readable file.

    Raises:
        BackboneError: there is no such file, or it is empty.
    """
    if not path.is_file():
        raise BackboneError(
            f"no weights file at {path}; --weights takes a safetensors or torch file"
        )
    if path.stat().st_size == 0:
        raise BackboneError(f"the weights file {path} is empty; download it again")


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """Read named tensors from a safetensors file or, with `weights_only=True`, from a torch file.

    A training checkpoint that wraps them (`state_dict`, `model`, their EMA forms) is unwrapped, and
    the prefixes that data-parallel and compiled models add are removed, as timm does.

    Raises:
        BackboneError: the file is damaged, holds other objects, or holds no named tensors.
    """
    from safetensors import SafetensorError
    from timm.models import load_state_dict

    check_weights_file(path)
    try:
        state = load_state_dict(str(path), device="cpu", weights_only=True)
    except (
        SafetensorError,
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        AttributeError,
    ) as error:
        raise BackboneError(
            f"{path} cannot be read as weights ({first_line(error)}); expected a .safetensors "
            f"file or a torch file of plain tensors, which is all that weights_only=True lets in"
        ) from error
    tensors = {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise BackboneError(f"{path} holds no named tensors; expected a model's state dict")
    return tensors


def hub_file(repository: str, file_names: Sequence[str], *, name: str, gated: bool = False) -> Path:
    """Give the local path of a hub repository's weights, downloading them if they are not cached.

    Args:
        repository: `owner/model` on the hub.
        file_names: candidates, best first.
        name: the backbone as the user typed it, for the message.
        gated: whether the hub asks for a licence to be accepted first.

    Raises:
        BackboneError: neither the hub's cache nor the hub gives any of the files.
    """
    from huggingface_hub import (
        get_hf_file_metadata,
        hf_hub_download,
        hf_hub_url,
        try_to_load_from_cache,
    )
    from huggingface_hub.errors import (  # type: ignore[attr-defined]
        EntryNotFoundError,
        HTTPError,  # of whichever HTTP library this version of the hub's client uses
    )

    # The cache is asked first, so a filled cache works offline and needs no time-out.
    for file_name in file_names:
        cached = try_to_load_from_cache(repository, file_name)
        if isinstance(cached, str):
            return Path(cached).resolve()
    last: Exception | None = None
    for file_name in file_names:
        try:
            # One plain request first: without a network hf_hub_download retries for 20 seconds.
            get_hf_file_metadata(hf_hub_url(repository, file_name))
            return Path(hf_hub_download(repository, file_name)).resolve()
        except EntryNotFoundError as error:
            last = error
        except (HTTPError, OSError, ValueError) as error:
            last = error
            break
    gate = f" (first accept its licence at hf.co/{repository} and log in)" if gated else ""
    raise BackboneError(
        f"the weights of {name} cannot be had: hub repository {repository} is neither cached nor "
        f"reachable ({first_line(last)}); give a file with --weights FILE, fill the hub's cache "
        f"(HF_HOME) on a connected machine{gate}, or name a mirror in HF_ENDPOINT"
    ) from last


def first_line(error: BaseException | None) -> str:
    """Give the first line of an error's message, at most 200 characters, or the error's type."""
    lines = str(error).strip().splitlines() if error else []
    return lines[0][:200] if lines else type(error).__name__

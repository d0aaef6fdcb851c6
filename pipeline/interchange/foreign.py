"""Read an SAE that another program made: its atoms, and by what rule it encodes.

    read_sae("sae_weights.safetensors", d_model=384)     # or the folder of sae-lens

C atoms of width d. Three layouts are known by the names of their tensors: sae-lens (`W_enc`
`(d, C)`, `W_dec` `(C, d)`), sparsify (`encoder.weight` `(C, d)`, `W_dec`), and torch's linear
layers (`encoder.weight`, `decoder.weight` `(d, C)`); ours (`encoder`, `dictionary`) is the fourth.
The rule is what `cfg.json` beside the file says. A file whose rule is not known still has atoms.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from pipeline.artifacts.parse import LARGEST_BYTES, read_json
from pipeline.artifacts.terms import SaeFile
from pipeline.interchange.rules import Rule, rule_of
from pipeline.interchange.saelens import CONFIG, WEIGHTS
from spg_core.errors import ArtifactError, SpgError
from spg_core.sae_weights import SMALLEST_NORM

_DECODERS = {"W_dec": False, "decoder.weight": True, "dictionary": False}
"""Names of the decoder's matrix, and whether it has to be turned to have a row an atom."""


@dataclass(frozen=True)
class ForeignSae:
    """An SAE of others."""

    file: SaeFile
    atoms: Tensor
    """`(C, d)` float32, rows of length 1, or 0 for an atom that is nothing."""
    rule: Rule | None
    """How it encodes; None where that is not known."""


def read_sae(path: str, d_model: int) -> ForeignSae:
    """Read an SAE from a safetensors file, or from a folder that has sae-lens's.

    Args:
        path: of the file or folder; `cfg.json` is looked for beside the file.
        d_model: width of the tokens it should be for.

    Raises: ArtifactError naming the file: no safetensors, no decoder, another width, not finite.
    """
    place = Path(path)
    place = place / WEIGHTS if place.is_dir() else place
    tensors, digest = _read(place)
    rows = _decoder(tensors, place, d_model)
    lengths = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    atoms = torch.where(lengths > SMALLEST_NORM, rows / lengths.clamp_min(SMALLEST_NORM), 0.0)
    rule = rule_of(_config(place), tensors, rows)
    said = "unknown" if rule is None else str(rule)
    return ForeignSae(SaeFile(name=place.name, sha256=digest, rule=said), atoms, rule)


def _read(place: Path) -> tuple[Mapping[str, Tensor], str]:
    """Give the tensors of a file, float32, and its SHA-256. Raises: ArtifactError."""
    if not place.is_file():
        raise ArtifactError(f"{place} is no file; give an SAE's .safetensors, or sae-lens's folder")
    try:
        with place.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        tensors = safetensors.torch.load_file(place)
    except (safetensors.SafetensorError, ValueError, OSError) as error:
        raise ArtifactError(
            f"{place} cannot be read as safetensors ({error}); save the SAE as such a file, "
            "pickles are not read"
        ) from None
    return {n: t.float() if t.is_floating_point() else t for n, t in tensors.items()}, digest


def _decoder(tensors: Mapping[str, Tensor], place: Path, d_model: int) -> Tensor:
    name = next((name for name in _DECODERS if name in tensors), None)
    if name is None:
        raise ArtifactError(
            f"{place} has no decoder under a known name ({', '.join(_DECODERS)}); it has "
            f"{', '.join(sorted(tensors)[:8])}"
        )
    rows = tensors[name].T.contiguous() if _DECODERS[name] else tensors[name]
    if rows.ndim != 2 or rows.shape[1] != d_model:
        raise ArtifactError(
            f"{place}: {name} is {tuple(tensors[name].shape)}, the tokens have {d_model} values; "
            "was the SAE made for another backbone or layer?"
        )
    if not bool(rows.isfinite().all()):
        raise ArtifactError(f"{place}: {name} holds values that are not finite")
    return rows


def _config(place: Path) -> dict[str, object]:
    """Read `cfg.json` beside a file; empty where there is none. Raises: ArtifactError."""
    beside = place.with_name(CONFIG)
    if not beside.is_file():
        return {}
    try:
        with beside.open("rb") as file:
            found = read_json(file.read(LARGEST_BYTES), str(beside))
    except (SpgError, OSError) as error:
        raise ArtifactError(f"{error}; it says how the SAE encodes") from None
    return found if isinstance(found, dict) else {}

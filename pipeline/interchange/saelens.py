"""Write an SAE as sae-lens keeps one: `cfg.json` and `sae_weights.safetensors` in a folder.

    SAE.load_from_disk(folder)      # in sae-lens 6 gives the same latents

C atoms of width d. Its `topk` keeps the k largest pre-activations and sets negative ones to 0, as
our TopK with the clamp does; its `standard` is our ReLU. Both have biases, which are 0 here.
Source: sae-lens 6.54, saes/topk_sae.py, saes/standard_sae.py, loading/pretrained_sae_loaders.py.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from pipeline import __version__
from pipeline.artifacts import Artifact
from pipeline.artifacts.bodies import carried_document
from pipeline.artifacts.documents import SaeDocument
from pipeline.files import check_place, write_file
from spg_core.errors import ArtifactError, CorruptStore

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
_FORMAT = "6.0.0"
"""First version of sae-lens that reads such a config as it is."""


@dataclass(frozen=True)
class SaeFiles:
    """A folder that sae-lens reads."""

    path: str
    sae: str
    """Id of the SAE that is in it."""
    files: tuple[str, ...]


def export_saelens(sae: Artifact[SaeDocument], out: str) -> SaeFiles:
    """Write an SAE into a folder for sae-lens; files of an earlier export are replaced.

    Raises:
        ArtifactError: sae-lens has no counterpart of its sparsifier.
        StoreError: a file cannot be written, or is another program's.
    """
    config, place = saelens_config(sae.document), Path(out)
    checks = {CONFIG: _is_our_config, WEIGHTS: _is_our_weights}
    for file, is_ours in checks.items():
        check_place(place / file, is_ours, make_folders=True)
    note = {"spg": json.dumps({"sae": sae.id, "sae_sha256": sae.document.digest})}
    weights = safetensors.torch.save(saelens_tensors(sae.tensors), metadata=note)
    place.mkdir(parents=True, exist_ok=True)
    write_file(place / WEIGHTS, weights, _is_our_weights)
    write_file(place / CONFIG, (json.dumps(config, indent=1) + "\n").encode(), _is_our_config)
    return SaeFiles(out, sae.id, (CONFIG, WEIGHTS))


def saelens_config(document: SaeDocument) -> dict[str, object]:
    """Give `cfg.json`. Raises: ArtifactError."""
    config, spec = document.config, document.backbone.spec
    if config.sparsifier == "topk" and not config.clamp:
        raise ArtifactError(
            f"SAE {document.id} keeps negative latents (--no-clamp), which sae-lens sets to 0; "
            "only TopK with the clamp, and ReLU, can be exported"
        )
    shared: dict[str, object] = {
        "d_in": spec.d_model,
        "d_sae": config.width,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": _FORMAT,
            "model_name": spec.name,
            "hook_name": "patch_tokens" if spec.layer is None else f"blocks.{spec.layer}",
            "spg_pipe_version": __version__,
            "spg_sae": document.id,
        },
    }
    if config.sparsifier == "relu":
        return {"architecture": "standard", **shared}
    return {
        "architecture": "topk",
        "k": config.k,
        "rescale_acts_by_decoder_norm": False,
        **shared,
    }


def saelens_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give `W_enc` `(d, C)`, `W_dec` `(C, d)`, `b_enc` `(C,)` and `b_dec` `(d,)`, float32."""
    encoder, dictionary = tensors["encoder"], tensors["dictionary"]
    return {
        "W_enc": encoder.T.contiguous(),
        "W_dec": dictionary.contiguous(),
        "b_enc": torch.zeros(encoder.shape[0]),
        "b_dec": torch.zeros(encoder.shape[1]),
    }


def _is_our_config(path: Path) -> bool:
    try:
        return "spg_sae" in json.loads(path.read_bytes())["metadata"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return False


def _is_our_weights(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(1 << 16)
        return b"sae_sha256" in carried_document(head, str(path))
    except CorruptStore:
        return False

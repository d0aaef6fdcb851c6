"""Biases of attention that some files have and some models do not: none that matters is dropped.

DINOv3 trains with biases for queries and values, and keys whose bias is masked to 0. Its released
weights have only zeros there, which timm's models leave out; other people's have not.
"""

import torch
from torch import Tensor

from spg_core.errors import BackboneError

FUSED, SPLIT = "attn.qkv.bias", ("attn.q_bias", "attn.v_bias")
META = "storage_tokens"
"""By which timm knows Meta's names."""


def split_biases(state: dict[str, Tensor], model_has_biases: bool) -> dict[str, Tensor]:
    """Write Meta's fused biases, `(3 d,)` for q, k and v, as timm's: one for q and one for v.

    Biases that are all 0 are left out where the model has none.

    Raises:
        BackboneError: keys have biases that count, for which the model has no place.
    """
    biases = {name: value for name, value in state.items() if name.endswith(SPLIT)}
    rest = {name: value for name, value in state.items() if name not in biases}
    if META in state:
        for name in [name for name in state if name.endswith(FUSED)]:
            biases |= _split(name, rest.pop(name), rest.pop(f"{name}_mask", None))
    if model_has_biases or any(bool(torch.any(bias)) for bias in biases.values()):
        return rest | biases
    return rest


def _split(name: str, fused: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
    if mask is not None:
        fused = fused.masked_fill(mask == 0, 0)
    query, of_keys, value = fused.chunk(3)
    if torch.any(of_keys):
        raise BackboneError(
            f"{name} holds biases for keys that are not 0, and the model has no place for them; "
            "give the weights of this very model"
        )
    stem = name.removesuffix("qkv.bias")
    return {f"{stem}q_bias": query, f"{stem}v_bias": value}

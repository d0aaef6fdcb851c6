"""Biases of attention that some files have and some models do not: none that matters is dropped.

DINOv3 trains with biases for queries and values, and keys whose bias is masked to 0. Its released
weights have only zeros there, which timm's models leave out; other people's have not.
"""

import torch
from torch import Tensor

from spg_core.errors import BackboneError

FUSED = "attn.qkv.bias"


def split_biases(state: dict[str, Tensor], model_has_biases: bool) -> dict[str, Tensor]:
    """Write Meta's fused biases, `(3 d,)` for q, k and v, as timm's: one for q and one for v.

    Biases that are all 0 are left out where the model has none.

    Raises:
        BackboneError: keys have biases that count, for which the model has no place.
    """
    masks = {key: value for key, value in state.items() if key.endswith(f"{FUSED}_mask")}
    fused = {
        key: value * masks[f"{key}_mask"].nan_to_num(1.0) if f"{key}_mask" in masks else value
        for key, value in state.items()
        if key.endswith(FUSED)
    }
    rest = {key: value for key, value in state.items() if key not in masks and key not in fused}
    if not model_has_biases and not any(bool(torch.any(bias)) for bias in fused.values()):
        return rest
    for key, bias in fused.items():
        query, of_keys, value = bias.chunk(3)
        if torch.any(of_keys):
            raise BackboneError(
                f"{key} holds biases for keys that are not 0, and the model has no place for them; "
                "give the weights of this very model"
            )
        rest[key.replace("qkv.bias", "q_bias")] = query
        rest[key.replace("qkv.bias", "v_bias")] = value
    return rest

"""A timm model with the tensors of a file: none left random, none dropped in silence."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from pipeline.backbones.attention_bias import SPLIT, split_biases
from pipeline.backbones.hub import first_line
from pipeline.backbones.position_embedding import is_ours, resize_positions
from pipeline.backbones.precision import keep_residual_stream
from pipeline.backbones.presets import TIMM_ACTIVATIONS
from pipeline.backbones.rename import backbone_tensors
from pipeline.backbones.spec import BackboneSpec
from pipeline.backbones.undrawn import Undrawn
from pipeline.backbones.weights import read_state_dict, require_names
from spg_core.errors import BackboneError

_NAMED = 5
_REGISTERS = ("reg_token", "register_tokens", "storage_tokens")
"""What timm and Meta call them."""


class _PatchEmbed(Protocol):
    patch_size: tuple[int, int]


class Draft(Protocol):
    """What is asked of a timm transformer that has no memory for its weights."""

    patch_embed: _PatchEmbed
    blocks: nn.ModuleList
    norm: nn.Module
    num_features: int
    num_prefix_tokens: int

    def state_dict(self) -> dict[str, Tensor]:
        """Give the tensors it would have."""
        ...


def timm_with_weights(
    model_name: str, spec: BackboneSpec, draft: Draft, weights: Path, heads: Sequence[str]
) -> nn.Module:
    """Build the model that a spec describes, and load the file strictly, but for its heads.

    Args:
        model_name: timm's name.
        spec: says what differs from timm's own way: position embedding and activation.
        draft: the model without memory for its weights.
        weights: the file.
        heads: names of classifiers, left out.

    Raises:
        BackboneError: the file does not fit the model, or the model the input size.
    """
    subject = f"{weights} does not fit timm:{model_name}"
    state = _state(model_name, weights, heads, draft.state_dict())
    options: dict[str, Any] = {}
    if spec.activation in TIMM_ACTIVATIONS:
        options["act_layer"] = TIMM_ACTIVATIONS[spec.activation]
    how = spec.position_embedding or ""
    if is_ours(how) and "pos_embed" in state:
        found, n_prefix = state["pos_embed"], draft.num_prefix_tokens
        state["pos_embed"] = resize_positions(found, n_prefix, spec.grid, how, subject)
    attention = cast("nn.Module", draft.blocks[0].attn)
    if hasattr(attention, "q_bias") and attention.qkv is not None:  # timm's EVA and DINOv3
        state = split_biases(state, model_has_biases=attention.q_bias is not None)
        if attention.q_bias is None and any(key.endswith(SPLIT) for key in state):
            options["qkv_bias"] = True
    model = _built(model_name, spec.height, state, options, subject)
    keep_residual_stream(model.patch_embed)  # type: ignore[arg-type]
    return model


def _built(
    model_name: str, size: int, state: dict[str, Tensor], options: dict[str, Any], subject: str
) -> nn.Module:
    """Have timm build a model and load tensors into it, by its own conversions."""
    import timm

    # Without a classifier to adapt timm loads strictly, so any other difference is an error.
    # custom_load is the path of .npz files, which would ignore a state dict.
    overlay = {
        "state_dict": state, "file": None, "source": None, "custom_load": False,
        "num_classes": 0, "classifier": None, "label_offset": None,
    }  # fmt: skip
    try:
        with Undrawn():
            model: nn.Module = timm.create_model(
                model_name,
                pretrained=True,
                pretrained_cfg_overlay=overlay,
                num_classes=0,
                img_size=size,
                **options,
            )
    except (RuntimeError, KeyError, ValueError) as error:
        raise BackboneError(
            f"{subject}: {_few_names(error)}; give the weights of this very model"
        ) from error
    except TypeError as error:
        raise BackboneError(
            f"timm:{model_name} cannot be built for {size} px: {first_line(error)}"
        ) from error
    return model


def _state(
    model_name: str, weights: Path, heads: Sequence[str], wanted: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Read the file's tensors; heads that the model lacks are left out."""
    state = backbone_tensors(read_state_dict(weights), "timm", wanted, weights)
    for head in heads:
        state.pop(f"{head}.weight", None)
        state.pop(f"{head}.bias", None)
    for name, tensor in wanted.items():
        if name.startswith("attn_pool.") and name not in state:
            state[name] = torch.zeros(tensor.shape)  # it pools the tokens, which are all we take
    _require_registers(state, wanted, f"{weights} does not fit timm:{model_name}")
    if "siglip" in model_name:  # the one kind that timm may load loosely, leaving random weights
        require_names(state, wanted, f"{weights} does not fit timm:{model_name}")
    return state


def _require_registers(
    state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], subject: str
) -> None:
    """Refuse another number of register tokens, which position embeddings would hide."""
    found, expected = (
        max((tensors[name].shape[-2] for name in _REGISTERS if name in tensors), default=0)
        for tensors in (state, wanted)
    )
    if found != expected:
        raise BackboneError(
            f"{subject}: it has {found} register tokens, the model {expected}; those with reg4 in "
            "their name have 4"
        )


def _few_names(error: Exception) -> str:
    """Shorten PyTorch's account of what does not fit to five names a kind, in one line."""
    said = []
    lines = [line.strip() for line in str(error).splitlines()[1:]] or [first_line(error)]
    for line in lines[:_NAMED]:
        names = line.split(", ")
        more = f", .. {len(names)} in all" if len(names) > _NAMED else ""
        listed = line.startswith(("Missing", "Unexpected"))
        said.append(", ".join(names[:_NAMED]).rstrip(". ") + more if listed else line.rstrip(". "))
    more = f"; .. {len(lines)} in all" if len(lines) > _NAMED else ""
    return "; ".join(said) + more

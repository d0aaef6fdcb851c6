"""Patch tokens of timm's vision transformers.

B images, n patch tokens, d channels. The tokens come from timm's own `forward_intermediates`,
which drops the prefix tokens; the weights pass timm's own key filter, which also resamples
position embeddings to the input size. Source: huggingface/pytorch-image-models.
"""

import inspect
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from pipeline.backbones.digest import sha256_of_file, unchanged
from pipeline.backbones.hub import hub_file
from pipeline.backbones.layers import choose_layers
from pipeline.backbones.near_names import near_backbone
from pipeline.backbones.spec import BackboneRequest, BackboneSpec, Channels
from pipeline.backbones.timm_weights import Draft, timm_with_weights
from spg_core.errors import BackboneError, ConfigError

HUB_FILE_NAMES = ("model.safetensors", "pytorch_model.bin")


class _Config(Protocol):
    """What is asked of timm's record of a model's weights."""

    input_size: tuple[int, int, int]
    mean: Channels
    std: Channels
    classifier: str | tuple[str, ...] | None
    hf_hub_id: str | None
    hf_hub_filename: str | None


class TimmTokens(nn.Module):
    """A timm transformer that gives the patch tokens of some blocks, and their class tokens."""

    def __init__(
        self, model: nn.Module, *, layers: Sequence[int], final_norm: bool, has_cls: bool
    ) -> None:
        super().__init__()
        self.model = model
        self.layers = tuple(layers)
        self.final_norm = final_norm
        self.has_cls = has_cls

    def forward(self, pixels: Tensor) -> list[tuple[Tensor, Tensor | None]]:
        """Turn pixels `(B, 3, height, width)` into tokens `(B, n, d)`, class tokens `(B, d)`.

        A pair a layer, from one pass through the blocks.
        """
        # Prefix tokens are asked for only where there is a class token: timm's EVA models fail
        # when asked for those of a model without any.
        found = self.model.forward_intermediates(  # type: ignore[operator]
            pixels,
            indices=list(self.layers),
            norm=self.final_norm,
            stop_early=True,
            intermediates_only=True,
            output_fmt="NLC",
            return_prefix_tokens=self.has_cls,
        )
        # timm gives them as they leave the model, whatever the order of the indices
        by_layer = dict(zip(sorted(self.layers), found, strict=True))
        if not self.has_cls:
            return [(by_layer[layer], None) for layer in self.layers]
        return [(by_layer[layer][0], by_layer[layer][1][:, 0]) for layer in self.layers]


def open_timm(
    model_name: str, request: BackboneRequest
) -> tuple[nn.Module, tuple[BackboneSpec, ...]]:
    """Build a timm model with its weights, and say what it is, a spec a layer.

    Args:
        model_name: timm's name, with or without a weights tag.
        request: what the user asked for; `final_norm` None applies the norm if there is one.

    Raises:
        BackboneError: timm has no such model, it has no patch grid, or its weights do not fit.
        ConfigError: image size, layer or norm are impossible for this model.
    """
    config = _pretrained_config(model_name)
    draft = draft_of(model_name)
    patch_height, patch_width = draft.patch_embed.patch_size
    size = config.input_size[-1] if request.image_size is None else request.image_size
    check_image_size(size, patch_height, patch_width, request.name)
    depth = len(draft.blocks)
    layers = choose_layers(request.layer, depth, request.name)
    final_norm = _final_norm(draft, request)
    has_cls = getattr(draft, "cls_token", None) is not None

    weights = request.weights or _hub_weights(config, request.name)
    spec = request.spec(
        library="timm",
        model=model_name.partition(".")[0],
        final_norm=final_norm,
        size=size,
        patch=(patch_height, patch_width),
        d_model=draft.num_features,
        has_cls=has_cls,
        mean=config.mean,
        std=config.std,
    )
    with unchanged(weights):
        model = timm_with_weights(model_name, spec, draft, weights, _heads(config))
        spec = replace(spec, weights_sha256=sha256_of_file(weights))
    taken = TimmTokens(model, layers=layers, final_norm=final_norm, has_cls=has_cls)
    return taken, spec.of_layers(layers, depth)


def check_image_size(size: int, patch_height: int, patch_width: int, name: str) -> None:
    """Refuse an input size that patches do not fill.

    Raises:
        ConfigError: with the nearest sizes that work.
    """
    step = max(patch_height, patch_width)
    if size > 0 and size % patch_height == 0 and size % patch_width == 0:
        return
    below = size // step * step
    nearest = f"{below} or {below + step}" if below > 0 else str(step)
    raise ConfigError(
        f"image size {size} is not a multiple of {name}'s patch size {step}; use {nearest}"
    )


def _pretrained_config(model_name: str) -> _Config:
    """Give timm's record of a model's weights: hub name, input size, mean, std, classifier."""
    import timm

    base = model_name.partition(".")[0]
    config = timm.get_pretrained_cfg(model_name) if timm.is_model(base) else None
    if config is None:
        raise BackboneError(f"timm has no model {model_name!r}{near_backbone(model_name)}")
    return cast("_Config", config)


def draft_of(model_name: str) -> Draft:
    """Build the architecture without memory for its weights, to ask it about its shape."""
    import timm

    with torch.device("meta"):
        draft = timm.create_model(model_name, pretrained=False, num_classes=0)
    takes = inspect.signature(getattr(draft, "forward_intermediates", len)).parameters
    needed = ("patch_embed", "blocks", "norm", "num_prefix_tokens")
    if "return_prefix_tokens" not in takes or not all(hasattr(draft, part) for part in needed):
        raise BackboneError(
            f"timm:{model_name} is a {type(draft).__name__}, which has no single grid of patch "
            f"tokens; use a plain vision transformer such as timm:vit_small_patch16_224"
        )
    return cast("Draft", draft)


def _final_norm(draft: Draft, request: BackboneRequest) -> bool:
    """Settle whether the final norm is applied; some models norm only what they pool."""
    has_norm = not isinstance(draft.norm, nn.Identity)
    if request.final_norm is None:
        return has_norm
    if request.final_norm and not has_norm:
        raise ConfigError(
            f"{request.name} norms its pooled output, not its tokens; use --no-final-norm"
        )
    return request.final_norm


def _heads(config: _Config) -> tuple[str, ...]:
    """Give the names of a model's classifiers, which are never loaded."""
    return (config.classifier,) if isinstance(config.classifier, str) else config.classifier or ()


def _hub_weights(config: _Config, name: str) -> Path:
    """Find the hub's file for a timm weights record."""
    if not config.hf_hub_id:
        raise BackboneError(
            f"timm knows no hub weights for {name}; give a file with --weights FILE or add a "
            f"weights tag to the name, as in timm:vit_small_patch16_224.augreg_in1k"
        )
    names = (config.hf_hub_filename,) if config.hf_hub_filename else HUB_FILE_NAMES
    return hub_file(config.hf_hub_id, names, name=name)

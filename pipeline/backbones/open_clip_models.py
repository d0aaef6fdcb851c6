"""Patch tokens of open_clip's own vision transformers.

B images, n patch tokens, d channels. Only the image tower is built, and loaded strictly; open_clip
resamples the position embedding to the input size.
Source: mlfoundations/open_clip, `open_clip.transformer.VisionTransformer`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from torch import Tensor, nn

from pipeline.backbones.digest import sha256_of_file, unchanged
from pipeline.backbones.layers import choose_layers
from pipeline.backbones.open_clip_records import ModelRecord, hub_weights, look_up
from pipeline.backbones.position_embedding import is_ours, resize_positions
from pipeline.backbones.precision import keep_residual_stream
from pipeline.backbones.rename import backbone_tensors
from pipeline.backbones.spec import BackboneRequest, BackboneSpec, Channels
from pipeline.backbones.timm_models import check_image_size
from pipeline.backbones.undrawn import Undrawn
from pipeline.backbones.weights import read_state_dict, require_names, require_shapes
from spg_core.errors import BackboneError


class OpenClipTokens(nn.Module):
    """An open_clip image tower that gives the patch tokens of some blocks, and class tokens."""

    def __init__(
        self, visual: nn.Module, *, layers: Sequence[int], final_norm: bool, project: bool
    ) -> None:
        super().__init__()
        self.visual = visual
        self.layers = tuple(layers)
        self.final_norm = final_norm
        self.project = project

    def forward(self, pixels: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Turn pixels `(B, 3, height, width)` into tokens `(B, n, d)`, class tokens `(B, d)`.

        A pair a layer, from one pass through the blocks.
        """
        found = self.visual.forward_intermediates(  # type: ignore[operator]
            pixels,
            indices=list(self.layers),
            stop_early=True,
            normalize_intermediates=self.final_norm,
            intermediates_only=True,
            output_fmt="NLC",
            output_extra_tokens=True,
        )
        prefixes = [prefix[:, 0] for prefix in found["image_intermediates_prefix"]]
        pairs: Iterable[tuple[Tensor, Tensor]] = zip(
            found["image_intermediates"], prefixes, strict=True
        )
        if self.project:
            # The library projects the pooled token only; the same matrix takes each patch token
            # to the space that images and texts share.
            projection: Any = self.visual.proj
            pairs = ((tokens @ projection, cls @ projection) for tokens, cls in pairs)
        # open_clip gives them as they leave the model, whatever the order of the indices
        by_layer = dict(zip(sorted(self.layers), pairs, strict=True))
        return [by_layer[layer] for layer in self.layers]


def open_open_clip(
    model_and_tag: str, request: BackboneRequest
) -> tuple[nn.Module, tuple[BackboneSpec, ...]]:
    """Build an open_clip image tower with its weights, and say what it is, a spec a layer.

    Tokens are normed by default. Only `openclip` also projects them, and only while they are
    normed: `--no-final-norm` gives what the block gives.

    Args:
        model_and_tag: open_clip's model name and weights tag, as `ViT-B-32/openai`.
        request: what the user asked for.

    Raises:
        BackboneError: there is no such model, it has no patch grid, or its weights do not fit.
        ConfigError: the name has no tag or pairs a model with weights of another activation;
            image size or layer are impossible.
    """
    model_name, config, weights_config = look_up(model_and_tag)
    vision = config["vision_cfg"]
    patch_height, patch_width = _pair(vision["patch_size"])
    size = _pair(vision["image_size"])[0] if request.image_size is None else request.image_size
    check_image_size(size, patch_height, patch_width, request.name)
    depth = vision["layers"]
    layers = choose_layers(request.layer, depth, request.name)
    final_norm = request.final_norm is not False
    project = final_norm and request.projection

    weights = request.weights or hub_weights(weights_config, request.name)
    spec = request.spec(
        library="open_clip",
        model=model_name,
        final_norm=final_norm,
        size=size,
        patch=(patch_height, patch_width),
        d_model=config["embed_dim"] if project else vision["width"],
        has_cls=True,
        mean=_channels(weights_config["mean"]),
        std=_channels(weights_config["std"]),
    )
    with unchanged(weights):
        visual = _image_tower(config, spec, weights)
        spec = replace(spec, weights_sha256=sha256_of_file(weights))
    taken = OpenClipTokens(visual, layers=layers, final_norm=final_norm, project=project)
    return taken, spec.of_layers(layers, depth)


def _image_tower(config: ModelRecord, spec: BackboneSpec, weights: Path) -> nn.Module:
    """Build the image tower at an input size and load the file's image tower strictly.

    Where tokens are not projected, the projection is a head: left out, and may be absent.
    """
    from open_clip.model import _build_vision_tower

    vision = {**config["vision_cfg"], "image_size": (spec.height, spec.width)}
    quick = config.get("quick_gelu", False)
    with Undrawn():
        visual: Any = _build_vision_tower(config["embed_dim"], vision, quick)
    if not spec.projection:
        visual.proj = None
    wanted = {f"visual.{key}": value for key, value in visual.state_dict().items()}
    state = backbone_tensors(read_state_dict(weights), "openai", (), weights)
    if not spec.projection:
        state.pop("visual.proj", None)
    subject = f"{weights} does not fit open_clip:{spec.model}"
    require_names(state, wanted, subject)
    _resize_positions(state, visual, spec, subject)
    require_shapes(state, wanted, subject)
    visual.load_state_dict({key.removeprefix("visual."): value for key, value in state.items()})
    keep_residual_stream(visual.conv1)
    tower: nn.Module = visual
    return tower


def _resize_positions(state: dict[str, Tensor], visual: Any, spec: BackboneSpec, why: str) -> None:
    """Resize the position embedding to the patch grid, the spec's way or the library's."""
    from open_clip.model import resize_pos_embed

    how, name = spec.position_embedding or "", "visual.positional_embedding"
    if is_ours(how):
        state[name] = resize_positions(state[name], 1, spec.grid, how, why)
        return
    try:
        resize_pos_embed(state, SimpleNamespace(visual=visual))
    except RuntimeError as error:
        raise BackboneError(f"{why}: its position embedding is of no square grid") from error


def _pair(value: int | list[int] | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _channels(values: tuple[float, ...]) -> Channels:
    return float(values[0]), float(values[1]), float(values[2])

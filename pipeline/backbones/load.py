"""Frozen backbones: pixels in, patch tokens out, prefix tokens dropped.

B images, n patch tokens, d channels. What a preset leaves open is taken from the model. Model
libraries are imported only when one of their models is asked for.
"""

from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor, nn

from pipeline.backbones.layers import Layers
from pipeline.backbones.near_names import near_backbone
from pipeline.backbones.on_cpu import forward_on_cpu
from pipeline.backbones.on_gpu import GpuForward
from pipeline.backbones.places import remember_place
from pipeline.backbones.precision import ComputeDtype, computing_in
from pipeline.backbones.presets import PRESETS, Preset
from pipeline.backbones.spec import (
    BackboneRequest,
    BackboneSpec,
    Channels,
    slug,
    spec_from_covers,
)
from pipeline.machine.device import resolve_device
from spg_core.errors import BackboneError, ConfigError

__all__ = [
    "Backbone",
    "BackboneSpec",
    "PatchTokens",
    "load_backbone",
    "slug",
    "spec_from_covers",
]

FILTERS = ("bilinear", "bicubic")


class PatchTokens(NamedTuple):
    """What a backbone gives for a batch."""

    tokens: Tensor
    """Patch tokens `(B, n, d)`, float32, row-major over the grid."""
    cls: Tensor | None
    """Class tokens `(B, d)`, float32, where the backbone has one."""


class Backbone:
    """A frozen model on a device: normalised pixels in, tokens of one layer or several out."""

    def __init__(
        self, model: nn.Module, specs: Sequence[BackboneSpec], device: torch.device
    ) -> None:
        self.model = model.eval().requires_grad_(False).to(device)
        self.specs = tuple(specs)
        """One a layer, in the order in which the model gives them; alike in all else."""
        self.device = device
        self._on_gpu = GpuForward(self.model)

    @property
    def spec(self) -> BackboneSpec:
        """The first layer's spec; all of it but `layer` is true of every layer."""
        return self.specs[0]

    def __call__(self, pixels: Tensor) -> PatchTokens:
        """Give the patch tokens of a batch, of a backbone loaded for one layer. See `layers`."""
        [tokens] = self.layers(pixels)
        return tokens

    def only(self, chosen: Sequence[int]) -> "Backbone":
        """Give the same backbone for some of its layers, by their places in `specs`.

        Weights are shared, and blocks behind the last layer are left out.
        """
        if list(chosen) == list(range(len(self.specs))):
            return self
        model: Any = copy(self.model)
        model.layers = tuple(model.layers[place] for place in chosen)
        return Backbone(model, [self.specs[place] for place in chosen], self.device)

    @torch.inference_mode()
    def layers(self, pixels: Tensor) -> list[PatchTokens]:
        """Give the patch tokens of a batch, of each of `specs`, from one forward pass.

        Each has the bits that a backbone loaded for its layer alone gives.

        Args:
            pixels: `(B, 3, height, width)` float32, normalised by the spec's mean and std.

        Raises:
            BackboneError: pixels of another size, or tokens that do not fill the patch grid.
        """
        spec = self.spec
        if tuple(pixels.shape[1:]) != (3, spec.height, spec.width):
            raise BackboneError(
                f"pixels of shape {tuple(pixels.shape)} for {spec.name}; expected "
                f"(B, 3, {spec.height}, {spec.width}), as `preprocess` makes them"
            )
        match self.device.type:
            case "cpu":
                with computing_in("float32", "cpu"):
                    found = forward_on_cpu(self.model, pixels)
            case _:
                found = self._on_gpu(pixels, self.device, spec.compute_dtype)
        expected = (len(pixels), spec.grid.tokens_per_image, spec.d_model)
        for tokens, _ in found:
            if tuple(tokens.shape) != expected:
                raise BackboneError(
                    f"{spec.name} gave tokens of shape {tuple(tokens.shape)}, expected {expected} "
                    f"for a {spec.grid} patch grid; were the prefix tokens dropped?"
                )
        return [
            PatchTokens(tokens.float(), None if cls is None else cls.float())
            for tokens, cls in found
        ]


def load_backbone(
    name: str,
    *,
    image_size: int | None = None,
    layer: Layers = None,
    final_norm: bool | None = None,
    weights: Path | None = None,
    resize_filter: str | None = None,
    mean: Channels | None = None,
    std: Channels | None = None,
    device: str = "cpu",
    compute_dtype: str = "float32",
    exif: bool = False,
) -> Backbone:
    """Load a frozen backbone; None leaves a choice to the preset, then to the model.

    Args:
        name: `dinov3`, `dinov2`, `siglip`, `openclip`, `gabor`, `timm:<model>` or
            `open_clip:<model>/<tag>`.
        image_size: side of the square input, in pixels.
        layer: the block that the tokens leave, from 0, or several; None is the last. In words of
            `pipeline.backbones.layers`: 11, -1, "every:6", "last:4", or a list of these.
        final_norm: whether the model's final norm is applied to the tokens.
        weights: a local safetensors or torch file; None takes the hub's.
        resize_filter: `bilinear` or `bicubic`.
        mean: replaces the model's own.
        std: replaces the model's own.
        device: a torch device name.
        compute_dtype: `float32`, `tf32`, `bfloat16` or `float16`, the last three on a GPU only;
            bfloat16's range, unlike float16's, holds the huge activations of large ViTs.
            Part of the cache key.
        exif: turn images as their EXIF orientation says.

    Raises:
        BackboneError: the model or its weights cannot be had or do not fit each other.
        ConfigError: an option is impossible for this backbone.
    """
    place = resolve_device(device)
    preset = PRESETS.get(name, Preset(model=name))
    request = BackboneRequest(
        name=name,
        image_size=preset.image_size if image_size is None else image_size,
        layer=layer,
        final_norm=preset.final_norm if final_norm is None else final_norm,
        weights=None if weights is None else weights.expanduser(),
        resize_filter=_one_of("resize filter", resize_filter or preset.resize_filter, FILTERS),
        resize_values=preset.resize_values,
        position_embedding=preset.position_embedding,
        activation=preset.activation,
        projection=preset.projection,
        mean=mean,
        std=_std(std),
        compute_dtype=_compute_dtype(compute_dtype, place),
        exif=exif,
    )
    model, specs = _open(preset.model, request)
    if request.weights is not None and specs[0].weights_sha256 is not None:
        remember_place(specs[0].weights_sha256, request.weights)
    return Backbone(model, specs, place)


def _open(model_name: str, request: BackboneRequest) -> tuple[nn.Module, tuple[BackboneSpec, ...]]:
    """Hand a request to the library that holds the model."""
    library, _, model = model_name.partition(":")
    match library:
        case "gabor" if not model:
            from pipeline.backbones.gabor_model import open_gabor

            return open_gabor(request)
        case "timm" if model:
            from pipeline.backbones.timm_models import open_timm

            return open_timm(model, request)
        case "open_clip" if model:
            from pipeline.backbones.open_clip_models import open_open_clip

            return open_open_clip(model, request)
        case _:
            raise ConfigError(
                f"no backbone {request.name!r}; use {', '.join(PRESETS)}, gabor, timm:<model> or "
                f"open_clip:<model>/<tag>{near_backbone(request.name)}"
            )


def _one_of(what: str, chosen: str, choices: tuple[str, ...]) -> str:
    if chosen not in choices:
        raise ConfigError(f"{what} {chosen!r}; use one of {', '.join(choices)}")
    return chosen


def _compute_dtype(asked: str, device: torch.device) -> str:
    _one_of("compute dtype", asked, get_args(ComputeDtype))
    if asked != "float32" and device.type != "cuda":
        raise ConfigError(f"compute dtype {asked} is for GPUs, the device is {device}; use float32")
    return asked


def _std(std: Channels | None) -> Channels | None:
    if std is not None and min(std) <= 0:
        raise ConfigError(f"std {std} must be positive: pixels are divided by it")
    return std

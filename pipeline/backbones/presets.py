"""The four presets: the authors' tokens, to rounding, where a library's own would differ.

`timm:` and `open_clip:` names follow their library instead. Source: github.com/riips/SPG, 864fca7.
"""

from dataclasses import dataclass

PLAIN_BICUBIC = "bicubic, a = -0.75, not antialiased"
PLAIN_BILINEAR = "bilinear, not antialiased"
BY_LIBRARY = "as the library does"


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A model, and how its tokens are made; the defaults are a library's own way."""

    model: str
    """`timm:<model>` or `open_clip:<model>/<tag>`."""
    image_size: int | None = None
    """Side of the square input in pixels; None is the model's."""
    final_norm: bool | None = None
    """Whether tokens pass the final norm; None wherever there is one."""
    projection: bool = False
    """Whether normed tokens pass CLIP's visual projection."""
    resize_filter: str = "bicubic"
    """`bilinear` or `bicubic`, both antialiased."""
    resize_values: str = "8-bit"
    """`8-bit`, as Pillow resizes, or `float`: scaled to [0, 1] before they are resized."""
    position_embedding: str = BY_LIBRARY
    """How the position embedding is resized to the patch grid."""
    activation: str = BY_LIBRARY
    """The activation of the MLPs."""


PRESETS = {
    "dinov3": Preset(
        model="timm:vit_large_patch16_dinov3.lvd1689m",
        image_size=448,
        final_norm=True,
        resize_filter="bilinear",
        resize_values="float",
        position_embedding="rotary, nothing to resize",
        activation="GELU",
    ),
    "dinov2": Preset(
        model="timm:vit_large_patch14_dinov2.lvd142m",
        image_size=448,
        final_norm=False,
        position_embedding=PLAIN_BICUBIC,
        activation="GELU",
    ),
    "siglip": Preset(
        model="timm:vit_large_patch16_siglip_384.webli",
        image_size=448,
        final_norm=True,
        position_embedding=PLAIN_BICUBIC,
        activation="GELU, tanh form",
    ),
    "openclip": Preset(
        model="open_clip:ViT-L-14-336-quickgelu/openai",
        image_size=518,
        final_norm=True,
        projection=True,
        position_embedding=PLAIN_BILINEAR,
        activation="QuickGELU",
    ),
}

TIMM_ACTIVATIONS = {"GELU, tanh form": "gelu_tanh"}
"""timm's names of activations that are not its own choice for the model."""

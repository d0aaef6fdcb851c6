"""What a backbone is, as plain values: enough to prepare its input and to name its token cache.

Nothing here imports a model library, so a command may read and compare specs at once.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.key import explain_difference
from spg_core.errors import ArtifactError, BackboneError
from spg_core.types import PatchGrid

Channels = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class BackboneSpec:
    """One frozen backbone with every choice that changes a token, and nothing that does not."""

    name: str
    """As the user typed it: `dinov3`, `gabor`, `timm:<model>`, ... Not part of the cache key."""
    library: str
    """Who computes the tokens: `timm`, `open_clip` or `spg_core`."""
    model: str
    """The library's name of the architecture; the digest, not a tag, says which weights."""
    weights_sha256: str
    """SHA-256 of the weights file's bytes, in hex; for `gabor`, of its version string."""
    layer: int | None
    """Index of the block that the tokens leave, from 0; None is the last."""
    final_norm: bool
    """Whether the model's final norm is applied to the tokens."""
    projection: bool
    """Whether CLIP's visual projection is applied to the normed tokens."""
    height: int
    """Rows of the model's input, in pixels."""
    width: int
    """Columns of the model's input, in pixels."""
    grid: PatchGrid
    """Where the patch tokens sit."""
    d_model: int
    """Width of one token."""
    has_cls: bool
    """Whether the backbone also gives one class token an image."""
    resize_filter: str
    """How images are squashed to the input size: `bilinear` or `bicubic`, antialiased."""
    resize_values: str | None = None
    """`8-bit`, as Pillow resizes, or `float`, scaled to [0, 1] before. None in caches made before
    this, `position_embedding` and `activation` were stated: then 8-bit, and the library's."""
    position_embedding: str | None = None
    """How the position embedding is resized to the grid, in words."""
    activation: str | None = None
    """The activation of the MLPs, in words."""
    mean: Channels
    """Subtracted from RGB in [0, 1]."""
    std: Channels
    """Then divided by."""
    compute_dtype: str
    """`float32`, `tf32`, `bfloat16` or `float16` (autocast); tokens come out as float32."""
    exif: bool
    """Whether images are turned as their EXIF orientation says."""

    def covers(self) -> dict[str, Any]:
        """Give what a cache key covers of this backbone: JSON values, no name, path or version.

        What an old cache does not state is left out again, so it keeps its key, which no cache
        that states it can have.
        """
        stated = {
            "resize_values": self.resize_values,
            "position_embedding": self.position_embedding,
            "activation": self.activation,
        }
        return {name: value for name, value in stated.items() if value is not None} | {
            "library": self.library,
            "model": self.model,
            "weights_sha256": self.weights_sha256,
            "layer": self.layer,
            "final_norm": self.final_norm,
            "projection": self.projection,
            "height": self.height,
            "width": self.width,
            "grid": [self.grid.rows, self.grid.cols],
            "d_model": self.d_model,
            "has_cls": self.has_cls,
            "resize_filter": self.resize_filter,
            "mean": list(self.mean),
            "std": list(self.std),
            "compute_dtype": self.compute_dtype,
            "exif": self.exif,
        }


@dataclass(frozen=True, kw_only=True)
class BackboneRequest:
    """What a user asks of a backbone; None leaves the choice to the table in METHOD.md."""

    name: str
    """As the user typed it."""
    image_size: int | None
    """Side of the square input, in pixels."""
    layer: int | None
    """Index of the block that the tokens leave, from 0."""
    final_norm: bool | None
    """Whether the final norm is applied."""
    weights: Path | None
    """A local weights file."""
    resize_filter: str
    """`bilinear` or `bicubic`."""
    resize_values: str
    """`8-bit` or `float`."""
    position_embedding: str
    """How it is resized, in words of `pipeline.backbones.presets`."""
    activation: str
    """Of the MLPs, likewise."""
    projection: bool
    """Whether normed tokens pass CLIP's visual projection."""
    mean: Channels | None
    """Instead of the model's own mean."""
    std: Channels | None
    """Instead of the model's own standard deviation."""
    compute_dtype: str
    """`float32`, `tf32`, `bfloat16` or `float16`."""
    exif: bool
    """Whether EXIF rotation is applied."""


def spec_from_covers(covers: Mapping[str, Any], name: str) -> BackboneSpec:
    """Rebuild the spec that `BackboneSpec.covers` described.

    Raises:
        BackboneError: a field is missing, unknown or of an impossible value.
    """
    fields = dict(covers)
    try:
        rows, cols = fields.pop("grid")
        mean, std = fields.pop("mean"), fields.pop("std")
        return BackboneSpec(
            name=name,
            grid=PatchGrid(int(rows), int(cols)),
            mean=(float(mean[0]), float(mean[1]), float(mean[2])),
            std=(float(std[0]), float(std[1]), float(std[2])),
            **fields,
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise BackboneError(
            f"the stored description of backbone {name!r} cannot be read ({error}); expected the "
            f"fields of docs/format.md, so run `spg-pipe cache verify` or extract again"
        ) from error


def require_same_tokens(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], ours_name: str, theirs_name: str
) -> None:
    """Refuse to join two things made from different kinds of token.

    Args: the backbone part of what two cache keys cover, and how to name the two in the message.

    Raises: ArtifactError that names every field in which they differ.
    """
    differing = explain_difference(ours, theirs)
    if differing:
        raise ArtifactError(
            f"{ours_name} and {theirs_name} hold tokens of different backbones or settings: "
            f"{'; '.join(differing)}"
        )


def slug(name: str) -> str:
    """Give a backbone's folder name: `:` and `/`, and all that a file system may refuse, as `-`."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", name)

"""What a backbone is, as plain values: enough to prepare its input and to name its token cache.

Nothing here imports a model library, so a command may read and compare specs at once.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, cast

import msgspec
from msgspec import Meta

from cache.key import explain_difference
from pipeline.backbones.layers import Layers
from spg_core.errors import ArtifactError, BackboneError
from spg_core.fields import FieldType, describe, field_types
from spg_core.types import PatchGrid

Channels = tuple[float, float, float]
Word = Annotated[str, Meta(min_length=1, max_length=1000)]
Pixels = Annotated[int, Meta(ge=1, le=2**14)]
"""A side of an input or of a patch grid; more would not fit any memory."""
Filter = Annotated[str, Meta(pattern=r"\A(bilinear|bicubic)\Z", description="bilinear or bicubic")]
Dtype = Annotated[
    str,
    Meta(
        pattern=r"\A(float32|tf32|bfloat16|float16)\Z",
        description="float32, tf32, bfloat16 or float16",
    ),
]
Means = Annotated[float, Meta(ge=-1e3, le=1e3)]
Deviations = Annotated[float, Meta(gt=0, le=1e3)]


@dataclass(frozen=True, kw_only=True)
class BackboneSpec:
    """One frozen backbone with every choice that changes a token, and nothing that does not."""

    name: Word
    """As the user typed it: `dinov3`, `gabor`, `timm:<model>`, ... Not part of the cache key."""
    library: Word
    """Who computes the tokens: `timm`, `open_clip` or `spg_core`."""
    model: Word
    """The library's name of the architecture; the digest, not a tag, says which weights."""
    weights_sha256: Word
    """SHA-256 of the weights file's bytes, in hex; for `gabor`, of its version string."""
    layer: Annotated[int, Meta(ge=0, le=10_000)] | None
    """Index of the block that the tokens leave, from 0; None is the last."""
    final_norm: bool
    """Whether the model's final norm is applied to the tokens."""
    projection: bool
    """Whether CLIP's visual projection is applied to the normed tokens."""
    height: Pixels
    """Rows of the model's input, in pixels."""
    width: Pixels
    """Columns of the model's input, in pixels."""
    grid: PatchGrid
    """Where the patch tokens sit."""
    d_model: Annotated[int, Meta(ge=1, le=2**20)]
    """Width of one token."""
    has_cls: bool
    """Whether the backbone also gives one class token an image."""
    resize_filter: Filter
    """How images are squashed to the input size: `bilinear` or `bicubic`, antialiased."""
    resize_values: Word | None = None
    """`8-bit`, as Pillow resizes, or `float`, scaled to [0, 1] before. None in caches made before
    this, `position_embedding` and `activation` were stated: then 8-bit, and the library's."""
    position_embedding: Word | None = None
    """How the position embedding is resized to the grid, in words."""
    activation: Word | None = None
    """The activation of the MLPs, in words."""
    mean: tuple[Means, Means, Means]
    """Subtracted from RGB in [0, 1]."""
    std: tuple[Deviations, Deviations, Deviations]
    """Then divided by."""
    compute_dtype: Dtype
    """`float32`, `tf32`, `bfloat16` or `float16` (autocast); tokens come out as float32."""
    exif: bool
    """Whether images are turned as their EXIF orientation says."""

    def covers(self) -> dict[str, object]:
        """Give what a cache key covers of this backbone: JSON values, no name, path or version.

        What an old cache does not state is left out again, so it keeps its key, which no cache
        that states it can have.
        """
        stated = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "name"}
        for one in fields(self):
            if one.default is None and stated[one.name] is None:
                del stated[one.name]
        grid = [self.grid.rows, self.grid.cols]
        return stated | {"grid": grid, "mean": list(self.mean), "std": list(self.std)}

    def of_layers(self, layers: Sequence[int], depth: int) -> tuple["BackboneSpec", ...]:
        """Give a spec for each of some blocks, from 0, of a model of `depth` blocks."""
        return tuple(replace(self, layer=None if layer == depth - 1 else layer) for layer in layers)


@dataclass(frozen=True, kw_only=True)
class BackboneRequest:
    """What a user asks of a backbone; None leaves the choice to the table in METHOD.md."""

    name: str
    """As the user typed it."""
    image_size: int | None
    """Side of the square input, in pixels."""
    layer: Layers
    """Which blocks tokens leave, in words of `pipeline.backbones.layers`."""
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

    def spec(
        self,
        *,
        library: str,
        model: str,
        final_norm: bool,
        size: int,
        patch: tuple[int, int],
        d_model: int,
        has_cls: bool,
        mean: Channels,
        std: Channels,
    ) -> BackboneSpec:
        """Say what a model is that answers this request; weights' digest and layer come later.

        Args: what only the model tells; `mean` and `std` where the request has none, `patch` the
            sides of a patch in pixels.
        """
        return BackboneSpec(
            name=self.name,
            library=library,
            model=model,
            weights_sha256="unknown",
            layer=None,
            final_norm=final_norm,
            projection=final_norm and self.projection,
            height=size,
            width=size,
            grid=PatchGrid(size // patch[0], size // patch[1]),
            d_model=d_model,
            has_cls=has_cls,
            resize_filter=self.resize_filter,
            resize_values=self.resize_values,
            position_embedding=self.position_embedding,
            activation=self.activation,
            mean=self.mean or mean,
            std=self.std or std,
            compute_dtype=self.compute_dtype,
            exif=self.exif,
        )


def spec_from_covers(covers: object, name: str) -> BackboneSpec:
    """Rebuild the spec that `BackboneSpec.covers` described.

    Raises:
        BackboneError: a field is missing, unknown or of an impossible value.
    """
    types = {**field_types(BackboneSpec), "grid": tuple[Pixels, Pixels]}
    optional = {one.name for one in fields(BackboneSpec) if one.default is None}
    try:
        if not isinstance(covers, Mapping):
            raise BackboneError(f"it is {covers!r:.60}")
        for field in sorted((types.keys() - {"name"}) ^ covers.keys()):
            if field not in optional:
                raise BackboneError(f"{field} is {'missing' if field in types else 'unknown'}")
        given = {field: _checked(field, covers[field], types[field]) for field in covers}
        grid = PatchGrid(*cast("tuple[int, int]", given.pop("grid")))
        spec = cast("Callable[..., BackboneSpec]", BackboneSpec)(name=name, grid=grid, **given)
        if grid.rows > spec.height or grid.cols > spec.width:
            raise BackboneError(f"grid is {grid}, more patches than pixels")
        return spec
    except BackboneError as error:
        raise BackboneError(
            f"the stored description of backbone {name!r} cannot be read ({error}); expected the "
            f"fields of docs/format.md, so run `spg-pipe cache verify` or extract again"
        ) from None


def _checked(field: str, value: object, kind: FieldType) -> object:
    try:
        return msgspec.convert(value, kind)
    except (msgspec.ValidationError, OverflowError):
        raise BackboneError(f"{field} is {value!r:.60}; it must be {describe(kind)}") from None


def require_same_tokens(
    ours: Mapping[str, object], theirs: Mapping[str, object], ours_name: str, theirs_name: str
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

"""Load the very backbone that guides were fitted on, from the description they carry."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.backbones.digest import sha256_of_file
from pipeline.backbones.file_kind import check_weights_file, kind_of
from pipeline.backbones.load import Backbone, load_backbone
from pipeline.backbones.places import known_place
from pipeline.backbones.spec import BackboneSpec, require_same_tokens
from pipeline.machine.device import resolve_device
from pipeline.terminal.progress import say
from spg_core.errors import ArtifactError

_LONG_TO_HASH = 2**32
"""Bytes from which a file that is no weights file is not hashed first."""


def load_stored_layers(specs: Sequence[BackboneSpec], weights: str | None, device: str) -> Backbone:
    """Load the backbone that some specs describe, with the weights whose digest they name.

    Its `layers` gives the tokens of each spec, in their order, from one forward pass.

    A spec of tf32, bfloat16 or float16 asks for a GPU; on a CPU the model computes in float32,
    which is closer to exact, and says so.

    Args:
        specs: the stored descriptions, which differ in their layer alone, each in another one.
        weights: a local weights file; None takes the one that was last used on this machine, or
            asks the hub's cache, then the hub.
        device: auto, cpu, cuda or cuda:N.

    Raises:
        ArtifactError: the weights are not those the guides were fitted with, or the specs are of
            more than one backbone.
        BackboneError, ConfigError: as `load_backbone`.
    """
    spec = specs[0]
    for other in specs[1:]:
        require_same_tokens(
            {**spec.covers(), "layer": None},
            {**other.covers(), "layer": None},
            *(f"layer {_layer(one)} of {one.name}" for one in (spec, other)),
        )
    place = resolve_device(device)
    learned = spec.library != "spg_core"
    file = Path(weights) if weights else _known_file(spec)
    if file is not None and learned:
        _require_digest(file, spec)
    compute_dtype = spec.compute_dtype if place.type == "cuda" else "float32"
    if compute_dtype != spec.compute_dtype:
        say(
            f"computing in {compute_dtype} on {place}; the guides were fitted on tokens computed "
            f"in {spec.compute_dtype}, so scores differ a little"
        )
    backbone = load_backbone(
        spec.name,
        image_size=spec.height,
        layer=[_layer(one) for one in specs] if learned else None,
        final_norm=spec.final_norm if learned else None,
        weights=file,
        resize_filter=spec.resize_filter,
        mean=spec.mean if learned else None,
        std=spec.std if learned else None,
        device=str(place),
        compute_dtype=compute_dtype,
        exif=spec.exif,
    )
    for one, loaded in zip(specs, backbone.specs, strict=True):
        wanted = one.covers() | {"compute_dtype": compute_dtype}
        require_same_tokens(wanted, loaded.covers(), "the guides", f"{one.name} as loaded here")
    return backbone


def _known_file(spec: BackboneSpec) -> Path | None:
    """Find the weights where they were last seen on this machine, and say so."""
    file = known_place(spec.weights_sha256) if spec.weights_sha256 else None
    if file is not None:
        say(f"weights of {spec.name}: {file}, as remembered, with the digest that is asked for")
    return file


def _layer(spec: BackboneSpec) -> int:
    return -1 if spec.layer is None else spec.layer


def _require_digest(file: Path, spec: BackboneSpec) -> None:
    """Refuse another weights file before its tensors are read."""
    check_weights_file(file)
    if file.stat().st_size > _LONG_TO_HASH:
        kind_of(file)
    found = sha256_of_file(file)
    if found != spec.weights_sha256:
        raise ArtifactError(
            f"{file} has SHA-256 {found[:16]}..., the guides were fitted on tokens of {spec.name} "
            f"with weights {spec.weights_sha256[:16]}...; give that file, or extract and fit again "
            "with this one"
        )

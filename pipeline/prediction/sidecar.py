"""What is said of an exported detector, in the file and beside it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import msgspec

from pipeline.artifacts import to_json
from pipeline.artifacts.notes import Scoring
from pipeline.artifacts.terms import Amount, Backbone, Number, Part, Sha256, Share, Text, Versions
from pipeline.backbones.spec import BackboneSpec
from pipeline.configs import ScoreConfig
from pipeline.detection.find import AnyDetector
from pipeline.machine.versions import library_versions
from pipeline.prediction.threshold import Threshold, scoring_of

FORMAT = 1
INPUT = "pixels"


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The threshold that a user has calibrated."""

    value: Share
    source: Text


@dataclass(frozen=True, kw_only=True)
class Input:
    """What the file takes."""

    name: str = INPUT
    shape: tuple[str, int, int, int]
    dtype: str = "float32"
    content: str = "RGB in [0, 1]; mean and std are inside the file"


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What it gives."""

    map: Text
    score: Text


@dataclass(frozen=True, kw_only=True)
class Description:
    """In the file's metadata: what it is, what it takes and gives, how an image is prepared."""

    kind: ClassVar[str] = "onnx-detector"
    guides: Part
    backbone: Backbone
    """Of the first part; how its pictures are prepared is how those of all are."""
    others: list[Backbone]
    """Further ones; the file does the mean and std of each by itself."""
    scoring: Scoring
    threshold: Chosen | None
    input: Input
    preprocessing: list[Text]
    """Step by step."""
    outputs: Outputs
    versions: Versions = field(default_factory=library_versions)


@dataclass(frozen=True, kw_only=True)
class Check:
    """How far onnxruntime is from ours, on images of several kinds."""

    map_max_abs_difference: Amount
    score_max_abs_difference: Amount
    tolerance: Amount
    images: Number
    onnxruntime: Text


@dataclass(frozen=True, kw_only=True)
class SidecarDocument(Description):
    """`detector.json`, beside the file: the same, and what is known once it is written."""

    check: Check
    sha256: Sha256


def to_text(document: Description, indent: int | None = None) -> str:
    """Give a description as strict JSON."""
    fields = {"format": FORMAT, "kind": document.kind, **to_json(document)}
    return json.dumps(fields, indent=indent, allow_nan=False)


@dataclass(frozen=True)
class _Ours:
    kind: Literal["onnx-detector"]


def is_sidecar(path: Path) -> bool:
    """Tell whether a file is the sidecar of an earlier export."""
    try:
        msgspec.json.decode(path.read_bytes(), type=_Ours)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True


def input_of(spec: BackboneSpec) -> tuple[int, int, str, str, bool]:
    """Give what a picture becomes for a backbone, before mean and std."""
    values = spec.resize_values or "8-bit"
    return spec.width, spec.height, spec.resize_filter, values, spec.exif


def describe_file(
    guides: AnyDetector,
    specs: Sequence[BackboneSpec],
    config: ScoreConfig,
    threshold: Threshold,
) -> Description:
    """Write down what the file is, what it takes and gives, and how to prepare an image."""
    spec, *others = specs
    chosen = None
    if threshold.value is not None and threshold.source is not None:
        chosen = Chosen(value=threshold.value, source=threshold.source)
    return Description(
        guides=guides.id,
        backbone=Backbone(name=spec.name, covers=spec.covers()),
        others=[Backbone(name=one.name, covers=one.covers()) for one in others],
        scoring=scoring_of(config),
        threshold=chosen,
        input=Input(shape=("batch", 3, spec.height, spec.width)),
        preprocessing=preprocessing_steps(spec),
        outputs=Outputs(
            map=f"(batch, {spec.height}, {spec.width}) float32 in [0, 1], of the resized image",
            score="(batch,) float32 in [0, 1], larger is more anomalous",
        ),
    )


def preprocessing_steps(spec: BackboneSpec) -> list[str]:
    """Say step by step how an image file becomes the file's input."""
    turn = "turn it as its EXIF orientation says" if spec.exif else "do not apply EXIF rotation"
    size = f"to exactly {spec.width} x {spec.height} (width x height) pixels, no crop, no padding"
    if spec.resize_values == "float":
        steps = [
            "divide by 255, float32",
            f"resize these floats {size}, {spec.resize_filter} with antialiasing, as torch's "
            "interpolate(antialias=True, align_corners=False) does",
            "order as (3, height, width)",
        ]
    else:
        steps = [
            f"resize {size}, with Pillow's {spec.resize_filter} filter, which antialiases when it "
            "shrinks (OpenCV's filter of that name does not); the result is 8-bit again",
            "divide by 255, order as (3, height, width), float32",
        ]
    return [f"decode to 8-bit RGB; drop alpha, repeat grey; {turn}", *steps]

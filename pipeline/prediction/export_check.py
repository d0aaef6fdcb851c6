"""What an ONNX file gives beside what its detector gives, on images of several kinds."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.backbones.spec import BackboneSpec
from pipeline.prediction.model import Model, tokens_for
from pipeline.prediction.sidecar import INPUT, Check
from spg_core.errors import ArtifactError

TOLERANCE = 1e-4
"""Largest difference of a map's pixel or a score between onnxruntime and torch, both float32."""
OUTPUTS = ("map", "score")
_CHECK_IMAGES = 3


def compare(path: Path, model: Model) -> Check:
    """Run the file in onnxruntime beside ours; give the largest differences.

    Raises: ArtifactError where they differ by more than `TOLERANCE`.
    """
    import onnxruntime

    detector, spec = model.detector, model.backbones[0].spec
    images = check_images(spec.height, spec.width)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    maps, scores = session.run(list(OUTPUTS), {INPUT: images.numpy()})
    found = [backbone.layers(_normalised(images, backbone.spec)) for backbone in model.backbones]
    pairs = zip(detector.parts, model.places, strict=True)
    tokens = [tokens_for(part, found[backbone][layer]) for part, (backbone, layer) in pairs]
    values = detector.values(*tokens)
    ours = detector.draw(*values)
    map_difference = float(np.abs(maps - ours.numpy()).max())
    score_difference = float(np.abs(scores - detector.scores(ours, *values).numpy()).max())
    # not <=: a NaN must fail too
    if not (map_difference <= TOLERANCE and score_difference <= TOLERANCE):
        raise ArtifactError(
            f"the exported file differs from ours by {map_difference:.1e} in maps and "
            f"{score_difference:.1e} in scores, at most {TOLERANCE:.0e} is allowed; it was not "
            "kept. Try another version of torch, onnxscript or onnxruntime"
        )
    return Check(
        map_max_abs_difference=map_difference,
        score_max_abs_difference=score_difference,
        tolerance=TOLERANCE,
        images=len(images),
        onnxruntime=onnxruntime.__version__,
    )


def _normalised(images: Tensor, spec: BackboneSpec) -> Tensor:
    mean, std = (torch.tensor(each).reshape(3, 1, 1) for each in (spec.mean, spec.std))
    return (images - mean) / std


def check_images(height: int, width: int) -> Tensor:
    """Make three RGB images `(3, 3, height, width)` in [0, 1]: noise, a gradient, coarse blocks."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(3, height, width, generator=generator)
    down, right = torch.linspace(0, 1, height)[:, None], torch.linspace(0, 1, width)[None, :]
    gradient = torch.stack([down.expand(height, width), right.expand(height, width), down * right])
    coarse = torch.rand(1, 3, 7, 5, generator=generator)
    blocks = torch.nn.functional.interpolate(coarse, (height, width), mode="nearest")[0]
    images = torch.stack([noise, gradient, blocks])
    assert len(images) == _CHECK_IMAGES
    return images

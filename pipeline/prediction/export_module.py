"""The whole detector as one module: RGB in [0, 1] in, anomaly map and image score out.

B images, H x W the model's input in pixels. Everything that has no choice left is inside: mean and
std, backbone, parts, softmax, upsampling and blur (two matrices), pooling.
"""

import torch
from torch import Tensor, nn

from pipeline.prediction.model import Model, tokens_for


class ExportedDetector(nn.Module):
    """What an ONNX file computes; float32 throughout."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: Model) -> None:
        super().__init__()
        [backbone] = model.backbones
        self.tokens = backbone.model
        self.layers = [layer for _, layer in model.places]
        self.detector = model.detector
        channels = (1, 3, 1, 1)
        self.register_buffer("mean", torch.tensor(backbone.spec.mean).reshape(channels))
        self.register_buffer("std", torch.tensor(backbone.spec.std).reshape(channels))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Turn pixels `(B, 3, H, W)` in [0, 1] into maps `(B, H, W)` in [0, 1], scores `(B,)`."""
        found = self.tokens((pixels - self.mean) / self.std)
        pairs = zip(self.detector.parts, self.layers, strict=True)
        tokens = [tokens_for(part, found[layer]) for part, layer in pairs]
        values = self.detector.values(*tokens)
        maps = self.detector.draw(*values)
        return maps, self.detector.scores(maps, *values)

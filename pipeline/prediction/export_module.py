"""The whole detector as one module: RGB in [0, 1] in, anomaly map and image score out.

B images, H x W the model's input in pixels. Everything that has no choice left is inside: mean and
std, backbones, parts, softmax, upsampling and blur (two matrices), pooling.
"""

import torch
from torch import Tensor, nn

from pipeline.prediction.model import Model, tokens_for


class ExportedDetector(nn.Module):
    """What an ONNX file computes; float32 throughout."""

    means: Tensor
    deviations: Tensor

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.backbones = nn.ModuleList(one.model for one in model.backbones)
        self.places = model.places
        self.detector = model.detector
        channels = (-1, 1, 3, 1, 1)
        specs = [one.spec for one in model.backbones]
        self.register_buffer("means", torch.tensor([one.mean for one in specs]).reshape(channels))
        self.register_buffer(
            "deviations", torch.tensor([one.std for one in specs]).reshape(channels)
        )

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Turn pixels `(B, 3, H, W)` in [0, 1] into maps `(B, H, W)` in [0, 1], scores `(B,)`."""
        each = zip(self.backbones, self.means, self.deviations, strict=True)
        found = [backbone((pixels - mean) / std) for backbone, mean, std in each]
        pairs = zip(self.detector.parts, self.places, strict=True)
        tokens = [tokens_for(part, found[backbone][layer]) for part, (backbone, layer) in pairs]
        values = self.detector.values(*tokens)
        maps = self.detector.draw(*values)
        return maps, self.detector.scores(maps, *values)

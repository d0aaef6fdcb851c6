"""A tiny dataset in MVTec AD layout, and a backbone that takes no time."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pipeline.backbones.layers import choose_layers
from pipeline.backbones.load import Backbone
from pipeline.backbones.spec import BackboneSpec
from pipeline.configs import ExtractConfig
from spg_core.types import PatchGrid


def write_images(
    root: Path, n_good: int, n_bad: int, side: int = 40, category: str = "nut"
) -> None:
    """Write `n_good` + `n_bad` test images of `side` pixels; defects are 12 pixels wide."""
    rng = np.random.default_rng(0)
    for defect, count in (("good", n_good), ("hole", n_bad)):
        folder = root / category / "test" / defect
        folder.mkdir(parents=True)
        for index in range(count):
            pixels = rng.integers(0, 120, (side, side, 3), dtype=np.uint8)
            if defect == "hole":
                mask = np.zeros((side, side), np.uint8)
                mask[10:22, 5:17] = 255
                pixels[mask > 0] = 230
                write_mask(root, category, index, mask)
            Image.fromarray(pixels).save(folder / f"{index:03}.png")


def write_mask(root: Path, category: str, index: int, mask: np.ndarray) -> None:
    path = root / category / "ground_truth" / "hole" / f"{index:03}_mask.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)


def config_of(root: Path, image_size: int = 32, decoders: int = 0) -> ExtractConfig:
    return ExtractConfig(
        backbone=("gabor",),
        dataset="mvtec",
        root=str(root),
        image_size=image_size,
        decoders=decoders,
        device="cpu",
    )


DEPTH = 4
"""Layers of the backbone that takes no time."""


class PatchColours(torch.nn.Module):
    """Mean colours of 16-pixel patches as tokens, and of the image as the class token.

    A layer adds its distance from the last.
    """

    def __init__(self, layers):
        super().__init__()
        self.layers = layers

    def forward(self, pixels):
        patches = torch.nn.functional.avg_pool2d(pixels, 16)
        layers = (patches + (DEPTH - 1 - layer) for layer in self.layers)
        return [(one.flatten(2).transpose(1, 2), one.mean((2, 3))) for one in layers]


def tiny_backbone(config: ExtractConfig, backbone: str = "gabor") -> Backbone:
    """Stand in for `pipeline.extraction.shards.open_backbone`; `wide` takes larger inputs."""
    size = 48 if backbone == "wide" else config.image_size or 32
    layers = choose_layers(config.layer or None, DEPTH, backbone)
    spec = BackboneSpec(
        name=backbone,
        library="tests",
        model="patch-colours",
        weights_sha256="0" * 64,
        layer=None,
        final_norm=False,
        projection=False,
        height=size,
        width=size,
        grid=PatchGrid(size // 16, size // 16),
        d_model=3,
        has_cls=True,
        resize_filter="bicubic",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        compute_dtype="float32",
        exif=False,
    )
    return Backbone(PatchColours(layers), spec.of_layers(layers, DEPTH), torch.device("cpu"))

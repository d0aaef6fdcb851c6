"""Images into model inputs: squash to the input size, no crop, normalise.

H and W are the spec's height and width.
"""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.backbones.spec import BackboneSpec
from spg_core.errors import ConfigError, DatasetError


def preprocess(image: Image.Image, spec: BackboneSpec) -> Tensor:
    """Turn an RGB image of any size into one normalised model input `(3, H, W)` float32.

    Pillow's resize widens its kernel when it shrinks, which is the antialiasing that METHOD.md
    asks for; it works on 8-bit values, so the input of a model has 256 levels a channel.

    Raises:
        ConfigError: the spec names a filter that is not known.
        DatasetError: the image is not RGB.
    """
    if image.mode != "RGB":
        raise DatasetError(f"an image of mode {image.mode}; expected RGB, as open_image gives it")
    resized = np.asarray(
        image.resize((spec.width, spec.height), _pillow_filter(spec.resize_filter))
    )
    # 256 levels a channel are normalised once, then looked up: a third of the time, the same bits.
    levels = torch.arange(256, dtype=torch.float32) / 255.0
    mean, std = torch.tensor(spec.mean).reshape(3, 1), torch.tensor(spec.std).reshape(3, 1)
    table = ((levels - mean) / std).numpy()
    pixels = np.empty((3, spec.height, spec.width), np.float32)
    for channel in range(3):
        np.take(table[channel], resized[..., channel], out=pixels[channel], mode="clip")
    return torch.from_numpy(pixels)


def _pillow_filter(name: str) -> Image.Resampling:
    match name:
        case "bilinear":
            return Image.Resampling.BILINEAR
        case "bicubic":
            return Image.Resampling.BICUBIC
        case _:
            raise ConfigError(f"resize filter {name!r}; use bilinear or bicubic")

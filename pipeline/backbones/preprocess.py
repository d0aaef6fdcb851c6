"""Images into model inputs: squash to the input size, no crop, normalise.

H and W are the spec's height and width.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pipeline.backbones.spec import BackboneSpec
from spg_core.errors import ConfigError, DatasetError


def preprocess(image: Image.Image, spec: BackboneSpec) -> Tensor:
    """Turn an RGB image of any size into one normalised model input `(3, H, W)` float32.

    Raises: as `squash`.
    """
    return normalise(torch.from_numpy(squash(image, spec))[None], spec)[0]


def squash(image: Image.Image, spec: BackboneSpec) -> NDArray[np.uint8]:
    """Resize an RGB image of any size to `(H, W, 3)` uint8, a quarter of the float32 it stands for.

    Pillow's resize widens its kernel when it shrinks, which is the antialiasing that METHOD.md
    asks for; it works on 8-bit values, so the input of a model has 256 levels a channel.

    Raises:
        ConfigError: the spec names a filter that is not known.
        DatasetError: the image is not RGB.
    """
    if image.mode != "RGB":
        raise DatasetError(f"an image of mode {image.mode}; expected RGB, as open_image gives it")
    size, resample = (spec.width, spec.height), _pillow_filter(spec.resize_filter)
    return np.array(image.resize(size, resample))


def normalise(pixels: Tensor, spec: BackboneSpec) -> Tensor:
    """Turn squashed images `(B, H, W, 3)` uint8 into model inputs `(B, 3, H, W)` float32.

    On the device the pixels are on, with the same bits on each: 256 levels a channel are
    normalised once, on the CPU, then looked up, which takes a third of the time as well.
    """
    levels = torch.arange(256, dtype=torch.float32) / 255.0
    mean, std = torch.tensor(spec.mean).reshape(3, 1), torch.tensor(spec.std).reshape(3, 1)
    table = (levels - mean) / std
    if pixels.device.type != "cpu":
        return _look_up(table.to(pixels.device), pixels)
    inputs = np.empty((len(pixels), 3, spec.height, spec.width), np.float32)
    for image, into in zip(pixels.numpy(), inputs, strict=True):
        for channel, values in enumerate(table.numpy()):
            # not torch's, which wants indices of eight bytes each
            np.take(values, image[..., channel], out=into[channel], mode="clip")
    return torch.from_numpy(inputs)


def _look_up(table: Tensor, pixels: Tensor) -> Tensor:
    """Give each pixel of `(B, H, W, 3)` its value in its channel's row of `(3, 256)`."""
    return torch.stack([table[c].take(pixels[..., c].long()) for c in range(3)], dim=1)


def _pillow_filter(name: str) -> Image.Resampling:
    match name:
        case "bilinear":
            return Image.Resampling.BILINEAR
        case "bicubic":
            return Image.Resampling.BICUBIC
        case _:
            raise ConfigError(f"resize filter {name!r}; use bilinear or bicubic")

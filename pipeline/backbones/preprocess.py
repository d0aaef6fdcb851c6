"""Images into model inputs: squash to the input size, no crop, normalise.

B images, H and W the spec's height and width.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from pipeline.backbones.spec import BackboneSpec
from pipeline.machine.device import sent
from spg_core.errors import ConfigError, DatasetError


class Squash(NamedTuple):
    """What decides how an image becomes a squashed one: backbones of one `Squash` share it."""

    height: int
    width: int
    resize_filter: str
    resize_values: str | None


def squash_of(spec: BackboneSpec) -> Squash:
    """Give how a backbone wants its images squashed."""
    return Squash(spec.height, spec.width, spec.resize_filter, spec.resize_values)


def preprocess(image: Image.Image, spec: BackboneSpec) -> Tensor:
    """Turn an RGB image of any size into one normalised model input `(3, H, W)` float32.

    Raises: as `squash`.
    """
    return normalise(torch.from_numpy(squash(image, spec))[None], spec)[0]


def squash(image: Image.Image, spec: BackboneSpec) -> NDArray[Any]:
    """Resize an RGB image of any size to `(H, W, 3)`, shrinking with antialiasing.

    Returns: uint8 where the spec's `resize_values` are 8-bit, as Pillow resizes; where they are
        `float`, float32 in [0, 1], scaled before it is resized, as torchvision's transforms do to
        a tensor. The two differ by up to one level of 255.

    Raises:
        ConfigError: the spec names a filter that is not known.
        DatasetError: the image is not RGB.
    """
    if image.mode != "RGB":
        raise DatasetError(f"an image of mode {image.mode}; expected RGB, as open_image gives it")
    match spec.resize_values:
        case "8-bit" | None:
            size, resample = (spec.width, spec.height), _pillow_filter(spec.resize_filter)
            return np.array(image.resize(size, resample))
        case "float":
            return _squash_floats(np.asarray(image), spec)
        case other:
            raise ConfigError(f"images are resized as 8-bit or float values, got {other!r}")


def normalise(pixels: Tensor, spec: BackboneSpec) -> Tensor:
    """Turn squashed images `(B, H, W, 3)` into model inputs `(B, 3, H, W)` float32.

    On the device the pixels are on, with the same bits on each: 256 levels a channel are
    normalised once, on the CPU, then looked up, which takes a third of the time as well.
    """
    mean, std = torch.tensor(spec.mean).reshape(3, 1), torch.tensor(spec.std).reshape(3, 1)
    if pixels.is_floating_point():
        shape, place = (1, 3, 1, 1), pixels.device
        channels_first = pixels.permute(0, 3, 1, 2)
        inputs = channels_first - sent(mean.reshape(shape), place)
        return (inputs / sent(std.reshape(shape), place)).contiguous()
    table = (torch.arange(256, dtype=torch.float32) / 255.0 - mean) / std
    if pixels.device.type != "cpu":
        return _look_up(sent(table, pixels.device), pixels)
    filled = np.empty((len(pixels), 3, spec.height, spec.width), np.float32)
    for image, into in zip(pixels.numpy(), filled, strict=True):
        for channel, values in enumerate(table.numpy()):
            # not torch.take, which wants indices of eight bytes each
            np.take(values, image[..., channel], out=into[channel], mode="clip")
    return torch.from_numpy(filled)


def _look_up(table: Tensor, pixels: Tensor) -> Tensor:
    """Give each pixel of `(B, H, W, 3)` its value in its channel's row of `(3, 256)`."""
    return torch.stack([table[c].take(pixels[..., c].long()) for c in range(3)], dim=1)


def _squash_floats(image: NDArray[np.uint8], spec: BackboneSpec) -> NDArray[np.float32]:
    """Scale to [0, 1], then resize, a channel at a time: a large photo is three times smaller."""
    resized = np.empty((spec.height, spec.width, 3), np.float32)
    _pillow_filter(spec.resize_filter)
    for channel in range(3):
        plane = torch.from_numpy(image[..., channel].astype(np.float32)) / 255.0
        resized[..., channel] = functional.interpolate(
            plane[None, None],
            (spec.height, spec.width),
            mode=spec.resize_filter,
            antialias=True,
            align_corners=False,
        )[0, 0].numpy()
    return resized


def _pillow_filter(name: str) -> Image.Resampling:
    match name:
        case "bilinear":
            return Image.Resampling.BILINEAR
        case "bicubic":
            return Image.Resampling.BICUBIC
        case _:
            raise ConfigError(f"resize filter {name!r}; use bilinear or bicubic")

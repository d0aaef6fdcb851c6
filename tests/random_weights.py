"""Weights files of real architectures, with random numbers in them."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from pipeline.backbones.undrawn import Undrawn


def random_timm_weights(folder: Path, model: str, **options: Any) -> Path:
    """Write the random state dict of a timm model, its classifier included, to a file."""
    import timm

    torch.manual_seed(7)
    with Undrawn():
        net = timm.create_model(model, pretrained=False, **options)
    # timm starts some tensors at zero or one, which would hide that they are not loaded.
    state = {
        key: value + 0.02 * torch.randn_like(value) if value.is_floating_point() else value
        for key, value in net.state_dict().items()
    }
    path = folder / f"{model}.safetensors"
    save_file({key: value.contiguous() for key, value in state.items()}, path)
    return path

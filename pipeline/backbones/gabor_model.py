"""The embedded `gabor` descriptor as a backbone: no download, no choice but size."""

import hashlib
from dataclasses import replace

from torch import Tensor, nn

from pipeline.backbones.spec import BackboneRequest, BackboneSpec
from pipeline.backbones.timm_models import check_image_size
from spg_core.errors import ConfigError
from spg_core.gabor import PATCH_SIZE, VERSION, GaborTokens

DEFAULT_IMAGE_SIZE = 448
MEAN = STD = (0.5, 0.5, 0.5)


class OnlyLayer(nn.Module):
    """A model without blocks to choose from, in the form of those that have some."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> list[tuple[Tensor, Tensor | None]]:
        """Turn pixels `(B, 3, height, width)` into tokens `(B, n, d)`, of one layer."""
        return [self.model(pixels)]


def open_gabor(request: BackboneRequest) -> tuple[nn.Module, tuple[BackboneSpec, ...]]:
    """Build the descriptor, and say what it is.

    Raises:
        ConfigError: an option that only a learned backbone has, or an impossible size.
    """
    _refuse_options(request)
    size = DEFAULT_IMAGE_SIZE if request.image_size is None else request.image_size
    check_image_size(size, PATCH_SIZE, PATCH_SIZE, request.name)
    model = GaborTokens()
    spec = request.spec(
        library="spg_core",
        model=VERSION,
        final_norm=False,
        size=size,
        patch=(PATCH_SIZE, PATCH_SIZE),
        d_model=model.d_model,
        has_cls=False,
        mean=MEAN,
        std=STD,
    )
    digest = hashlib.sha256(VERSION.encode()).hexdigest()
    spec = replace(spec, weights_sha256=digest, position_embedding="none", activation="none")
    return OnlyLayer(model), (spec,)


def _refuse_options(request: BackboneRequest) -> None:
    given = {
        "--weights": request.weights,
        "--layer": request.layer,
        "--final-norm": request.final_norm,
        "mean": request.mean,
        "std": request.std,
    }
    for option, value in given.items():
        if value is not None:
            typed = ",".join(map(str, value)) if isinstance(value, tuple | list) else value
            raise ConfigError(
                f"{option} {typed} does not apply to gabor, a fixed descriptor; leave it out"
            )
    if request.compute_dtype != "float32":
        raise ConfigError(f"gabor computes in float32, not {request.compute_dtype}; leave it out")

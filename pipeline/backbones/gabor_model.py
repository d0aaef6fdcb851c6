"""The embedded `gabor` descriptor as a backbone: no download, no choice but size."""

import hashlib
from dataclasses import replace

from torch import nn

from pipeline.backbones.spec import BackboneRequest, BackboneSpec
from pipeline.backbones.timm_models import check_image_size
from spg_core.errors import ConfigError
from spg_core.gabor import PATCH_SIZE, VERSION, GaborTokens

DEFAULT_IMAGE_SIZE = 448
MEAN = STD = (0.5, 0.5, 0.5)


def open_gabor(request: BackboneRequest) -> tuple[nn.Module, BackboneSpec]:
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
        layer=None,
        final_norm=False,
        size=size,
        patch=(PATCH_SIZE, PATCH_SIZE),
        d_model=model.d_model,
        has_cls=False,
        mean=MEAN,
        std=STD,
    )
    digest = hashlib.sha256(VERSION.encode()).hexdigest()
    return model, replace(spec, weights_sha256=digest, position_embedding="none", activation="none")


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
            raise ConfigError(
                f"{option} {value} does not apply to gabor, a fixed descriptor; leave it out"
            )
    if request.compute_dtype != "float32":
        raise ConfigError(f"gabor computes in float32, not {request.compute_dtype}; leave it out")

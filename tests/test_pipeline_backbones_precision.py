"""What a GPU computes in is settled for the forward pass alone, and float32 is float32."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from pipeline.backbones.load import Backbone, load_backbone
from pipeline.backbones.precision import computing_in
from spg_core.errors import ConfigError

BACKENDS: Any = torch.backends  # whose types lack the newer names
MATMUL, CUDNN = BACKENDS.cuda.matmul, BACKENDS.cudnn


Setting = tuple[object, str, object]
OLDER: list[list[Setting]] = [
    [(MATMUL, "allow_tf32", matmul), (CUDNN, "allow_tf32", cudnn)]
    for matmul, cudnn in ((False, True), (True, True), (False, False))
]
NEWER: list[list[Setting]] = [
    [(BACKENDS, "fp32_precision", "tf32")],
    [(BACKENDS, "fp32_precision", "tf32"), (MATMUL, "fp32_precision", "ieee")],
    [(MATMUL, "fp32_precision", "tf32")],
    [(CUDNN.conv, "fp32_precision", "ieee")],
]


def standing() -> tuple[str, str, str]:
    """Tell what matrix products, convolutions and recurrent layers are computed in."""
    return MATMUL.fp32_precision, CUDNN.conv.fp32_precision, CUDNN.rnn.fp32_precision


def named(settings: list[Setting]) -> str:
    """Name a parameter."""
    return ", ".join(f"{name} {value}" for _, name, value in settings)


@pytest.fixture(params=[*OLDER, *NEWER], ids=named)
def switches(request: pytest.FixtureRequest) -> Iterator[None]:
    """Set the process's switches for TF32 in some way; they are to be the same afterwards."""
    everywhere, before = BACKENDS.fp32_precision, standing()
    older = MATMUL.allow_tf32, CUDNN.allow_tf32
    for place, name, value in request.param:
        setattr(place, name, value)
    given = [none_as_ieee(one) for one in standing()]
    yield
    assert [none_as_ieee(one) for one in standing()] == given
    BACKENDS.fp32_precision = everywhere
    MATMUL.allow_tf32, CUDNN.allow_tf32 = older
    places = (MATMUL, CUDNN.conv, CUDNN.rnn)
    for place, value in zip(places, before, strict=True):
        place.fp32_precision = value


def none_as_ieee(precision: str) -> str:
    """Nothing said is full precision."""
    return "ieee" if precision == "none" else precision


@pytest.mark.parametrize(
    ("dtype", "precision", "half"),
    [
        ("float32", "ieee", None),
        ("tf32", "tf32", None),
        ("bfloat16", "ieee", torch.bfloat16),
        ("float16", "ieee", torch.float16),
    ],
)
@pytest.mark.usefixtures("switches")
def test_a_dtype_sets_both_switches_and_autocast(
    dtype: str, precision: str, half: torch.dtype | None
) -> None:
    with computing_in(dtype, "cpu"):
        inside = standing()
        product = torch.ones(2, 2) @ torch.ones(2, 2)

    assert inside[:2] == (precision, precision)
    assert product.dtype == (half or torch.float32)


@pytest.mark.usefixtures("switches")
def test_the_switches_are_put_back_after_an_error() -> None:
    with pytest.raises(ValueError, match="out of tune"), computing_in("tf32", "cpu"):
        raise ValueError("out of tune")


class Switches(nn.Module):
    """Gives tokens of ones, and notes how the switches stand."""

    seen: tuple[str, str, str] | None = None

    def forward(self, pixels: torch.Tensor) -> list[tuple[torch.Tensor, None]]:
        """Turn `(B, 3, 96, 96)` into `(B, 36, 160)`."""
        self.seen = standing()
        return [(torch.ones(len(pixels), 36, 160, device=pixels.device), None)]


@pytest.mark.usefixtures("switches")
def test_a_backbone_on_a_gpu_computes_in_float32_unless_told_otherwise() -> None:
    spec = load_backbone("gabor", image_size=96).spec
    model = Switches()

    # a device without numbers stands in for the GPU
    Backbone(model, [spec], torch.device("meta"))(torch.zeros(1, 3, 96, 96))

    assert spec.compute_dtype == "float32"
    assert model.seen is not None
    assert model.seen[:2] == ("ieee", "ieee")


@pytest.mark.parametrize("dtype", ["tf32", "bfloat16", "float16"])
def test_faster_types_are_for_gpus(dtype: str) -> None:
    with pytest.raises(ConfigError, match=f"compute dtype {dtype} is for GPUs"):
        load_backbone("dinov3", compute_dtype=dtype)
    with pytest.raises(ConfigError, match="use one of float32, tf32, bfloat16, float16"):
        load_backbone("dinov3", compute_dtype="float8")

"""What a GPU computes in is settled for the forward pass alone, and float32 is float32."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from pipeline.backbones.load import Backbone, load_backbone
from pipeline.backbones.precision import computing_in
from spg_core.errors import ConfigError

BACKENDS: Any = torch.backends  # whose types lack the newer names
MATMUL, CUDNN = BACKENDS.cuda.matmul, BACKENDS.cudnn


SETTINGS: dict[str, list[Callable[[], None]]] = {
    "as it comes": [],
    "products in TF32": [partial(setattr, MATMUL, "allow_tf32", True)],
    "nothing in TF32": [partial(setattr, CUDNN, "allow_tf32", False)],
    "products high": [partial(torch.set_float32_matmul_precision, "high")],
    "products medium": [partial(torch.set_float32_matmul_precision, "medium")],
    "all in TF32": [partial(setattr, BACKENDS, "fp32_precision", "tf32")],
    "all but products in TF32": [
        partial(setattr, BACKENDS, "fp32_precision", "tf32"),
        partial(setattr, MATMUL, "fp32_precision", "ieee"),
    ],
    "products in TF32 by the newer name": [partial(setattr, MATMUL, "fp32_precision", "tf32")],
    "no convolution in TF32": [partial(setattr, CUDNN.conv, "fp32_precision", "ieee")],
}
"""What users and libraries do, by PyTorch's older and newer names."""


def standing() -> list[str]:
    """Tell what products and convolutions on a GPU, then on a CPU, are computed in."""
    places = MATMUL, CUDNN.conv, BACKENDS.mkldnn.matmul, BACKENDS.mkldnn.conv
    # nothing said is full precision
    return ["ieee" if one.fp32_precision == "none" else one.fp32_precision for one in places]


def older_names() -> list[object]:
    """Tell what the older names say, an error where they say nothing any more."""
    found: list[object] = []
    for ask in (lambda: MATMUL.allow_tf32, lambda: CUDNN.allow_tf32, _products):
        try:
            found.append(ask())
        except RuntimeError:
            found.append("mixed")
    return found


def _products() -> str:
    return torch.get_float32_matmul_precision()


@pytest.fixture(params=SETTINGS)
def switches(request: pytest.FixtureRequest) -> Iterator[None]:
    """Set the process's switches in some way; they are to be the same afterwards."""
    start = standing(), older_names()
    for setting in SETTINGS[request.param]:
        setting()
    given = standing(), older_names()
    yield
    after = standing(), older_names()
    BACKENDS.fp32_precision = "none"
    torch.set_float32_matmul_precision("highest")
    CUDNN.allow_tf32 = True
    BACKENDS.mkldnn.conv.fp32_precision = "none"
    assert (standing(), older_names()) == start
    assert after[0] == given[0]
    # where the two names disagreed before, the older one may say something now
    for now, before in zip(after[1], given[1], strict=True):
        assert before in ("mixed", now)


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

    assert inside == [precision] * 4
    assert product.dtype == (half or torch.float32)


@pytest.mark.usefixtures("switches")
def test_the_switches_are_put_back_after_an_error() -> None:
    with pytest.raises(ValueError, match="out of tune"), computing_in("tf32", "cpu"):
        raise ValueError("out of tune")


class Switches(nn.Module):
    """Gives tokens of ones, and notes how the switches stand."""

    seen: list[str] | None = None

    def forward(self, pixels: torch.Tensor) -> list[tuple[torch.Tensor, None]]:
        """Turn `(B, 3, 96, 96)` into `(B, 36, 160)`."""
        self.seen = standing()
        return [(torch.ones(len(pixels), 36, 160, device=pixels.device), None)]


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.usefixtures("switches")
def test_a_backbone_computes_in_float32_unless_told_otherwise(device: str) -> None:
    spec = load_backbone("gabor", image_size=96).spec
    model = Switches()

    # a device without numbers stands in for the GPU
    Backbone(model, [spec], torch.device(device))(torch.zeros(1, 3, 96, 96))

    assert spec.compute_dtype == "float32"
    assert model.seen == ["ieee"] * 4


@pytest.mark.parametrize("dtype", ["tf32", "bfloat16", "float16"])
def test_faster_types_are_for_gpus(dtype: str) -> None:
    with pytest.raises(ConfigError, match=f"compute dtype {dtype} is for GPUs"):
        load_backbone("dinov3", compute_dtype=dtype)
    with pytest.raises(ConfigError, match="use one of float32, tf32, bfloat16, float16"):
        load_backbone("dinov3", compute_dtype="float8")

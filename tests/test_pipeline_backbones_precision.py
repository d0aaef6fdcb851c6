"""What a GPU computes in is settled for the forward pass alone, and float32 is float32."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from pipeline.backbones.load import Backbone, load_backbone
from pipeline.backbones.precision import computing_in
from spg_core.errors import ConfigError

MATMUL, CUDNN = torch.backends.cuda.matmul, torch.backends.cudnn


@pytest.fixture(params=[(False, True), (True, True), (False, False)])
def switches(request: pytest.FixtureRequest) -> Iterator[tuple[bool, bool]]:
    """Set the process's switches for TF32 in some way; they are to be the same afterwards."""
    before = MATMUL.allow_tf32, CUDNN.allow_tf32
    MATMUL.allow_tf32, CUDNN.allow_tf32 = request.param
    yield request.param
    assert (MATMUL.allow_tf32, CUDNN.allow_tf32) == request.param
    MATMUL.allow_tf32, CUDNN.allow_tf32 = before


@pytest.mark.parametrize(
    ("dtype", "tf32", "half"),
    [
        ("float32", False, None),
        ("tf32", True, None),
        ("bfloat16", False, torch.bfloat16),
        ("float16", False, torch.float16),
    ],
)
@pytest.mark.usefixtures("switches")
def test_a_dtype_sets_both_switches_and_autocast(
    dtype: str, tf32: bool, half: torch.dtype | None
) -> None:
    with computing_in(dtype, "cpu"):
        inside = MATMUL.allow_tf32, CUDNN.allow_tf32
        product = torch.ones(2, 2) @ torch.ones(2, 2)

    assert inside == (tf32, tf32)
    assert product.dtype == (half or torch.float32)


@pytest.mark.usefixtures("switches")
def test_the_switches_are_put_back_after_an_error() -> None:
    with pytest.raises(ValueError, match="out of tune"), computing_in("tf32", "cpu"):
        raise ValueError("out of tune")


class Switches(nn.Module):
    """Gives tokens of ones, and notes how the switches stand."""

    seen: tuple[bool, bool] | None = None

    def forward(self, pixels: torch.Tensor) -> list[tuple[torch.Tensor, None]]:
        """Turn `(B, 3, 96, 96)` into `(B, 36, 160)`."""
        self.seen = MATMUL.allow_tf32, CUDNN.allow_tf32
        return [(torch.ones(len(pixels), 36, 160, device=pixels.device), None)]


@pytest.mark.usefixtures("switches")
def test_a_backbone_on_a_gpu_computes_in_float32_unless_told_otherwise() -> None:
    spec = load_backbone("gabor", image_size=96).spec
    model = Switches()

    # a device without numbers stands in for the GPU
    Backbone(model, [spec], torch.device("meta"))(torch.zeros(1, 3, 96, 96))

    assert spec.compute_dtype == "float32"
    assert model.seen == (False, False)


@pytest.mark.parametrize("dtype", ["tf32", "bfloat16", "float16"])
def test_faster_types_are_for_gpus(dtype: str) -> None:
    with pytest.raises(ConfigError, match=f"compute dtype {dtype} is for GPUs"):
        load_backbone("dinov3", compute_dtype=dtype)
    with pytest.raises(ConfigError, match="use one of float32, tf32, bfloat16, float16"):
        load_backbone("dinov3", compute_dtype="float8")

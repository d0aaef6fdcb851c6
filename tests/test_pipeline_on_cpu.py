"""A forward pass on the CPU: the same numbers but for rounding, and nothing else is touched."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.nn import functional

from pipeline.backbones.on_cpu import OneDnnLinear, forward_on_cpu, linear_layers_by
from spg_core.products import HAS_ONEDNN

needs_onednn = pytest.mark.skipif(not HAS_ONEDNN, reason="this PyTorch has no oneDNN")


class Patches(nn.Module):
    """Four patches of 2 x 2 pixels as tokens, and their mean as a class token if asked for."""

    def __init__(self, has_cls: bool) -> None:
        super().__init__()
        self.has_cls = has_cls
        self.embed = nn.Linear(12, 5)

    def forward(self, pixels: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
        """Turn `(B, 3, 4, 4)` into `(B, 4, 5)` and `(B, 5)`, of two layers."""
        tokens = self.embed(functional.unfold(pixels, 2, stride=2).transpose(1, 2))
        first = tokens, tokens.mean(1) if self.has_cls else None
        return [first, (2 * tokens, first[1])]


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("n_images", [1, 2, 5])
@pytest.mark.parametrize("has_cls", [True, False])
@pytest.mark.usefixtures("two_threads")
@torch.inference_mode()
def test_images_shared_out_come_back_in_order(n_images: int, has_cls: bool) -> None:
    torch.manual_seed(0)
    model, pixels = Patches(has_cls), torch.randn(n_images, 3, 4, 4)
    layers = model(pixels)

    found = forward_on_cpu(model, pixels)

    assert len(found) == len(layers) == 2
    for (tokens, cls), (expected, expected_cls) in zip(found, layers, strict=True):
        torch.testing.assert_close(tokens, expected, rtol=1e-5, atol=1e-6)
        if expected_cls is None:
            assert cls is None
        else:
            torch.testing.assert_close(cls, expected_cls, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("two_threads")
def test_threads_are_given_back_also_after_an_error() -> None:
    model = Patches(has_cls=True)

    forward_on_cpu(model, torch.randn(4, 3, 4, 4))
    assert torch.get_num_threads() == 2
    with pytest.raises(RuntimeError, match=r"inner product|mat1"):
        forward_on_cpu(model, torch.randn(4, 5, 4, 4))
    assert torch.get_num_threads() == 2


@needs_onednn
@torch.inference_mode()
def test_a_hand_worked_layer() -> None:
    weight, bias = torch.tensor([[1.0, 2.0], [0.0, -1.0], [3.0, 0.5]]), torch.tensor([1.0, 0, -2])

    with OneDnnLinear():
        found = functional.linear(torch.tensor([[[2.0, 4.0]]]), weight, bias)

    assert found.tolist() == [[[11.0, -4.0, 6.0]]]


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 7, 5), (0, 5), (2, 0, 5)])
@pytest.mark.parametrize("bias", [True, False])
@torch.inference_mode()
def test_a_layer_gives_what_it_gives_without(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    layer, inputs = nn.Linear(5, 4, bias=bias), torch.randn(shape)

    with OneDnnLinear():
        found = layer(inputs)

    assert found.shape == (*shape[:-1], 4)
    torch.testing.assert_close(found, layer(inputs), rtol=1e-5, atol=1e-6)


@torch.inference_mode()
def test_an_image_does_not_depend_on_its_batch() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(192, 576), nn.GELU(), nn.Linear(576, 192))
    images = torch.randn(6, 197, 192)

    with OneDnnLinear():
        together = model(images)
        alone = torch.cat([model(image[None]) for image in images])

    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)


@torch.inference_mode()
def test_other_types_and_operations_pass_through() -> None:
    torch.manual_seed(0)
    layer, inputs = nn.Linear(5, 4).double(), torch.randn(3, 5, dtype=torch.float64)
    weight = torch.randn(4, 5)

    with OneDnnLinear():
        found = layer(inputs)
        product = inputs.float() @ weight.T

    assert torch.equal(found, layer(inputs))
    assert torch.equal(product, inputs.float() @ weight.T)


@pytest.mark.parametrize(
    ("processor", "is_onednn"),
    [
        ("AMD EPYC 9B14", True),
        ("Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz", False),
        ("GenuineIntel", False),
        ("aarch64", True),
    ],
)
def test_onednn_computes_linear_layers_where_mkl_is_not_at_home(processor, is_onednn):
    assert isinstance(linear_layers_by(processor), OneDnnLinear) is is_onednn

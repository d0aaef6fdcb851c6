"""Linear layers by oneDNN: the same numbers but for rounding, and nothing else is touched."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from pipeline.backbones import onednn
from pipeline.backbones.onednn import OneDnnLinear

pytestmark = pytest.mark.skipif(not onednn._HAS_ONEDNN, reason="this PyTorch has no oneDNN")


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

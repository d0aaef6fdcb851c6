"""Products of rows: the numbers of `linear`, with a gradient where one is asked for."""

import pytest
import torch
from torch.nn import functional

from spg_core import products
from spg_core.products import inner_products


def operands():
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(2, 5, 7, generator=generator), torch.randn(3, 7, generator=generator)
    return left, right, torch.randn(3, generator=generator)


@pytest.mark.parametrize("has_onednn", [True, False])
def test_the_numbers_are_those_of_linear_with_or_without_onednn(monkeypatch, has_onednn):
    monkeypatch.setattr(products, "HAS_ONEDNN", has_onednn and products.HAS_ONEDNN)
    left, right, bias = operands()

    torch.testing.assert_close(inner_products(left, right), left @ right.T)
    torch.testing.assert_close(inner_products(left, right, bias), left @ right.T + bias)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_gradient_asked_for_is_that_of_linear(which):
    ours, theirs = operands(), operands()
    for pair in (ours, theirs):
        pair[which].requires_grad_()

    inner_products(*ours).square().sum().backward()
    functional.linear(*theirs).square().sum().backward()

    torch.testing.assert_close(ours[which].grad, theirs[which].grad)


def test_operands_of_two_types_are_refused_rather_than_read_as_one():
    left, right, _ = operands()

    with pytest.raises(RuntimeError, match="dtype"):
        inner_products(left, right.double())

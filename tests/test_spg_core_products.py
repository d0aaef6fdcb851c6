"""Products of rows: the numbers of `linear`, with a gradient where one is asked for."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from spg_core import products
from spg_core.products import Libraries, inner_products


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


@pytest.mark.skipif(not products.HAS_ONEDNN, reason="this PyTorch has no oneDNN")
@pytest.mark.parametrize("layout", ["rows", "right_columns", "columns"])
@pytest.mark.parametrize("library", ["onednn", "torch"])
def test_each_layout_is_multiplied_by_the_library_named_for_it(monkeypatch, layout, library):
    left, right = torch.randn(5, 7), torch.randn(3, 7)
    if layout == "right_columns":
        right = torch.randn(7, 3).T
    if layout == "columns":
        left, right = torch.randn(7, 5).T, torch.randn(7, 3).T
    other = "torch" if library == "onednn" else "onednn"
    by = replace(Libraries(other, other, other), **{layout: library})
    asked = []
    monkeypatch.setattr(
        products.functional, "linear", lambda *given: asked.append(given) or left @ right.T
    )

    found = inner_products(left, right, by=by)

    torch.testing.assert_close(found, left @ right.T)
    assert bool(asked) == (library == "torch")

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spg_core.anomaly_map import MapOperator, map_operator
from spg_core.guide_loss import (
    LabelTargets,
    dice_loss,
    focal_loss,
    label_loss,
    map_targets,
    patch_loss,
)
from spg_core.types import PatchGrid


def test_focal_of_one_pixel_by_hand():
    p, y = torch.tensor([[[0.8]]], dtype=torch.float64), torch.ones(1, 1, 1, dtype=torch.float64)

    loss = focal_loss(p, y)

    pt = 1e-5 * 0.2 + (1 - 1e-5) * 0.8 + 1e-5
    assert float(loss) == pytest.approx(-((1 - pt) ** 2) * math.log(pt), rel=1e-12)


def test_dice_is_averaged_over_images_not_over_their_sum():
    p = torch.tensor([[[1.0, 0.0]], [[0.5, 0.5]]])
    y = torch.tensor([[[1.0, 0.0]], [[0.0, 0.0]]])

    loss = dice_loss(p, y)

    assert float(loss) == pytest.approx(1 - ((2 + 1) / (1 + 1 + 1) + 1 / (1 + 0 + 1)) / 2)


BOTH: dict[str, Any] = {"dice": "both", "lambda_dice": 1.0}


def double_operator(grid, height, width):
    operator = map_operator(grid, height, width, sigma=0)
    return MapOperator(operator.rows_to_pixels.double(), operator.cols_to_pixels.double())


@pytest.mark.parametrize("dice", ["anomaly", "both"])
@given(
    seed=st.integers(0, 2**31), size=st.sampled_from([(3, 5), (2, 2), (9, 4)]), n=st.integers(1, 4)
)
def test_loss_and_gradient_are_those_of_the_definition_under_autograd(dice, seed, size, n):
    generator = torch.Generator().manual_seed(seed)
    operator = double_operator(PatchGrid(2, 3), *size)
    p = torch.rand((n, 6), generator=generator, dtype=torch.float64)
    p[0, 0], p[-1, 5] = 0.0, 1.0
    y = (torch.rand((n, *size), generator=generator) > 0.7).double()
    plain = p.clone().requires_grad_()

    loss, gradient = patch_loss(p, operator, map_targets(operator, y), dice=dice, lambda_dice=0.7)

    maps = operator(plain)
    overlap = dice_loss(maps, y) + (dice_loss(1 - maps, 1 - y) if dice == "both" else 0)
    expected = focal_loss(maps, y) + 0.7 * overlap
    expected.backward()
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(gradient, plain.grad, rtol=1e-8, atol=1e-10)


def test_float32_maps_give_the_loss_and_gradient_of_float64():
    generator = torch.Generator().manual_seed(3)
    p = torch.rand((3, 16), generator=generator)
    y = (torch.rand((3, 64, 48), generator=generator) > 0.95).float()
    fine = double_operator(PatchGrid(4, 4), 64, 48)
    coarse = map_operator(PatchGrid(4, 4), 64, 48, sigma=0)

    loss, gradient = patch_loss(p, coarse, map_targets(coarse, y), **BOTH)

    exact = patch_loss(p.double(), fine, map_targets(fine, y.double()), **BOTH)
    torch.testing.assert_close(loss.double(), exact[0], rtol=1e-5, atol=0)
    torch.testing.assert_close(gradient.double(), exact[1], rtol=1e-4, atol=1e-6)


def test_a_perfect_map_costs_next_to_nothing_and_a_reversed_one_much():
    y = torch.zeros(2, 8, 8)
    y[0, 2:4, 2:5] = 1
    operator = map_operator(PatchGrid(8, 8), 8, 8, sigma=0)  # a patch is a pixel
    targets = map_targets(operator, y)

    assert float(patch_loss(y.flatten(1), operator, targets, **BOTH)[0]) < 1e-3
    assert float(patch_loss(1 - y.flatten(1), operator, targets, **BOTH)[0]) > 2


def test_the_loss_of_labels_is_the_cross_entropy_of_both_cosines():
    cosines = torch.tensor([[0.2, 0.5], [0.4, -0.1], [0.0, 0.3]], requires_grad=True)
    labels = torch.tensor([1, 0, 0])
    difference = (cosines[:, 1] - cosines[:, 0])[:, None]

    loss, by_logits = label_loss(difference, LabelTargets(labels.float()[:, None]))

    expected = torch.nn.functional.cross_entropy(cosines, labels)
    (by_cosines,) = torch.autograd.grad(expected, cosines)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(by_logits[:, 0], by_cosines[:, 1])

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spg_core.errors import ConfigError
from spg_core.guide_loss import dice_loss, focal_loss, map_loss


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


@pytest.mark.parametrize("dice", ["anomaly", "both"])
@given(seed=st.integers(0, 2**31), shape=st.sampled_from([(1, 3, 5), (4, 2, 2), (2, 7, 1)]))
def test_the_written_gradient_is_the_one_autograd_finds(dice, seed, shape):
    generator = torch.Generator().manual_seed(seed)
    p = torch.rand((3, *shape), generator=generator, dtype=torch.float64)  # 3 fits side by side
    p[0, 0, 0, 0], p[1, 0, 0, 0] = 0.0, 1.0
    y = (torch.rand(shape, generator=generator) > 0.7).double()
    weight = torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64)

    fast, plain = p.clone().requires_grad_(), p.clone().requires_grad_()
    loss_fast = map_loss(fast, y, dice=dice)
    loss_plain = focal_loss(plain, y) + dice_loss(plain, y)
    if dice == "both":
        loss_plain = loss_plain + dice_loss(1 - plain, 1 - y)
    (loss_fast * weight).sum().backward()
    (loss_plain * weight).sum().backward()

    torch.testing.assert_close(loss_fast, loss_plain, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(fast.grad, plain.grad, rtol=1e-8, atol=1e-10)


def test_a_perfect_map_costs_next_to_nothing_and_a_reversed_one_much():
    y = torch.zeros(2, 8, 8)
    y[0, 2:4, 2:5] = 1

    assert float(map_loss(y.clone(), y, dice="both")) < 1e-3
    assert float(map_loss(1 - y, y, dice="both")) > 2


def test_another_dice_is_refused():
    with pytest.raises(ConfigError, match="'anomaly' or 'both', got 'soft'"):
        map_loss(torch.ones(1, 1, 1), torch.ones(1, 1, 1), dice="soft")

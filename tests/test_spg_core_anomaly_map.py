import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from spg_core.anomaly_map import bilinear_matrix, gaussian_matrix, image_scores, map_operator
from spg_core.errors import ConfigError
from spg_core.pooling import Pooling
from spg_core.types import PatchGrid


def test_two_patches_become_four_pixels_by_hand():
    torch.testing.assert_close(
        bilinear_matrix(4, 2) @ torch.tensor([0.0, 1.0], dtype=torch.float64),
        torch.tensor([0.0, 0.25, 0.75, 1.0], dtype=torch.float64),
    )


@given(
    st.integers(1, 9), st.integers(1, 9), st.integers(1, 40), st.integers(1, 40), st.integers(1, 3)
)
def test_without_blur_the_map_is_torchs_bilinear_interpolation(rows, cols, height, width, n):
    patches = torch.rand(n, rows * cols, generator=torch.Generator().manual_seed(rows))

    maps = map_operator(PatchGrid(rows, cols), height, width, sigma=0)(patches)

    expected = torch.nn.functional.interpolate(
        patches.reshape(n, 1, rows, cols), (height, width), mode="bilinear", align_corners=False
    )[:, 0]
    torch.testing.assert_close(maps, expected, atol=2e-6, rtol=0)


@given(
    st.integers(1, 30),
    st.integers(1, 30),
    st.floats(0.2, 6),
)
def test_the_blur_is_scipys_on_each_image_on_its_own(height, width, sigma):
    image = np.random.default_rng(height).random((2, height, width))

    blurred = (
        gaussian_matrix(height, sigma).numpy() @ image @ gaussian_matrix(width, sigma).numpy().T
    )

    expected = np.stack([gaussian_filter(one, sigma) for one in image])
    np.testing.assert_allclose(blurred, expected, atol=1e-12)


def test_each_image_is_mapped_on_its_own():
    operator = map_operator(PatchGrid(3, 4), 31, 42, sigma=4)
    patches = torch.rand(5, 12)

    together = operator(patches)

    for i in range(5):
        torch.testing.assert_close(operator(patches[i : i + 1])[0], together[i])


def test_a_map_of_probabilities_stays_in_the_unit_interval():
    maps = map_operator(PatchGrid(5, 5), 80, 80, sigma=4)(torch.ones(1, 25))

    torch.testing.assert_close(maps, torch.ones(1, 80, 80))


@given(st.floats(1e-3, 1e3))
def test_pooling_lies_between_the_mean_and_the_maximum(tau):
    maps = torch.rand(3, 6, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    score = image_scores(maps, Pooling(tau))

    assert bool((score <= maps.amax((1, 2)) + 1e-12).all())
    assert bool((score >= maps.mean((1, 2)) - 1e-12).all())
    naive = tau * torch.log(torch.exp((maps - 0) / tau).mean((1, 2)))
    if tau > 0.01:
        torch.testing.assert_close(score, naive, atol=1e-8, rtol=0)


def test_the_limits_of_pooling_are_max_and_mean():
    maps = torch.rand(2, 4, 4)

    torch.testing.assert_close(image_scores(maps, Pooling()), maps.amax((1, 2)))
    torch.testing.assert_close(image_scores(maps, Pooling(math.inf)), maps.mean((1, 2)))
    torch.testing.assert_close(image_scores(maps, Pooling(1e-30)), maps.amax((1, 2)))
    torch.testing.assert_close(
        image_scores(maps, Pooling(1e6)), maps.mean((1, 2)), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("tau", [-1.0, float("nan"), -math.inf])
def test_a_tau_without_meaning_is_refused(tau):
    with pytest.raises(ConfigError, match="tau must be 0"):
        image_scores(torch.zeros(1, 2, 2), Pooling(tau))


def test_the_mean_of_the_largest_pixels_by_hand():
    maps = torch.tensor([[[0.1, 0.9], [0.5, 0.3]], [[1.0, 0.0], [0.0, 0.0]]])

    torch.testing.assert_close(image_scores(maps, Pooling(top=0.5)), torch.tensor([0.7, 0.5]))
    # 1.96 of 4 pixels are one, and one is taken of however few
    torch.testing.assert_close(image_scores(maps, Pooling(top=0.49)), torch.tensor([0.9, 1.0]))
    torch.testing.assert_close(image_scores(maps, Pooling(top=1e-9)), maps.amax((1, 2)))
    torch.testing.assert_close(image_scores(maps, Pooling(top=1.0)), maps.mean((1, 2)))


@given(st.integers(1, 40), st.integers(1, 40), st.floats(1e-6, 1))
def test_a_larger_share_of_the_pixels_never_scores_higher(height, width, share):
    maps = torch.rand(2, height, width, generator=torch.Generator().manual_seed(height))

    score = image_scores(maps, Pooling(top=share))

    assert bool((score >= image_scores(maps, Pooling(top=min(1.0, 2 * share))) - 1e-6).all())
    assert bool((score <= maps.amax((1, 2)) + 1e-6).all())
    torch.testing.assert_close(image_scores(maps[1:], Pooling(top=share)), score[1:])


@pytest.mark.parametrize("share", [0.0, -0.5, 1.01, float("nan")])
def test_a_share_of_no_pixels_is_refused(share):
    with pytest.raises(ConfigError, match="share of the pixels is above 0 and at most 1"):
        image_scores(torch.zeros(1, 2, 2), Pooling(top=share))


def test_a_negative_sigma_is_refused():
    with pytest.raises(ConfigError, match="cannot be negative, got -1"):
        map_operator(PatchGrid(2, 2), 4, 4, sigma=-1)

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spg_core.errors import ConfigError, FitError
from spg_core.guide_config import GuideConfig
from spg_core.guides import (
    active_coefficients,
    compose_guides,
    initial_coefficients,
    patch_probabilities,
    require_nonzero,
    sparsity_summary,
    unit,
)

TOP1 = GuideConfig(sparsity="topk", topk_guides=1)


def test_probability_is_the_softmax_of_the_two_cosines():
    tokens = unit(torch.tensor([[[3.0, 4.0]]]))
    guides = torch.tensor([[2.0, 0.0], [0.0, 0.5]])  # any length: cosine is scale-free

    p = patch_probabilities(tokens, guides, temperature=0.5)

    expected = torch.softmax(torch.tensor([0.6, 0.8]) / 0.5, dim=0)[1]
    torch.testing.assert_close(p, expected.reshape(1, 1))


def test_relu_keeps_the_positive_part_of_living_atoms():
    raw = torch.tensor([[0.5, -1.0, 2.0], [0.1, 0.2, -0.3]])
    alive = torch.tensor([True, True, False])

    z = active_coefficients(raw, GuideConfig(), alive=alive)

    torch.testing.assert_close(z, torch.tensor([[0.5, 0.0, 0.0], [0.1, 0.2, 0.0]]))


def test_softplus_is_positive_everywhere_and_an_atom_that_is_dead_stays_at_zero():
    raw = torch.tensor([[0.0, -1.0, 2.0], [0.1, 0.2, -0.3]])
    alive = torch.tensor([True, True, False])

    z = active_coefficients(raw, GuideConfig(sparsity="softplus"), alive=alive)

    torch.testing.assert_close(z[0], torch.tensor([math.log(2), math.log1p(math.exp(-1)), 0.0]))
    assert bool((z[:, :2] > 0).all())


def test_topk_passes_the_gradient_straight_through_to_every_positive_living_atom():
    raw = torch.tensor([[0.5, 0.1, 2.0], [0.3, -0.2, -0.3]], requires_grad=True)
    alive = torch.tensor([True, True, False])

    z = active_coefficients(raw, TOP1, alive=alive)
    z.sum().backward()

    torch.testing.assert_close(z.detach(), torch.tensor([[0.5, 0.0, 0.0], [0.3, 0.0, 0.0]]))
    assert raw.grad is not None
    torch.testing.assert_close(raw.grad, torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]]))


@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(1, 5))
def test_fits_side_by_side_give_what_each_gives_alone(seed, n_fits, n_images):
    generator = torch.Generator().manual_seed(seed)
    tokens = unit(torch.randn(n_images, 6, 5, generator=generator))
    guides = torch.randn(n_fits, 2, 5, generator=generator)

    together = patch_probabilities(tokens, guides, 0.07)

    alone = torch.stack([patch_probabilities(tokens, pair, 0.07) for pair in guides])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_guides_are_the_coefficients_times_the_dictionary():
    dictionary = torch.tensor([[1.0, 0.0], [0.0, 2.0]])

    guides = compose_guides(torch.tensor([[1.0, 1.0], [0.0, 3.0]]), dictionary)

    torch.testing.assert_close(guides, torch.tensor([[1.0, 2.0], [0.0, 6.0]]))


def test_the_start_is_positive_and_the_same_for_a_seed():
    a, b = initial_coefficients(4096, 7), initial_coefficients(4096, 7)

    assert torch.equal(a, b)
    assert 0.099 < float(a.mean()) < 0.101
    assert not torch.equal(a, initial_coefficients(4096, 8))


def test_an_all_zero_guide_is_refused_by_name():
    with pytest.raises(FitError, match="the anomalous guide has no coefficient above 0"):
        require_nonzero(torch.tensor([[1.0, 0.0], [0.0, 0.0]]), "EMA")


def test_sparsity_counts_both_guides():
    summary = sparsity_summary(torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 0.5]]))

    assert summary == {"nnz": (2.0, 1.0), "l1": (3.0, 0.5)}


def test_more_coefficients_than_atoms_are_refused():
    with pytest.raises(ConfigError, match=r"topk-guides must lie in 1 \.\. 3.*got 4"):
        active_coefficients(torch.ones(2, 3), replace(TOP1, topk_guides=4), alive=torch.ones(3))


def test_impossible_options_are_refused():
    for field, value in [
        ("topk_guides", 0),
        ("sparsity", "jump"),
        ("dice", "soft"),
        ("temperature", -1.0),
    ]:
        with pytest.raises(ConfigError, match=f"--{field.replace('_', '-')} is {value!r}; it must"):
            GuideConfig(**{field: value})

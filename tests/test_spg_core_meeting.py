"""How maps meet: numbers by hand, the laws of a mean, and weights that no other weights beat."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spg_core.meeting import Meeting, Scale, mixture_weights


def test_the_mean_and_the_max_of_two_maps_are_those_by_hand():
    one, two = torch.tensor([[0.2, 0.8]]), torch.tensor([[0.6, 0.4]])
    none = (None, None)

    mean = Meeting("mean", (0.25, 0.75), none)([one, two])
    largest = Meeting("max", (0.5, 0.5), none)([one, two])

    torch.testing.assert_close(mean, torch.tensor([[0.5, 0.5]]))
    torch.testing.assert_close(largest, torch.tensor([[0.6, 0.8]]))


def test_a_scale_is_a_sigmoid_and_keeps_the_order():
    values = torch.tensor([0.0, 0.25, 1.0])

    scaled = Scale(4.0, -1.0)(values)

    torch.testing.assert_close(scaled, torch.tensor([-1.0, 0.0, 3.0]).sigmoid())
    assert scaled.diff().min() > 0


def test_one_part_alone_is_left_as_it_is():
    values = torch.rand(2, 3, 5)

    assert Meeting()([values]) is values


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), n_parts=st.integers(2, 5), how=st.sampled_from(["mean", "max"]))
def test_what_parts_come_to_lies_between_them(seed, n_parts, how):
    made = torch.Generator().manual_seed(seed)
    values = [torch.rand(3, 4, generator=made) for _ in range(n_parts)]
    weights = torch.rand(n_parts, generator=made)
    meeting = Meeting(how, tuple((weights / weights.sum()).tolist()), (None,) * n_parts)

    met = meeting(values)

    stacked = torch.stack(values)
    assert (met <= stacked.amax(0) + 1e-6).all()
    assert (met >= stacked.amin(0) - 1e-6).all()


def test_a_part_that_is_right_gets_the_weight_of_one_that_guesses():
    labels = torch.tensor([True] * 10 + [False] * 90)
    right = torch.where(labels, 0.9, 0.1)
    guesses = torch.full((100,), 0.5)

    weights = mixture_weights(torch.stack([right, guesses]), labels)

    torch.testing.assert_close(weights, torch.tensor([1.0, 0.0]).double(), atol=1e-3, rtol=0)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_no_other_weights_make_the_labels_likelier(seed):
    made = torch.Generator().manual_seed(seed)
    labels = torch.rand(200, generator=made) < 0.3
    noise = torch.randn(3, 200, generator=made)
    values = (noise + 2 * labels.float() * torch.tensor([[0.2], [1.0], [0.6]])).sigmoid()

    weights = mixture_weights(values, labels)

    assert float(weights.min()) >= 0
    assert float(weights.sum()) == pytest.approx(1)
    best = _log_likelihood(weights, values, labels)
    for _ in range(20):
        other = torch.distributions.Dirichlet(torch.ones(3)).sample().double()
        assert _log_likelihood(other, values, labels) <= best + 1e-4


def _log_likelihood(weights, values, labels):
    met = (weights[:, None] * values.double()).sum(0)
    chances = torch.where(labels, met, 1 - met).log()
    return float(chances[labels].mean() + chances[~labels].mean()) / 2

"""Thresholds from good parts alone: what is promised is kept, and what cannot be is refused."""

import numpy as np
import pytest

from spg_core.errors import MetricError
from spg_core.false_alarms import MARGIN, least_rate, parts_needed, promised_threshold


def test_twenty_parts_promise_fourteen_percent():
    promise = promised_threshold(np.linspace(0.1, 0.5, 20, dtype=np.float32), None, 0.95)

    assert str(promise) == "20 parts: at most 14.0% false alarms with 95% confidence"
    assert promise.n_flagged == 0
    assert promise.rate == pytest.approx(1 - 0.05 ** (1 / 20))


@pytest.mark.parametrize(("rate", "confidence"), [(0.05, 0.95), (0.1, 0.9), (0.01, 0.99)])
def test_the_parts_a_promise_needs_are_the_fewest_that_can_make_it(rate, confidence):
    needed = parts_needed(rate, confidence)

    assert least_rate(needed, confidence) <= rate < least_rate(needed - 1, confidence)


def test_a_promise_that_cannot_be_made_is_refused_with_the_number_of_parts_it_takes():
    scores = np.linspace(0.1, 0.5, 20, dtype=np.float32)

    with pytest.raises(MetricError, match=r"at most 14\.0% .*; 5% takes 59 parts"):
        promised_threshold(scores, 0.05, 0.95)


@pytest.mark.parametrize(("n", "rate", "confidence"), [(20, 0.2, 0.8), (60, 0.05, 0.95)])
def test_the_promise_is_kept_as_often_as_stated(n, rate, confidence):
    """Uniform scores: the rate of a threshold is 1 minus it."""
    random = np.random.default_rng(0)
    draws = random.random((2000, n), dtype=np.float32)
    kept = [1 - promised_threshold(one, rate, confidence).threshold <= rate for one in draws]

    # 4 standard errors of 2000 draws
    assert np.mean(kept) >= confidence - 4 * np.sqrt(confidence * (1 - confidence) / 2000)


def test_many_parts_allow_some_to_be_flagged_so_that_the_threshold_is_lower():
    scores = np.random.default_rng(1).random(300, dtype=np.float32)
    promise = promised_threshold(scores, 0.05, 0.95)

    assert 0 < promise.n_flagged < 0.05 * 300
    assert promise.rate <= 0.05
    assert promise.threshold < promised_threshold(scores, None, 0.95).threshold


def test_equal_scores_are_flagged_together_or_not_at_all():
    scores = np.full(300, 0.25, np.float32)

    assert promised_threshold(scores, 0.05, 0.95).n_flagged == 0
    with pytest.raises(MetricError, match="scores 1, the highest"):
        promised_threshold(np.ones(300, np.float32), 0.05, 0.95)
    with pytest.raises(MetricError, match="not all finite"):
        promised_threshold(np.full(9, np.nan, np.float32), None, 0.95)


def test_where_none_may_be_flagged_rounding_does_not_flag_the_highest():
    scores = np.linspace(0.1, 0.5, 20, dtype=np.float32)

    assert promised_threshold(scores, None, 0.95).threshold == 0.5 + MARGIN
    almost = np.append(scores, np.nextafter(np.float32(1), np.float32(0)))
    assert promised_threshold(almost, None, 0.95).threshold == 1.0


@pytest.mark.parametrize("rate", [0.14, 0.5, 0.999])
def test_a_rate_that_a_message_says_can_be_had_can_be_asked_for(rate):
    n_parts = parts_needed(rate, 0.95)
    scores = np.linspace(0.1, 0.5, n_parts, dtype=np.float32)

    told = str(promised_threshold(scores, rate, 0.95))

    said = float(told.split("at most ")[1].split("%")[0]) / 100
    assert promised_threshold(scores, min(said, 0.9999), 0.95).n_parts == n_parts


def test_a_promise_worse_than_a_coin_is_made_only_where_it_is_asked_for():
    scores = np.linspace(0.1, 0.5, 4, dtype=np.float32)

    with pytest.raises(MetricError, match=r"4 good parts .* 52\.8% .* take 5 parts or more, or"):
        promised_threshold(scores, None, 0.95)
    assert promised_threshold(scores, 0.6, 0.95).n_flagged == 0
    assert promised_threshold(np.float32([0.1, 0.2, 0.3, 0.4, 0.5]), None, 0.95).rate < 0.5

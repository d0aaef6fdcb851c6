"""How thresholds are chosen: worked by hand, as laws, and what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.artifacts import to_json
from pipeline.artifacts.notes import CalibratedOn, Scoring, ThresholdRequest
from pipeline.calibration.criterion import choose, f1max_threshold, measured_at, require_use
from spg_core.errors import MetricError
from spg_core.image_metrics import image_metrics


def asked(criterion="rate", rate=None, confidence=0.95) -> ThresholdRequest:
    return ThresholdRequest(
        criterion=criterion,
        rate=rate,
        confidence=None if criterion == "f1max" else confidence,
        per_category=False,
        scoring=Scoring(tau=0.0, sigma=4.0, coefficients="ema"),
        calibrated_on=CalibratedOn(
            cache=None, split=None, categories=[], good=[], bad=[], is_auxiliary=False
        ),
    )


def scores_and_labels():
    scores = st.lists(st.integers(0, 12).map(lambda n: n / 12), min_size=2, max_size=30)
    return scores.flatmap(
        lambda values: st.tuples(
            st.just(np.array(values, np.float32)),
            st.lists(st.booleans(), min_size=len(values), max_size=len(values))
            .map(np.array)
            .filter(lambda labels: labels.any() and not labels.all()),
        )
    )


def test_a_threshold_worked_by_hand():
    scores = np.array([0.125, 0.25, 0.5, 0.75], np.float32)
    labels = np.array([False, True, False, True])

    # from 0.25 on: 2 hits of 3 flagged, F1 = 4/5; from 0.75 on: 1 of 1, F1 = 2/3
    assert f1max_threshold(scores, labels) == (0.125 + 0.25) / 2
    assert to_json(measured_at(scores, labels, 0.1875)) == {
        "n_normal": 2,
        "n_anomalous": 2,
        "fpr": 0.5,
        "tpr": 1.0,
        "precision": pytest.approx(2 / 3),
        "f1": 0.8,
        "normal_scores": [0.125, 0.5],
        "anomalous_scores": [0.25, 0.75],
    }


@given(scores_and_labels())
def test_the_f1_threshold_reaches_the_best_f1_there_is(case):
    scores, labels = case

    threshold = f1max_threshold(scores, labels)

    best = image_metrics(scores, labels.astype(np.int64)).f1max
    assert measured_at(scores, labels, threshold).f1 == pytest.approx(best)


def test_normals_alone_may_all_stay_below_and_nothing_is_said_of_defects():
    scores = np.linspace(0.1, 0.3, 20, dtype=np.float32)

    made = choose(scores, np.zeros(20, np.bool_), asked())

    assert made.threshold == pytest.approx(0.3, abs=1e-4)
    assert made.threshold > 0.3
    assert made.promised == pytest.approx(1 - 0.05 ** (1 / 20))
    assert (made.measured.fpr, made.measured.tpr, made.measured.f1) == (0.0, None, None)


def test_a_rate_is_promised_by_the_good_ones_whatever_the_bad_ones_score():
    good = np.linspace(0.1, 0.3, 60, dtype=np.float32)
    labels = np.arange(63) >= 60

    low = choose(np.append(good, np.float32([0.2, 0.5, 0.6])), labels, asked(rate=0.05))
    high = choose(np.append(good, np.float32([0.7, 0.8, 0.9])), labels, asked(rate=0.05))

    assert low.threshold == high.threshold
    assert (low.measured.tpr, high.measured.tpr) == (2 / 3, 1.0)


@pytest.mark.parametrize(("threshold", "flags"), [(0.0, "every"), (0.25, "every"), (0.7501, "no")])
def test_a_threshold_that_tells_nothing_apart_is_refused_with_the_scores(threshold, flags):
    scores = np.array([0.25, 0.3, 0.5, 0.75], np.float32)
    labels = np.array([False, True, False, True])

    with pytest.raises(
        MetricError,
        match=f"flags {flags} image .* 2 normal images score 0.2500 to 0.5000 and "
        "2 anomalous images score 0.3000 to 0.7500",
    ):
        require_use(scores, labels, threshold)
    require_use(scores, labels, 0.4)


def test_what_cannot_be_chosen_is_refused_and_names_the_category():
    scores = np.array([0.1, 0.2], np.float32)

    with pytest.raises(MetricError, match="all 2 images are normal; F1 needs"):
        choose(scores, np.array([False, False]), asked("f1max"))
    with pytest.raises(MetricError, match="screw: none of 2 images is normal"):
        choose(scores, np.array([True, True]), asked(), "screw")
    with pytest.raises(MetricError, match=r"2 good parts can promise no more than at most 77\.7%"):
        choose(scores, np.array([False, False]), asked())
    with pytest.raises(MetricError, match="NaN"):
        choose(np.array([0.1, np.nan], np.float32), np.array([True, False]), asked("f1max"))

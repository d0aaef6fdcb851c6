from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from spg_core.errors import MetricError
from spg_core.image_metrics import ImageMetrics, image_curves, image_metrics
from spg_core.metrics import mean_metrics

labelled = st.lists(
    st.tuples(st.sampled_from([0.0, 5e-324, 0.1, 0.1 + 1e-12, 0.5, 1.0, -3.0]), st.booleans()),
    min_size=2,
    max_size=30,
).filter(lambda items: len({label for _, label in items}) == 2)


def test_four_images_by_hand() -> None:
    result = image_metrics([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])

    assert result.auroc == 0.75
    assert result.ap == pytest.approx(0.5 * 1 + 0.5 * 2 / 3, abs=1e-15)
    assert result.f1max == pytest.approx(0.8, abs=1e-15)
    assert result.reason is None


@given(labelled)
def test_agrees_with_scikit_learn_under_heavy_ties(items: list[tuple[float, bool]]) -> None:
    scores, labels = np.array([s for s, _ in items]), np.array([y for _, y in items])

    result = image_metrics(scores, labels)

    precision, recall, _ = precision_recall_curve(labels, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    assert result.auroc == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert result.ap == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    assert result.f1max == pytest.approx(f1.max(), abs=1e-12)


@given(labelled, st.randoms(use_true_random=False))
def test_order_of_the_images_does_not_matter(
    items: list[tuple[float, bool]], random: Random
) -> None:
    shuffled = list(items)
    random.shuffle(shuffled)

    assert image_metrics(*zip(*items, strict=True)) == image_metrics(*zip(*shuffled, strict=True))


def test_all_scores_equal_is_chance() -> None:
    result = image_metrics([0.5] * 4, [0, 0, 0, 1])

    assert (result.auroc, result.ap) == (0.5, 0.25)


@pytest.mark.parametrize(("label", "reason"), [(0, "no image is anomalous"), (1, "every image is")])
def test_one_class_has_no_metrics_but_a_reason(label: int, reason: str) -> None:
    result = image_metrics([0.2, 0.7], [label, label])

    assert (result.auroc, result.ap, result.f1max) == (None, None, None)
    assert reason in str(result.reason)
    assert image_curves([0.2, 0.7], [label, label]) is None


def test_curves_are_short_and_their_ends_are_right() -> None:
    rng = np.random.default_rng(0)
    labels = rng.random(5000) < 0.4
    scores = rng.random(5000) + 0.3 * labels

    curves = image_curves(scores, labels)

    assert curves is not None
    assert 100 < curves.roc.x.size <= 200
    assert (curves.roc.x[0], curves.roc.y[0]) == (0, 0)
    assert (curves.roc.x[-1], curves.roc.y[-1]) == (1, 1)
    assert (np.diff(curves.roc.x) >= 0).all()
    assert np.trapezoid(curves.roc.y, curves.roc.x) == pytest.approx(
        roc_auc_score(labels, scores), abs=1e-12
    )
    assert np.trapezoid(curves.pr.y, curves.pr.x) == pytest.approx(
        average_precision_score(labels, scores), abs=1e-12
    )
    assert 100 < curves.pr.x.size <= 200
    assert curves.pr.x[-1] == 1
    assert curves.pr.y[-1] >= labels.mean()


def test_a_step_of_the_curve_is_drawn_as_a_step_and_a_tie_as_a_slope() -> None:
    curves = image_curves([0.9, 0.8, 0.5, 0.5, 0.1], [0, 1, 0, 1, 0])

    assert curves is not None
    assert list(zip(curves.roc.x * 3, curves.roc.y, strict=True)) == [
        *((0, 0), (1, 0), (1, 0.5)),  # a normal image above all, then an anomalous one
        *((1, 0.5), (2, 1)),  # two that tie
        (3, 1),
    ]
    assert list(zip(curves.pr.x, curves.pr.y, strict=True)) == [
        *((0, 1 / 2), (0.5, 1 / 2)),
        *((0.5, 2 / 4), (1, 2 / 4)),
    ]


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([0.1, np.nan, np.inf], [0, 1, 1], "2 of 3 image scores are NaN or infinite.*position 1"),
        ([0.1, 0.2], [0, 1, 1], r"shape \(2,\) and labels \(3,\)"),
        ([[0.1], [0.2]], [[0], [1]], r"expected \(n,\)"),
        ([0.1, 0.2], [0, 2], r"labels hold \[0, 2\]"),
        ([], [], "no images"),
    ],
)
def test_refuses_what_cannot_be_ranked(scores: object, labels: object, message: str) -> None:
    with pytest.raises(MetricError, match=message):
        image_metrics(np.asarray(scores), np.asarray(labels))


def test_mean_is_unweighted_and_skips_undefined_categories() -> None:
    mean = mean_metrics(
        [
            ImageMetrics(0.5, 0.25, None, "one class"),
            ImageMetrics(1.0, 0.75, None),
            ImageMetrics(None, None, None, "one class"),
        ]
    )

    assert (mean.auroc, mean.ap, mean.f1max) == (0.75, 0.5, None)
    assert mean.reason is not None
    assert "image auroc, ap over 2 of 3" in mean.reason
    assert "f1max over 0 of 3" in mean.reason


def test_mean_of_complete_categories_needs_no_reason() -> None:
    assert mean_metrics([ImageMetrics(0.5, 0.5, 0.5)]).reason is None


def test_mean_of_nothing_is_refused() -> None:
    with pytest.raises(MetricError, match="no categories"):
        mean_metrics(list[ImageMetrics]())

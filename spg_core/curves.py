"""Curves to be drawn of a ranking: joined by straight lines, their areas are the metrics.

Axes: m distinct anomalous scores, highest first; p of them, which end a stretch of the curve.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spg_core.ranking import SCORES_PER_PIECE, Ranking

Items = NDArray[np.integer] | NDArray[np.float64]
"""How many are found, or what they weigh."""

# Scores among which the ends are chosen: choosing among millions would show no better curve.
_CANDIDATES = 1 << 14


@dataclass(frozen=True)
class Curve:
    """Points of a curve, to be joined by straight lines in this order."""

    x: NDArray[np.float64]
    """`(p,)` in [0, 1], ascending."""
    y: NDArray[np.float64]
    """`(p,)` in [0, 1]."""


def roc_curve(ranking: Ranking, n_points: int = 200) -> Curve:
    """Give (FPR, TPR) from (0, 0) to (1, 1); the area below is `auroc`. See `rising_curve`."""
    return rising_curve(ranking, np.cumsum(ranking.anomalous), n_points)


def pr_curve(ranking: Ranking, n_points: int = 200) -> Curve:
    """Give (recall, precision) as a staircase; the area below is the average precision.

    A step a distinct score, or, where that takes more than `n_points`, some scores together at
    their mean precision.
    """
    hits = np.cumsum(ranking.anomalous)
    some = _candidates(hits.size)
    ends = some[_evenly(hits[some] / ranking.n_anomalous, n_points // 2)]
    sums = np.zeros(ends.size)
    for here, stretch in _stretches(ends):
        at = ranking.piece(here)
        precision = hits[here] / (hits[here] + at.above + at.equal)
        sums += np.bincount(stretch, at.anomalous * precision, ends.size)
    found = np.concatenate([[0], hits[ends]])
    return Curve(
        np.repeat(found / ranking.n_anomalous, 2)[1:-1],
        np.repeat(np.minimum(sums / np.diff(found), 1.0), 2),
    )


def rising_curve(
    ranking: Ranking,
    found: NDArray[np.integer] | NDArray[np.float64],
    n_points: int,
    exact_at: float | None = None,
) -> Curve:
    """Draw a rate over FPR, from (0, 0) to (1, 1): `found` `(m,)`, divided by its last value.

    From score to score the exact curve runs level, along the normals between the two, and then up:
    straight, or sloped where normals tie. A corner and an end a score draw just that. Where it
    takes more than `n_points`, some scores are drawn together: their ends lie on the exact curve,
    and the corner between is put where the area below is the exact one.

    Args:
        ranking: of the items.
        found: what is found at each score and above.
        n_points: at most.
        exact_at: an FPR at which the curve may be cut; no score is left out around it.
    """
    ends = _ends(ranking, found, n_points, exact_at)
    areas = np.zeros(ends.size)
    for here, stretch in _stretches(ends):
        areas += np.bincount(stretch, _steps(ranking, found, here).area, ends.size)
    steps = _steps(ranking, found, ends)
    corner_x, corner_y = _corners(steps, areas, np.diff(ends, prepend=-1) == 1)
    x = np.stack([corner_x, steps.end_x], axis=1).ravel() / ranking.n_normal
    y = np.stack([corner_y, steps.end_y], axis=1).ravel() / found[-1]
    return Curve(
        np.concatenate([[0.0], x, [1.0]]), np.concatenate([[0.0], np.minimum(y, 1.0), [1.0]])
    )


def _corners(
    steps: "_Steps", areas: NDArray[np.float64], is_one: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give a corner `(p,)` for each stretch: the curve's own where it is of one score.

    Else a point on the diagonal of the box that the stretch fills, as far from the bottom right as
    the area below wants it.
    """
    start_x, start_y = (np.concatenate([[0], ends[:-1]]) for ends in (steps.end_x, steps.end_y))
    width, height = steps.end_x - start_x, steps.end_y - start_y
    box, above_bottom = width * height, areas - width * start_y
    raised = np.divide(above_bottom, box, out=np.zeros(box.size), where=box > 0).clip(0, 1)
    return (
        np.where(is_one, steps.corner_x, steps.end_x - raised * width),
        np.where(is_one, steps.start_y, start_y + raised * height),
    )


class _Steps(NamedTuple):
    """How the exact curve comes to some scores from the one before, in items: `(p,)` each."""

    start_y: Items
    """Height at which it runs level."""
    corner_x: NDArray[np.int64]
    """Where it starts to rise."""
    end_x: NDArray[np.int64]
    end_y: Items
    area: NDArray[np.float64]
    """Below it."""


def _steps(ranking: Ranking, found: Items, where: NDArray[np.intp]) -> _Steps:
    at, before = ranking.piece(where), np.maximum(where - 1, 0)
    is_first = where == 0
    start_x = np.where(is_first, 0, ranking.n_normal - ranking.below[before].astype(np.int64))
    start_y, end_y = np.where(is_first, 0, found[before]), found[where]
    area = (at.above - start_x) * start_y + at.equal * ((start_y + end_y) / 2)
    return _Steps(start_y, at.above, at.above + at.equal, end_y, area)


def _ends(
    ranking: Ranking, found: Items, n_points: int, exact_at: float | None
) -> NDArray[np.intp]:
    """Choose the scores `(p,)` that end a stretch of the curve, evenly along it; the last is."""
    some = _candidates(found.size)
    fpr = (ranking.n_normal - ranking.below[some].astype(np.int64)) / ranking.n_normal
    n_ends = n_points // 2 - 1
    if exact_at is None:
        return some[_evenly(fpr + found[some] / found[-1], n_ends)]
    chosen = some[_evenly(fpr + found[some] / found[-1], n_ends - 2)]
    level = exact_at * ranking.n_normal
    beyond = bisect_right(
        range(found.size), level, key=lambda at: ranking.n_normal - int(ranking.below[at])
    )
    around = np.array([beyond - 1, beyond])
    return np.union1d(chosen, around[(around >= 0) & (around < found.size)])


def _stretches(
    ends: NDArray[np.intp],
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Give the scores up to the last of `ends` piece by piece, and the stretch each belongs to."""
    for start in range(0, int(ends[-1]) + 1, SCORES_PER_PIECE):
        here = np.arange(start, min(start + SCORES_PER_PIECE, int(ends[-1]) + 1))
        yield here, np.searchsorted(ends, here)


def _candidates(n_scores: int) -> NDArray[np.intp]:
    """Give the scores among which a curve's points are chosen: all, or many in even steps."""
    if n_scores <= _CANDIDATES:
        return np.arange(n_scores)
    return np.linspace(0, n_scores - 1, _CANDIDATES).astype(np.intp)


def _evenly(length: NDArray[np.float64], n_points: int) -> NDArray[np.intp]:
    """Pick at most `n_points` indices at even steps of an ascending length, the ends included."""
    steps = np.linspace(length[0], length[-1], n_points)
    return np.unique(np.minimum(np.searchsorted(length, steps), length.size - 1))

"""AUROC, AP and F1-max from how normal items lie around the distinct anomalous scores.

Recall changes only where an anomalous item is, so the counts of normals at and above each
distinct anomalous score say everything; the normals (99 % of the pixels) need not be kept.

Axes: m distinct anomalous scores, highest first.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Cumulated in pieces, so that the temporaries of millions of scores stay in the cache.
SCORES_PER_PIECE = 1 << 14


@dataclass(frozen=True)
class Ranking:
    """Anomalous and normal items, counted by distinct anomalous score, highest score first."""

    anomalous: NDArray[np.integer]
    """`(m,)` anomalous items that have exactly this score."""
    below: NDArray[np.integer]
    """`(m,)` normal items strictly below it."""
    equal: NDArray[np.integer]
    """`(m,)` normal items exactly at it."""
    n_anomalous: int
    """All anomalous items, > 0."""
    n_normal: int
    """All normal items, > 0."""

    def pieces(self) -> Iterator["Piece"]:
        """Give short stretches of the ranking as int64, in order."""
        for start in range(0, self.anomalous.size, SCORES_PER_PIECE):
            yield self.piece(slice(start, start + SCORES_PER_PIECE))

    def piece(self, where: slice | NDArray[np.intp]) -> "Piece":
        """Give some scores of the ranking as int64."""
        equal = self.equal[where].astype(np.int64)
        below = self.below[where].astype(np.int64)
        return Piece(
            where, self.anomalous[where].astype(np.int64), self.n_normal - below - equal, equal
        )


class Piece(NamedTuple):
    """Some of the distinct anomalous scores: `(p,)` int64 each."""

    where: slice | NDArray[np.intp]
    """Their places in the ranking."""
    anomalous: NDArray[np.int64]
    """Anomalous items exactly at the score."""
    above: NDArray[np.int64]
    """Normal items strictly above it."""
    equal: NDArray[np.int64]
    """Normal items exactly at it."""


def auroc(ranking: Ranking) -> float:
    """Give the area under the ROC curve, ties counted half; a quotient of two exact integers."""
    twice_wins = 0
    for piece in ranking.pieces():
        twice_below = 2 * (ranking.n_normal - piece.above) - piece.equal
        twice_wins += int(np.dot(piece.anomalous, twice_below))
    return twice_wins / (2 * ranking.n_anomalous * ranking.n_normal)


def average_precision_and_f1max(ranking: Ranking) -> tuple[float, float]:
    """Give AP (sum of precision times recall step, no interpolation) and the best F1."""
    ap, f1max, found = 0.0, 0.0, 0
    for piece in ranking.pieces():
        hits = found + np.cumsum(piece.anomalous)
        flagged = hits + piece.above + piece.equal
        # Not np.dot: BLAS adds in an order that depends on its number of threads.
        ap += float((piece.anomalous * (hits / flagged)).sum())
        # F1 = 2 TP / (TP + FP + P); a threshold between two anomalous scores only adds FP.
        f1max = max(f1max, float(np.max(2 * hits / (flagged + ranking.n_anomalous))))
        found = int(hits[-1])
    return ap / ranking.n_anomalous, f1max

"""A threshold from good parts alone, with what can be promised of its false alarms.

The share of all good parts that score above the k-th smallest of n good ones is a random number of
the distribution Beta(n - k + 1, k), whatever the scores are distributed like (Wilks 1941, tolerance
limits), as long as the n were drawn as the later parts will be. So its chance of being at most a
stated rate is known before any part is seen, and so is the number of parts a promise needs.

Axes: n good parts.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spg_core.errors import MetricError

MARGIN = 2e-5
"""Above the highest good part: a batch of another size moves a score by up to 1e-5."""
WORST = 0.5
"""A promise of more false alarms is none, and is made only where it is asked for."""


@dataclass(frozen=True)
class Promise:
    """A threshold, and the rate of false alarms that it keeps with the confidence asked for."""

    threshold: float
    """An image is flagged from this score on."""
    rate: float
    """Share of good parts in (0, 1) that are flagged at most, with `confidence`."""
    confidence: float
    n_parts: int
    n_flagged: int
    """Of the n parts themselves."""

    def __str__(self) -> str:
        return f"{self.n_parts} parts: {promised(self.rate, self.confidence)}"


def promised(rate: float, confidence: float) -> str:
    """Say a promise in words; the rate is rounded up, so that what is said is kept, too."""
    return f"at most {_percent(rate)} false alarms with {100 * confidence:.6g}% confidence"


def parts_needed(rate: float, confidence: float) -> int:
    """Give how many good parts a promise of `rate` with `confidence`, both in (0, 1), takes."""
    return math.ceil(math.log1p(-confidence) / math.log1p(-rate))


def least_rate(n_parts: int, confidence: float) -> float:
    """Give the smallest rate in (0, 1) that n parts can promise: none of them is flagged."""
    return _rate(n_parts, n_parts, confidence)


def require_promise(n_parts: int, rate: float | None, confidence: float) -> None:
    """Refuse a promise that n parts cannot make, whatever they score. As `promised_threshold`.

    Raises: MetricError with the number of parts that it takes.
    """
    if n_parts < 1:
        raise MetricError("no part is known to be good, and a threshold needs some")
    least = least_rate(n_parts, confidence)
    if rate is not None and rate < least:
        raise MetricError(
            f"{_say(n_parts)} can promise {promised(least, confidence)}; {100 * rate:.6g}% takes "
            f"{parts_needed(rate, confidence)} parts"
        )
    if rate is None and least > WORST:
        raise MetricError(
            f"{_say(n_parts)} can promise no more than {promised(least, confidence)}; take "
            f"{parts_needed(WORST, confidence)} parts or more, or accept it with a rate"
        )


def promised_threshold(
    scores: NDArray[np.float32], rate: float | None, confidence: float
) -> Promise:
    """Give the lowest threshold that flags at most a share `rate` of good parts.

    It lies midway between a good part's score and the next higher one; a little above the highest
    where no good part may be flagged.

    Args:
        scores: `(n,)` of good parts in [0, 1].
        rate: in (0, 1); None promises the least that n parts can.
        confidence: in (0, 1): of 100 sets of n parts, so many keep the promise.

    Raises: MetricError for scores that are not finite, for fewer parts than the promise needs, for
        so few that more than half may be flagged, and where a good part scores 1, the highest.
    """
    n_parts = len(scores)
    require_promise(n_parts, rate, confidence)
    if not np.isfinite(scores).all():
        raise MetricError(f"{n_parts} scores, not all finite: no threshold can be chosen of these")
    kept = n_parts
    while rate is not None and kept > 1 and _rate(n_parts, kept - 1, confidence) <= rate:
        kept -= 1
    ordered = np.sort(scores.astype(np.float64))
    stay = ordered[kept - 1]
    higher = ordered[ordered > stay]
    if stay >= 1:
        raise MetricError("a good part scores 1, the highest there is: no threshold lies above it")
    threshold = float((stay + higher[0]) / 2) if higher.size else min(float(stay) + MARGIN, 1.0)
    flagged = int((ordered >= threshold).sum())
    return Promise(threshold, _rate(n_parts, kept, confidence), confidence, n_parts, flagged)


def _say(n_parts: int) -> str:
    return f"{n_parts} good part{'s' if n_parts > 1 else ''}"


def _percent(rate: float) -> str:
    """Write a rate in %, rounded up to a tenth."""
    return f"{math.ceil(1000 * rate - 1e-9) / 10:.1f}%"


def _rate(n_parts: int, kept: int, confidence: float) -> float:
    """Give the rate that the k-th smallest of n keeps with a confidence: a quantile of its Beta."""
    from scipy.special import betaincinv  # takes a while to import

    return float(betaincinv(n_parts - kept + 1, kept, confidence))

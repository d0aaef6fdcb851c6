"""What is said of an image: its score against the threshold, and what speaks against believing it.

An image that the detector does not know may have any score. So it is never called normal; where the
score says anomalous, that stays, since somebody has to look at it in either case.
"""

from collections.abc import Sequence
from typing import Final

from pipeline.prediction.threshold import ANOMALOUS, Threshold

UNSURE: Final = "unsure"


def decide(
    score: float, threshold: Threshold, doubts: Sequence[str]
) -> tuple[str | None, str | None]:
    """Give the verdict, and its reason where it is not the score alone.

    Args:
        score: of the image, in [0, 1].
        threshold: the one in use, or why there is none.
        doubts: why the detector may not apply; without a threshold, too, they make it unsure.
    """
    verdict = threshold.verdict(score)
    if not doubts:
        return verdict, threshold.reason
    reasons = [*doubts, threshold.reason] if threshold.reason else list(doubts)
    return verdict if verdict == ANOMALOUS else UNSURE, "; ".join(reasons)

"""Images of which is known whether they are good, and how they get their scores.

An image counts once, whatever it is called and however often it is there: a promise that rests on
copies would be false. One that a memory holds is left out, being at distance 0 of itself.

Axes: n images.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts.notes import CalibratedOn
from pipeline.detection.find import AnyDetector
from pipeline.prediction.familiar import Learner
from pipeline.scoring.unseen import memories_of


@dataclass(frozen=True)
class KnownParts:
    """Images with known labels, and how they get their scores."""

    labels: NDArray[np.bool_]
    """`(n,)`, True for anomalous."""
    categories: list[str]
    """Of each; empty where they are own images."""
    told: CalibratedOn
    score: Callable[[], NDArray[np.float32]]
    """Gives scores `(n,)`; it may take minutes."""
    learner: Learner | None
    """Takes the good ones as they are scored; None for those of other products."""


def held_images(guides: AnyDetector) -> frozenset[str]:
    """Give the ids of all images that a detector's memories hold."""
    return frozenset[str]().union(*(one.document.image_ids for one in memories_of(guides)))

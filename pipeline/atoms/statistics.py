"""What the counts of a survey say of each atom; definitions are in `spg_core.atom_counts`.

A atoms, C categories, F kinds of defect, `good` among them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from manifests.schema import GOOD
from pipeline.atoms.survey import Survey
from spg_core.atom_counts import DEFECT, NORMAL, defect_lift, evenness, rates, shares


@dataclass(frozen=True)
class Classes:
    """How often atoms are active in each class of tokens."""

    names: list[str]
    active: NDArray[np.int64]
    """`(A, classes)` tokens."""
    tokens: NDArray[np.int64]
    """`(classes,)`."""

    @property
    def share(self) -> NDArray[np.float64]:
        """`(A, classes)`: as if every class had as many tokens; adds up to 1, or is all 0."""
        return shares(rates(self.active, self.tokens))


@dataclass(frozen=True)
class Statistics:
    """Numbers of each atom of a survey."""

    active: NDArray[np.int64]
    """`(A,)` tokens in which each atom is active."""
    frequency: NDArray[np.float64]
    """`(A,)` in [0, 1]: share of all tokens."""
    categories: Classes
    defects: Classes
    """A kind of defect on its defect patches, `good` on the normal patches of normal images; kinds
    without a mask are left out."""
    evenness: NDArray[np.float64]
    """`(A,)` in [0, 1] over categories, NaN where it is not defined."""
    lift: NDArray[np.float64]
    """`(A,)` on defect patches, 0 to inf, NaN where there are too few to say."""
    by_patch: NDArray[np.int64]
    """`(A, 3)` active patches: normal, defect, unknown."""


def statistics(survey: Survey) -> Statistics:
    """Turn the counts of a survey into what is shown."""
    counts = survey.counts
    categories = _classes(
        [one for one, _ in survey.groups], counts.active.sum(2), counts.tokens.sum(1)
    )
    kinds = [kind for _, kind in survey.groups]
    of_kind = np.array([NORMAL if kind == GOOD else DEFECT for kind in kinds])
    each = np.arange(len(kinds))
    defects = _classes(kinds, counts.active[:, each, of_kind], counts.tokens[each, of_kind])
    by_patch = counts.active.sum(1)
    return Statistics(
        active=by_patch.sum(1),
        frequency=counts.frequency(),
        categories=categories,
        defects=defects,
        evenness=evenness(categories.share),
        lift=defect_lift(by_patch, counts.tokens.sum(0)),
        by_patch=by_patch,
    )


def _classes(class_of: list[str], active: NDArray[np.int64], tokens: NDArray[np.int64]) -> Classes:
    """Add groups up that are of one class, in order of first appearance; empty ones are left out.

    Args:
        class_of: of each group.
        active: `(A, G)`.
        tokens: `(G,)`.
    """
    names = list(dict.fromkeys(class_of))
    member = np.array([[one == name for name in names] for one in class_of], np.int64)
    total = tokens @ member
    kept = np.flatnonzero(total)
    return Classes([names[at] for at in kept], (active @ member)[:, kept], total[kept])

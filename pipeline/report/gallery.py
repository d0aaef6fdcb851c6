"""Choose which images a report shows: the best, the median and the worst of every category."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.report.data import Rank
from spg_core.errors import ConfigError, MetricError

_RANKS: tuple[Rank, ...] = ("best", "median", "worst")
_GROUPS = 2 * len(_RANKS)


@dataclass(frozen=True)
class Pick:
    """One chosen image: its row and why it was chosen."""

    row: int
    rank: Rank


def select_gallery(
    scores: npt.NDArray[np.floating],
    labels: npt.NDArray[np.integer],
    categories: npt.NDArray[np.str_] | list[str],
    per_category: int = _GROUPS,
) -> list[Pick]:
    """Choose `per_category` images of each category, anomalous ones first.

    Within a category and a label, best is ranked most rightly and worst most wrongly: an anomalous
    image is worst with the lowest score, a normal one with the highest. A sixth of `per_category`
    goes to each of best, median and worst of either label. Equal scores keep row order. An image is
    chosen once; where there are too few, all are shown.

    Args:
        scores: Image scores `(n_images,)`, higher is more anomalous.
        labels: `(n_images,)`, 0 normal or 1 anomalous.
        categories: Category of each image, `n_images` of them; shown in order of first appearance.
        per_category: A multiple of 6.

    Raises:
        ConfigError: `per_category` is no positive multiple of 6.
        MetricError: Lengths differ, or a score is not finite.
    """
    if per_category < _GROUPS or per_category % _GROUPS:
        raise ConfigError(
            f"a gallery of {per_category} images a category cannot be split evenly into best, "
            f"median and worst of both labels; give a multiple of {_GROUPS}"
        )
    names = np.asarray(categories, dtype=object)
    if not len(scores) == len(labels) == len(names):
        raise MetricError(
            f"{len(scores)} scores, {len(labels)} labels and {len(names)} categories; "
            "each image needs one of each"
        )
    if not np.isfinite(scores).all():
        row = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise MetricError(f"image {row} has the score {scores[row]}; scores must be finite")
    picks: list[Pick] = []
    for name in dict.fromkeys(names):
        for label, wrongness in ((1, -scores), (0, scores)):
            rows = np.flatnonzero((names == name) & (labels == label))
            best_first = rows[np.argsort(wrongness[rows], kind="stable")]
            picks += _ends_and_middle(best_first, per_category // _GROUPS)
    return picks


def _ends_and_middle(best_first: npt.NDArray[np.intp], each: int) -> list[Pick]:
    """Take up to `each` from the start, the middle and the end of a ranking, none twice."""
    count = len(best_first)
    n_ends = min(each, count // 2)
    n_middle = min(each, count - 2 * n_ends)
    start = (count - n_middle) // 2
    groups = (
        best_first[:n_ends],
        best_first[start : start + n_middle],
        best_first[count - n_ends :][::-1],
    )
    return [Pick(int(row), rank) for rank, rows in zip(_RANKS, groups, strict=True) for row in rows]

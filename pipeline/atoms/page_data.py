"""The numbers of a page of atoms as JSON, in columns, in the page's first order.

A share is a whole number of thousandths; a number has four digits; what is not defined is null.
"""

import json
import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from pipeline.atoms.cut import CELL, PER_PICTURE, span_of
from pipeline.atoms.statistics import Classes, Statistics
from pipeline.atoms.survey import Survey
from spg_core.atom_counts import DEFECT, MIN_ACTIVE, NORMAL

Images = dict[int, dict[str, str]]
"""What a manifest says of the rows that patches are from."""


def page_order(survey: Survey, found: Statistics) -> NDArray[np.int64]:
    """Give places in the survey by falling coefficient of the first guide, else by frequency."""
    by = next(iter(survey.coefficients.values()), found.frequency)
    never = found.active == 0
    return np.lexsort((survey.atoms, -by, never))


def page_json(survey: Survey, found: Statistics, order: NDArray[np.int64], images: Images) -> str:
    """Give the numbers of a page as JSON that may stand inside a script element."""
    grid, keep = survey.data.spec.grid, survey.strongest.row.shape[1]
    tokens = survey.counts.tokens.sum(0)
    columns = {
        "atom": survey.atoms[order].tolist(),
        "coefficient": {
            name: _rounded(values[order]) for name, values in survey.coefficients.items()
        },
        "active": found.active[order].tolist(),
        "evenness": _rounded(found.evenness[order]),
        "activeDefect": found.by_patch[order, DEFECT].tolist(),
        "activeNormal": found.by_patch[order, NORMAL].tolist(),
        "categories": _shares(found.categories, order),
        "defects": _shares(found.defects, order),
        "patches": [_patches(survey, at) for at in order.tolist()],
    }
    about = {
        "tokens": int(tokens.sum()),
        "tokensDefect": int(tokens[DEFECT]),
        "tokensNormal": int(tokens[NORMAL]),
        "minActive": MIN_ACTIVE,
        "categoryNames": found.categories.names,
        "defectNames": found.defects.names,
        "grid": [grid.rows, grid.cols],
        "span": list(span_of(grid)),
        "cell": CELL,
        "keep": keep,
        "perPicture": PER_PICTURE,
        "images": {
            row: [one["image_path"], one["category"], one["defect"]] for row, one in images.items()
        },
        "columns": columns,
    }
    # Infinity, which JSON has not, is read from a number too large; only numbers are in `lift`
    lift = json.dumps(_rounded(found.lift[order])).replace("Infinity", "1e999")
    text = f'{{"lift": {lift}, {json.dumps(about)[1:]}'
    # ASCII alone, and no `<`: nothing in it ends the script or opens a comment
    return text.replace("<", "\\u003c")


def _rounded(values: Iterable[float]) -> list[float | None]:
    return [None if math.isnan(one) else float(f"{one:.4g}") for one in values]


def _shares(classes: Classes, order: NDArray[np.int64]) -> list[list[int]]:
    """Give place, thousandths, place, thousandths, .. of each atom, largest first."""
    thousandths = np.rint(1000 * classes.share).astype(np.int64)
    found = []
    for at in order:
        largest = np.argsort(-classes.active[at] / classes.tokens, kind="stable")
        kept = largest[classes.active[at, largest] > 0]
        found.append(np.stack([kept, thousandths[at, kept]], 1).ravel().tolist())
    return found


def _patches(survey: Survey, at: int) -> list[float]:
    """Give row, patch, activation, row, patch, activation, .. strongest first."""
    top = survey.strongest
    found: list[float] = []
    for row, patch, activation in zip(
        top.row[at].tolist(), top.patch[at].tolist(), top.activation[at].tolist(), strict=True
    ):
        if row >= 0:
            found += [row, patch, float(f"{activation:.4g}")]
    return found

"""The table beside a page of atoms: a row an atom, each column with its meaning and unit."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.atoms.statistics import Classes, Statistics
from pipeline.atoms.survey import Survey
from spg_core.atom_counts import DEFECT, MIN_ACTIVE, NORMAL

_VERSION_KEY, _VERSION = b"spg_atoms_version", b"1"
_PATCH = pa.struct(
    [
        ("row", pa.int64()),
        ("image_id", pa.string()),
        ("image_path", pa.string()),
        ("category", pa.string()),
        ("defect", pa.string()),
        ("patch_row", pa.int32()),
        ("patch_col", pa.int32()),
        ("activation", pa.float32()),
    ]
)
_CLASS = pa.struct([("name", pa.string()), ("active", pa.int64()), ("share", pa.float64())])


def _column(name: str, kind: pa.DataType, comment: str, unit: str) -> "pa.Field[Any]":
    return pa.field(name, kind, metadata={"comment": comment, "unit": unit})


SCHEMA = pa.schema(
    [
        _column("atom", pa.int32(), "row of the dictionary", ""),
        _column("coefficient_anomaly", pa.float64(), "in the anomaly guide; null if not asked", ""),
        _column("coefficient_normal", pa.float64(), "in the normal guide; null if not asked", ""),
        _column("active", pa.int64(), "tokens in which the atom is active", "tokens"),
        _column("frequency", pa.float64(), "share of all tokens in which it is active", "0 to 1"),
        _column(
            "evenness",
            pa.float64(),
            "entropy of its shares of categories over the logarithm of their number: 0 one "
            "category, 1 all alike; null if never active or of one category only",
            "0 to 1",
        ),
        _column("active_defect", pa.int64(), "defect patches that activate it", "patches"),
        _column("active_normal", pa.int64(), "normal patches that activate it", "patches"),
        _column(
            "lift",
            pa.float64(),
            "P(active, defect patch) / P(active, normal patch); null below "
            f"{MIN_ACTIVE} active patches of the two kinds, inf if no normal one",
            "ratio",
        ),
        _column(
            "categories",
            pa.list_(_CLASS),
            "active tokens by category; share is the rate there over the sum of rates",
            "tokens, 0 to 1",
        ),
        _column(
            "defects",
            pa.list_(_CLASS),
            "active patches by kind of defect, on its defect patches; good: of normal images",
            "patches, 0 to 1",
        ),
        _column("patches", pa.list_(_PATCH), "the strongest, strongest first", "activation >= 0"),
    ],
    metadata={_VERSION_KEY: _VERSION},
)


def page_table(survey: Survey, found: Statistics, images: dict[int, dict[str, str]]) -> pa.Table:
    """Give one row an atom, in the order of their numbers.

    Args:
        survey: the atoms, ascending.
        found: their statistics.
        images: what the manifest says of the rows that patches are from.
    """
    none: list[None] = [None] * len(survey.atoms)
    columns: dict[str, Iterable[Any]] = {
        "atom": survey.atoms,
        "coefficient_anomaly": survey.coefficients.get("anomaly", none),
        "coefficient_normal": survey.coefficients.get("normal", none),
        "active": found.active,
        "frequency": found.frequency,
        "evenness": _nullable(found.evenness),
        "active_defect": found.by_patch[:, DEFECT],
        "active_normal": found.by_patch[:, NORMAL],
        "lift": _nullable(found.lift),
        "categories": _by_class(found.categories),
        "defects": _by_class(found.defects),
        "patches": [_patches(survey, at, images) for at in range(len(survey.atoms))],
    }
    return pa.table([pa.array(columns[f.name], f.type) for f in SCHEMA], schema=SCHEMA)


def is_page_table(path: Path) -> bool:
    """Tell whether a file is a table of ours."""
    try:
        metadata = pq.read_schema(path).metadata
    except pa.ArrowInvalid:
        return False
    return metadata is not None and _VERSION_KEY in metadata


def _nullable(values: NDArray[np.float64]) -> list[float | None]:
    return [None if np.isnan(one) else float(one) for one in values]


def _by_class(classes: Classes) -> list[list[dict[str, object]]]:
    """Give the classes in which each atom is active."""
    share = classes.share
    return [
        [
            {"name": classes.names[at], "active": int(active[at]), "share": float(of_atom[at])}
            for at in np.flatnonzero(active)
        ]
        for active, of_atom in zip(classes.active, share, strict=True)
    ]


def _patches(survey: Survey, at: int, images: dict[int, dict[str, str]]) -> list[dict[str, object]]:
    top, cols = survey.strongest, survey.data.spec.grid.cols
    return [
        {
            "row": int(row),
            **images[int(row)],
            "patch_row": int(patch) // cols,
            "patch_col": int(patch) % cols,
            "activation": float(activation),
        }
        for row, patch, activation in zip(
            top.row[at], top.patch[at], top.activation[at], strict=True
        )
        if row >= 0
    ]

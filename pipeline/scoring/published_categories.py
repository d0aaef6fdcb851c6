"""Published numbers category by category, typed from the paper's supplement by whoever has it.

A CSV file, in %, empty where nothing is printed:

    direction,method,category,image_auroc,image_ap,pixel_auroc,pixel_aupro
    VisA -> MVTec AD,SPG (DINOv3),bottle,98.1,99.4,93.0,87.2

The numbers here are made up. A method is typed whole or not at all, and its means are Table 1's.
"""

import csv
import io
from collections.abc import Collection, Mapping
from pathlib import Path

from manifests.files import read_bytes
from pipeline.scoring.published import BENCHMARKS, PARTS, Direction, published
from pipeline.tables.metrics import METRICS, PUBLISHED, percent
from spg_core.errors import DatasetError
from spg_core.nearest import near

Numbers = Mapping[str, float | None]
_COLUMNS = ("direction", "method", "category", *PUBLISHED)
_ROUNDING = 0.001 + 1e-9
"""Of a mean of rounded shares against a rounded mean: half a unit of the last digit of both."""


def read_published(path: str, direction: Direction) -> dict[str, dict[str, Numbers]]:
    """Read what was typed of one direction: method -> category -> metrics in [0, 1].

    Raises:
        DatasetError: it is no such table, a number or name in it cannot be, a category is missing
            or there twice, or a mean is not Table 1's.
    """
    found: dict[str, dict[str, Numbers]] = {}
    for number, row in _lines(path):
        where = f"{path}, line {number}"
        if _one_of("direction", row["direction"], PARTS, where) != direction:
            continue
        method = _one_of("method", row["method"], published(direction), where)
        names = BENCHMARKS[PARTS[direction][1]].categories
        category = _one_of("category", row["category"], sorted(names), where)
        typed = found.setdefault(method, {})
        if category in typed:
            raise DatasetError(f"{where}: {category} of {method} is there twice")
        typed[category] = {name: _share(name, row[name], where) for name in PUBLISHED}
    for method, typed in found.items():
        _check(f"{path}, {direction}, {method}", typed, direction, method)
    return found


def _lines(path: str) -> list[tuple[int, dict[str, str]]]:
    """Give the lines below the head with their numbers."""
    try:
        text = read_bytes(Path(path)).decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        rows = [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path} is not a CSV file: {error}") from None
    if tuple(reader.fieldnames or ()) != _COLUMNS:
        raise DatasetError(f"{path}: the first line should be {','.join(_COLUMNS)}")
    for number, row in rows:
        if None in row or None in row.values():
            raise DatasetError(f"{path}, line {number}: expected {len(_COLUMNS)} values")
    return rows


def _one_of(what: str, given: str, known: Collection[str], where: str) -> str:
    if given not in known:
        raise DatasetError(
            f"{where}: no {what} {given!r:.60} in the paper{near(given, known)}; it has "
            f"{', '.join(known)}"
        )
    return given


def _share(name: str, text: str, where: str) -> float | None:
    """Read a number in %, as a share."""
    if not text.strip():
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 100:
        raise DatasetError(
            f"{where}: {name} is {text!r:.20}; it must be a number, 0 to 100, or empty"
        )
    return round(value / 100, 6)


def _check(where: str, typed: Mapping[str, Numbers], direction: Direction, method: str) -> None:
    """Refuse a method that lacks a category, or whose means are not those of Table 1."""
    missing = sorted(BENCHMARKS[PARTS[direction][1]].categories - typed.keys())
    if missing:
        raise DatasetError(
            f"{where}: {', '.join(missing[:5])} missing; type all categories or none"
        )
    for name, printed in published(direction)[method].items():
        values = [numbers[name] for numbers in typed.values()]
        known = [value for value in values if value is not None]
        if not known:
            continue
        mean = sum(known) / len(known)
        if len(known) < len(values):
            raise DatasetError(
                f"{where}: {name} is there for {len(known)} of {len(values)} categories"
            )
        if printed is not None and abs(mean - printed) > _ROUNDING:
            raise DatasetError(
                f"{where}: the mean {METRICS[name].label} is {percent(mean)}, Table 1 prints "
                f"{percent(printed)}; look for a slip in the numbers typed"
            )

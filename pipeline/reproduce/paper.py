"""One part of the paper, from what it needs to what is written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cache.objects import Objects
from pipeline.configs import FigureConfig, ReproduceConfig, ReproduceSource
from pipeline.tables.frames import to_frame
from pipeline.tracking import Kind, require_tracker

if TYPE_CHECKING:
    from pandas import DataFrame

    from pipeline.artifacts import Artifact
    from pipeline.artifacts.documents import ScoresDocument
    from pipeline.tables.of_metrics import Table

_TABLES = ("table1", "references")


@dataclass(frozen=True)
class Reproduced:
    """A table or figure of the paper, made again."""

    what: str
    records: Sequence[Mapping[str, object]]
    """Rows of the table, points of the figure."""
    result: Mapping[str, object]
    """The same and where it is, ready for JSON."""
    text: str
    """The same for people."""

    def __repr__(self) -> str:
        return f"{self.what}: {len(self.records)} rows; to_pandas() gives them, print(.text) a page"

    def to_pandas(self) -> "DataFrame":
        """Give the rows or points as a pandas DataFrame."""
        return to_frame(self.records)


def reproduce(
    store: Objects,
    source: ReproduceSource,
    config: ReproduceConfig,
    varied: FigureConfig,
    track: Kind | None = None,
) -> Reproduced:
    """Make a table or figure from caches that are there.

    Raises: ConfigError, StoreError for a file that cannot be written, NotInStore for missing
        caches, all before the work; and as the stages do.
    """
    _check_out(source)
    require_tracker(track)
    from pipeline.reproduce.figures import fig4_needs
    from pipeline.reproduce.needs import both_datasets, require_caches

    if source.what == "references":
        return _references(store, source, config, varied, track)
    needs = fig4_needs(config, varied) if source.what == "fig4" else both_datasets(config)
    require_caches(store, needs, store.where)
    if source.what == "table1":
        return _table1(store, source, config, track)
    return _figure(store, source, config, varied, track)


def _check_out(source: ReproduceSource) -> None:
    """Refuse a file that cannot be written before the hours of work, not after them."""
    from pipeline.reproduce.figure import check_out as check_figure
    from pipeline.tables.files import check_out as check_table

    if source.out is not None:
        (check_table if source.what in _TABLES else check_figure)(source.out)


def _table1(
    store: Objects, source: ReproduceSource, config: ReproduceConfig, track: Kind | None
) -> Reproduced:
    from pipeline.reproduce.table1 import table1

    made = table1(store, config, track)
    return _table(source, made.table, made.scores)


def _references(
    store: Objects,
    source: ReproduceSource,
    config: ReproduceConfig,
    varied: FigureConfig,
    track: Kind | None,
) -> Reproduced:
    from pipeline.reproduce.references import references

    made = references(store, config, varied, track)
    return _table(source, made.table, made.scores)


def _table(
    source: ReproduceSource, table: "Table", scores: "Sequence[Artifact[ScoresDocument]]"
) -> Reproduced:
    from pipeline.tables.files import write_table
    from pipeline.tables.of_metrics import as_records, to_text

    if source.out is not None:
        write_table(table, source.out)
    rows = as_records(table)
    result = {
        "scores": [{"id": one.id, "path": one.path} for one in scores],
        "rows": rows,
        "notes": list(table.notes),
    }
    return Reproduced(source.what, rows, result, to_text(table))


def _figure(
    store: Objects,
    source: ReproduceSource,
    config: ReproduceConfig,
    varied: FigureConfig,
    track: Kind | None,
) -> Reproduced:
    from pipeline.artifacts import to_json
    from pipeline.reproduce.figure import save_figure, write_out
    from pipeline.reproduce.figures import make_figure

    made = make_figure(source.what, store, config, varied, track)
    path = save_figure(store, made, config, varied)
    if source.out is not None:
        write_out(made, source.out)
    points = [to_json(row) for row in made.rows]
    text = f"{len(points)} points\n{path}/figure.png"
    return Reproduced(source.what, made.rows, {"path": path, "points": points}, text)

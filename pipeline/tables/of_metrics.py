"""Tables of metrics: for people (text, LaTeX, in %) and for programs (CSV, Parquet, in [0, 1]).

A table has sections: a direction such as `visa -> mvtec`, and in each our categories, our mean and
the published means; or a category, and in each the methods that are compared. Published rows are
marked as such in every format and say what differs.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import pyarrow as pa

from pipeline.artifacts.documents import ScoresDocument
from pipeline.tables.frames import as_parquet, csv_text, to_frame
from pipeline.tables.metrics import METRICS, names_by_reason, percent
from pipeline.tables.text import text_table

if TYPE_CHECKING:
    from pandas import DataFrame

_KINDS = {"published": "mean", "published category": "category"}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line: a category or a mean, of ours or as published."""

    section: str
    kind: Literal["category", "mean", "published", "published category"]
    name: str
    values: Mapping[str, float | None]
    """Metrics in [0, 1]; absent or None where there is none."""
    spread: Mapping[str, float | None] = field(default_factory=dict)
    """Standard deviations of the metrics over seeds, where the row stands for several."""
    best: Collection[str] = ()
    """Metrics in which no row of its section is better."""
    differs: str = ""
    """Of a published row: what it does not share with ours."""
    other_data: bool = False
    """Whether a published row is of other data than ours, so that the numbers do not compare."""

    @property
    def is_published(self) -> bool:
        """Whether it is the paper's."""
        return self.kind.startswith("published")


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows in order, the metrics shown, and remarks below."""

    metrics: Sequence[str]
    """Keys of `METRICS`."""
    rows: Sequence[Row]
    notes: Sequence[str] = ()
    of: Literal["category", "method"] = "category"
    """What the names of rows that are no means are of."""
    caption: str = ""
    """What a paper says below it."""

    def __repr__(self) -> str:
        return f"Table of {len(self.rows)} rows: {', '.join(self.metrics)}; to_pandas() gives them"

    def to_pandas(self) -> "DataFrame":
        """Give a row a category, mean or published mean as a pandas DataFrame."""
        return to_frame(as_records(self))


def metrics_table(document: ScoresDocument) -> str:
    """Give the content of `metrics.json` as a text table in %, the mean last, with footnotes."""
    rows = score_rows(document, section="")
    return to_text(Table(metrics=list(METRICS), rows=rows, notes=score_notes(document)))


def score_rows(document: ScoresDocument, section: str) -> list[Row]:
    """Give the rows of `metrics.json`: each category, then their mean."""
    categories = [
        Row(section=section, kind="category", name=name, values=one.values)
        for name, one in document.categories.items()
    ]
    mean = Row(section=section, kind="mean", name="mean", values=document.mean.values)
    return [*categories, mean]


def score_notes(document: ScoresDocument) -> list[str]:
    """Say which AUPRO it is and why some metrics of `metrics.json` do not exist."""
    notes = [f"in %; AUPRO {document.aupro}"]
    why = names_by_reason(
        (name, reason) for name, one in document.categories.items() for reason in one.reasons
    )
    return notes + [f"{', '.join(names)}: {reason}" for reason, names in why.items()]


def to_text(table: Table) -> str:
    """Lay a table out for a terminal, in %."""
    rows: list[Sequence[str] | None] = []
    for row, opens_section, opens_kind in with_breaks(table.rows):
        if opens_section or opens_kind:
            rows.append(None)
        if opens_section and row.section:
            rows.append([row.section])
        rows.append([shown_name(row), *(cell_text(row, metric) for metric in table.metrics)])
    widest = max((len(shown_name(row)) for row in table.rows), default=0)
    text = text_table(headings(table), rows, numbers_from=1, width=max(80, widest + 90))
    return "\n".join([text, "", *table.notes]).strip("\n")


def cell_text(row: Row, metric: str) -> str:
    """Give `92.3`, with what it varies by over seeds; `*` before the best."""
    spread = row.spread.get(metric)
    told = "" if spread is None else f" ± {percent(spread)}"
    return f"{'*' if metric in row.best else ''}{percent(row.values.get(metric))}{told}"


def to_csv(table: Table) -> str:
    """Write one line a row with metrics in [0, 1] at full precision; empty where there is none."""
    return csv_text(_fields(table), as_records(table))


def to_parquet(table: Table) -> bytes:
    """Write the same as the CSV as Parquet, null where there is no metric."""
    schema = pa.schema(
        {
            name: pa.float64() if name in (*table.metrics, *_spreads(table)) else pa.string()
            for name in _fields(table)
        }
    )
    return as_parquet(pa.Table.from_pylist(as_records(table), schema=schema))


def _fields(table: Table) -> list[str]:
    return ["section", "source", "kind", "name", *table.metrics, *_spreads(table), "differs"]


def _spreads(table: Table) -> dict[str, str]:
    """Give the columns of spreads with their metrics, where any row has one."""
    if not any(row.spread for row in table.rows):
        return {}
    return {f"{metric}_spread": metric for metric in table.metrics}


def as_records(table: Table) -> list[dict[str, str | float | None]]:
    """Give a dict a row: section, source (ours or published), kind, name, metrics, differs.

    Where rows stand for several seeds each metric has its `.._spread`, too.
    """
    spreads = _spreads(table)
    return [
        {
            "section": row.section,
            "source": "published" if row.is_published else "ours",
            "kind": _KINDS.get(row.kind, row.kind),
            "name": row.name,
            **{metric: row.values.get(metric) for metric in table.metrics},
            **{name: row.spread.get(metric) for name, metric in spreads.items()},
            "differs": row.differs,
        }
        for row in table.rows
    ]


def with_breaks(rows: Sequence[Row]) -> Iterator[tuple[Row, bool, bool]]:
    """Yield rows with whether each opens a section, and whether it opens a kind within one."""
    last: Row | None = None
    for row in rows:
        opens_section = last is None or row.section != last.section
        yield row, opens_section, last is not None and row.kind != last.kind
        last = row


def shown_name(row: Row) -> str:
    """Give a row's name, marked where it is published."""
    if not row.is_published:
        return row.name
    return f"{row.name} (published, other data)" if row.other_data else f"{row.name} (published)"


def headings(table: Table) -> list[str]:
    """Give what stands above each column."""
    of_categories = any(row.kind == "category" for row in table.rows)
    first = table.of if of_categories else "method"
    return [first, *(METRICS[metric].heading for metric in table.metrics)]

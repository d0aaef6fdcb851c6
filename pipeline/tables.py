"""Tables of metrics: for people (text, LaTeX, in %) and for programs (CSV, Parquet, in [0, 1]).

A table has sections: a direction such as `visa -> mvtec`, and in each our categories, our mean and
the published means; or a category, and in each the methods that are compared. Published rows are
marked as such in every format and say what differs.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pyarrow as pa

from pipeline.artifacts.documents import ScoresDocument
from pipeline.files import check_place, write_file
from pipeline.frames import as_parquet, csv_text, to_frame
from pipeline.metrics import METRICS, percent
from pipeline.printable import printable_line
from pipeline.text_table import text_table
from spg_core.errors import ConfigError

if TYPE_CHECKING:
    from pandas import DataFrame

_KINDS = {"published": "mean", "published category": "category"}
SUFFIXES = (".csv", ".tex", ".parquet")
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    # after the end of a row these two are options of it
    "[": "{[}",
    "*": "{*}",
} | {special: f"\\{special}" for special in "&%$#_{}"}


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
    for name, one in document.categories.items():
        notes += [f"{name}: {reason}" for reason in sorted(one.reasons)]
    return notes


def to_text(table: Table) -> str:
    """Lay a table out for a terminal, in %."""
    rows: list[Sequence[str] | None] = []
    for row, opens_section, opens_kind in _with_breaks(table.rows):
        if opens_section or opens_kind:
            rows.append(None)
        if opens_section and row.section:
            rows.append([row.section])
        rows.append([_shown(row), *(_cell(row, metric) for metric in table.metrics)])
    widest = max((len(_shown(row)) for row in table.rows), default=0)
    text = text_table(_headings(table), rows, numbers_from=1, width=max(80, widest + 90))
    return "\n".join([text, "", *table.notes]).strip("\n")


def to_latex(table: Table) -> str:
    """Write a `tabular` in %, for the booktabs package; remarks become comments above it."""
    width = len(table.metrics) + 1
    head = " & ".join(_headings(table))
    lines = [r"% needs \usepackage{booktabs}"]
    lines += [f"% {printable_line(line)}" for note in table.notes for line in note.split("\n")]
    lines += [rf"\begin{{tabular}}{{l{'r' * len(table.metrics)}}}", r"\toprule", rf"{head} \\"]
    for row, opens_section, opens_kind in _with_breaks(table.rows):
        if opens_section or opens_kind:
            lines.append(r"\midrule")
        if opens_section and row.section:
            lines.append(rf"\multicolumn{{{width}}}{{l}}{{{_escape_latex(row.section)}}} \\")
        cells = [_latex_cell(row, metric) for metric in table.metrics]
        lines.append(" & ".join([_escape_latex(_shown(row)), *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _cell(row: Row, metric: str) -> str:
    """Give `92.3`, with what it varies by over seeds; `*` before the best."""
    spread = row.spread.get(metric)
    told = "" if spread is None else f" ± {percent(spread)}"
    return f"{'*' if metric in row.best else ''}{percent(row.values.get(metric))}{told}"


def _latex_cell(row: Row, metric: str) -> str:
    told = _cell(row, metric).removeprefix("*").replace("±", r"$\pm$")
    return rf"\textbf{{{told}}}" if metric in row.best else told


def _escape_latex(text: str) -> str:
    """Escape what LaTeX reads as a command or shows as another letter; `->` becomes an arrow."""
    shown = printable_line(text)
    parts = ("".join(_LATEX.get(letter, letter) for letter in part) for part in shown.split("->"))
    return r"$\to$".join(parts).replace("--", "-{}-").replace("--", "-{}-")


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


def check_out(name: str) -> str:
    """Give the suffix of a table's file, before anything is computed for it.

    Raises: ConfigError unless it is one of `SUFFIXES`, StoreError where no file can be written.
    """
    suffix = Path(name).suffix
    if suffix not in SUFFIXES:
        raise ConfigError(f"{name} should end in one of {', '.join(SUFFIXES)}")
    check_place(Path(name))
    return suffix


def write_table(table: Table, name: str) -> None:
    """Write a table to a file; its suffix says how.

    Raises: ConfigError for another suffix, StoreError where nothing can be written.
    """
    match check_out(name):
        case ".csv":
            data = to_csv(table).encode()
        case ".tex":
            data = to_latex(table).encode()
        case _:
            data = to_parquet(table)
    write_file(Path(name), data)


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


def _with_breaks(rows: Sequence[Row]) -> Iterator[tuple[Row, bool, bool]]:
    """Yield rows with whether each opens a section, and whether it opens a kind within one."""
    last: Row | None = None
    for row in rows:
        opens_section = last is None or row.section != last.section
        yield row, opens_section, last is not None and row.kind != last.kind
        last = row


def _shown(row: Row) -> str:
    if not row.is_published:
        return row.name
    return f"{row.name} (published, other data)" if row.other_data else f"{row.name} (published)"


def _headings(table: Table) -> list[str]:
    of_categories = any(row.kind == "category" for row in table.rows)
    first = table.of if of_categories else "method"
    return [first, *(METRICS[metric].heading for metric in table.metrics)]

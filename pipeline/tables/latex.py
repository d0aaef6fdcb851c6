"""A table for a paper: caption and label, grouped heads, the best in bold; by booktabs."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

from pipeline.tables.metrics import METRICS
from pipeline.tables.of_metrics import Row, Table, cell_text, headings, shown_name, with_breaks
from pipeline.terminal.printable import printable_line

_LETTERS = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    # after the end of a row these two are options of it
    "[": "{[}",
    "*": "{*}",
    "±": r"$\pm$",
    "→": r"$\to$",
    "−": "$-$",
} | {special: f"\\{special}" for special in "&%$#_{}"}


_EVERYWHERE = frozenset(
    "¡¢£¤¥¦§¨©ª¬®¯°±²³´µ¶·¸¹º¼½¾¿ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖ×ØÙÚÛÜÝßàáâãäåæçèéêëìíîïñòóôõö÷øùúûüýÿ"
    "ĀāĂăĆćĈĉĊċČčĎďĒēĔĕĖėĚěĜĝĞğĠġĢģĤĥĨĩĪīĬĭİıĲĳĴĵĶķĹĺĻļĽľŁłŃńŅņŇňŌōŎŏŐőŒœŔŕŖŗŘřŚśŜŝŞşŠšŢţŤťŨũ"
    "ŪūŬŭŮůŰűŴŵŶŷŸŹźŻżŽžȘșȚțẞ‐‑‒–—―‖‘’“”†‡•…‰‱※€™"
)
"""Letters beyond ASCII that pdflatex sets as they are: those of its TS1, OT1 and T1 alike."""
_IN_T1 = frozenset("«»ÐÞðþĄąĐđĘęĮįŊŋŲų‚„‹›")
"""Letters that it sets with the encoding T1 alone."""
_LACKING = (
    "% some names hold letters that pdflatex lacks: it shows their numbers instead; lualatex and "
    "xelatex\n% show the letters, given a font that has them\n"
    r"\providecommand{\spgletters}[2]{\ifdefined\Umathcode#1\else[#2]\fi}"
)


def to_latex(table: Table) -> str:
    """Write a `table` in %, for the booktabs package; remarks become comments above it.

    The best of the rows that compare is bold: those marked as such, or else of each section the
    means, ours and the published ones of the same data.
    """
    width = len(table.metrics) + 1
    lines = [
        r"\begin{table}[t]",
        r"\centering",
        rf"\caption{{{escape(table.caption or _said(table))}}}",
        rf"\label{{tab:{_label(table)}}}",
        rf"\begin{{tabular}}{{l{'r' * len(table.metrics)}}}",
        r"\toprule",
        *_heads(table),
    ]
    for row, opens_section, opens_kind in with_breaks(_with_best(table.rows, table.metrics)):
        if opens_section or opens_kind:
            lines.append(r"\midrule")
        if opens_section and row.section:
            lines.append(rf"\multicolumn{{{width}}}{{l}}{{\emph{{{escape(row.section)}}}}} \\")
        cells = [_cell(row, metric) for metric in table.metrics]
        lines.append(" & ".join([escape(shown_name(row)), *cells]) + r" \\")
    body = "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])
    return "\n".join([*_preface(table, body), body])


def _preface(table: Table, body: str) -> list[str]:
    """Say what the table needs of the document it is read into, and its remarks."""
    needs = r"% needs \usepackage{booktabs}"
    lines = [needs if _IN_T1.isdisjoint(body) else rf"{needs} and \usepackage[T1]{{fontenc}}"]
    lines += [f"% {printable_line(line)}" for note in table.notes for line in note.split("\n")]
    return [*lines, _LACKING] if r"\spgletters" in body else lines


def _heads(table: Table) -> list[str]:
    """Give two lines: image and pixel above their metrics, with rules below; then the metrics."""
    first = headings(table)[0]
    groups, rules, at = [], [], 2
    for group, metrics in groupby(table.metrics, key=lambda name: name.partition("_")[0]):
        n = len(list(metrics))
        groups.append(rf"\multicolumn{{{n}}}{{c}}{{{group.capitalize()}}}")
        rules.append(rf"\cmidrule(lr){{{at}-{at + n - 1}}}")
        at += n
    if not groups:
        return [rf"{first.capitalize()} \\"]
    names = [METRICS[name].label.partition(" ")[2] for name in table.metrics]
    return [
        f" & {' & '.join(groups)} " + r"\\",
        " ".join(rules),
        f"{first.capitalize()} & {' & '.join(names)} " + r"\\",
    ]


def _with_best(rows: Sequence[Row], metrics: Sequence[str]) -> list[Row]:
    """Mark the best of the means of each section, where no row is marked yet."""
    if any(row.best for row in rows):
        return list(rows)
    made = []
    for _, section in groupby(rows, key=lambda row: row.section):
        here = list(section)
        means = [row for row in here if row.kind in ("mean", "published") and not row.other_data]
        known = {name: found for name in metrics if (found := _known(means, name))}
        best = {name: max(found) for name, found in known.items() if min(found) < max(found)}
        made += [
            replace(row, best={name for name in best if row.values.get(name) == best[name]})
            if row in means
            else row
            for row in here
        ]
    return made


def _known(rows: Sequence[Row], metric: str) -> list[float]:
    return [value for row in rows if (value := row.values.get(metric)) is not None]


def _cell(row: Row, metric: str) -> str:
    told = cell_text(row, metric).removeprefix("*").replace("±", r"$\pm$")
    return rf"\textbf{{{told}}}" if metric in row.best else told


def _said(table: Table) -> str:
    """Say what a table without a caption shows."""
    sections = list(dict.fromkeys(row.section for row in table.rows if row.section))
    of = f" {', '.join(sections)}" if 0 < len(sections) < 3 else ""
    return f"Anomaly detection{of}, in %; the best in bold."


def _label(table: Table) -> str:
    """Give a label of plain letters from the first section."""
    first = next((row.section for row in table.rows if row.section), table.of)
    return re.sub(r"[^a-z0-9]+", "-", first.lower()).strip("-") or table.of


def escape(text: str) -> str:
    """Escape what LaTeX reads as a command or shows as another letter; `->` becomes an arrow.

    What pdflatex has no letters for goes with its numbers into a command that chooses.
    """
    shown = unicodedata.normalize("NFC", printable_line(text))
    parts = (
        "".join(
            rf"\spgletters{{{''.join(run)}}}{{{' '.join(f'U+{ord(one):04X}' for one in run)}}}"
            if lacking
            else "".join(_LETTERS.get(one, one) for one in run)
            for lacking, letters in groupby(part, key=_is_lacking)
            if (run := list(letters))
        )
        for part in shown.split("->")
    )
    return r"$\to$".join(parts).replace("--", "-{}-").replace("--", "-{}-")


def _is_lacking(letter: str) -> bool:
    return not (letter.isascii() or letter in _LETTERS or letter in _EVERYWHERE or letter in _IN_T1)

"""What the cache commands print for people: tables of caches, problems, copies and leftovers."""

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.printable import printable_line
from pipeline.progress import human_bytes

_WIDTH = 160
_ROWS_SHOWN = 20


def listing_text(found: Mapping[str, Any]) -> str:
    """Lay out what `cache ls` found; users of a cache one a line, then what is wrong."""
    caches = found["caches"]
    damaged = [row for row in caches if "problem" in row]
    problems = [f"{one['object']}: {one['problem']}" for one in found["problems"]]
    lines = [*problems, *(row["problem"] for row in damaged)]
    if not caches:
        return "\n".join([nothing_text(found["store"]), *lines])
    table = _table("dataset", "backbone", "key", "state", "images", "size", "used by")
    for row in caches:
        state = f"[red]{row['state']}[/red]" if row["state"] == "damaged" else row["state"]
        table.add_row(
            _cell(row["dataset"]),
            _cell(row["backbone"]),
            row["key"],
            state,
            _images(row),
            human_bytes(row["bytes"]),
            _lines(row["used_by"]),
        )
    return "\n".join([_text(table), *map(printable_line, lines)])


def nothing_text(where: str) -> str:
    """Say that a store is empty, and what fills it."""
    return f"no caches in {where}; `spg-pipe extract` makes them"


def _images(row: Mapping[str, Any]) -> str:
    if row["images"] is None:
        return "-"
    return f"{row['images']}" if row["images"] == row["of"] else f"{row['images']} of {row['of']}"


def info_text(found: Mapping[str, Any]) -> str:
    """Lay out what `cache info` found: what the key covers, then what it does not."""
    covered = _table("the key covers", "")
    for name, value in _flat(found["covers"]):
        covered.add_row(_cell(name), _cell(_value(value)))
    besides = _table("not in the key", "")
    for name in ("images", "shards", "manifest_sha256", "created", "versions", "timings"):
        for inner, value in _flat({name: found[name]}):
            besides.add_row(_cell(inner), _cell(_value(value)))
    besides.add_row("size", human_bytes(found["bytes"]))
    besides.add_row("used by", _lines(found["used_by"]))
    return "\n".join([found["path"], _text(covered), "", _text(besides)])


def differences_text(first: str, second: str, sentences: Sequence[str]) -> str:
    """Say why two keys differ, one sentence a line."""
    head = f"first:  {first}\nsecond: {second}\n"
    if not sentences:
        return f"{head}nothing differs"
    return head + "\n".join(f"- {sentence}" for sentence in sentences)


def verify_text(where: str, reports: Sequence[Mapping[str, Any]]) -> str:
    """Say of each cache whether it is sound, and name everything that is not."""
    if not reports:
        return nothing_text(where)
    lines = []
    for report in reports:
        n_problems = len(report["problems"])
        told = "sound" if not n_problems else f"{n_problems} problem(s)"
        size = f"{report['objects']} objects, {human_bytes(report['bytes'])}"
        lines.append(f"{where}/{report['cache']}: {told} ({size})")
        for problem in report["problems"]:
            lines.append(f"  {problem['object']}: {problem['problem']}")
            lines += [f"    {image}" for image in problem["images"][:_ROWS_SHOWN]]
            more = len(problem["images"]) - _ROWS_SHOWN
            if more > 0:
                lines.append(f"    and {more} more; --json lists all")
    return "\n".join(lines)


def copy_text(found: Mapping[str, Any]) -> str:
    """Lay out what was copied, then what could not be."""
    table = _table(
        printable_line(f"now in {found['store']}"), "shards copied", "there before", "bytes copied"
    )
    for row in found["copied"]:
        table.add_row(
            _cell(row["cache"]),
            str(row["copied_shards"]),
            str(row["present_shards"]),
            human_bytes(row["copied_bytes"]),
        )
    problems = [f"not copied: {one['object']}: {one['problem']}" for one in found["problems"]]
    return "\n".join([_text(table), *map(printable_line, problems)])


def gc_text(where: str, result: Mapping[str, Any]) -> str:
    """Lay out what can go or has gone, and who used the caches that were named."""
    if not result["objects"]:
        return f"nothing to remove in {where}"
    table = _table("object", "size", "reason")
    for item in result["objects"][:_ROWS_SHOWN]:
        table.add_row(_cell(item["object"]), human_bytes(item["bytes"]), item["reason"])
    lines = [_text(table)]
    more = len(result["objects"]) - _ROWS_SHOWN
    if more > 0:
        lines.append(f"and {more} more; --json lists all")
    for cache in result["removed"]:
        if cache["used_by"]:
            lines.append(f"{cache['cache']} is used by: {', '.join(cache['used_by'])}")
    size = f"{len(result['objects'])} objects, {human_bytes(result['bytes'])}"
    if result["deleted"]:
        lines.append(f"deleted {size}")
    else:
        lines.append(f"{size} would go; add --delete to remove them")
    return "\n".join(lines)


def _flat(value: Mapping[str, Any], path: str = "") -> list[tuple[str, Any]]:
    """Give `a.b` and its value for every leaf."""
    leaves = []
    for name, inner in value.items():
        full = f"{path}.{name}" if path else name
        leaves += _flat(inner, full) if isinstance(inner, Mapping) else [(full, inner)]
    return leaves


def _cell(text: str) -> str:
    return escape(printable_line(text))


def _lines(texts: Sequence[str]) -> str:
    return "\n".join(map(_cell, texts)) or "-"


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _table(*headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for heading in headings:
        # Names must stay whole, so that they can be copied and piped.
        table.add_column(heading, overflow="fold", no_wrap=heading == "key")
    return table


def _text(table: Table) -> str:
    text = io.StringIO()
    Console(file=text, width=_WIDTH).print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()).strip("\n")

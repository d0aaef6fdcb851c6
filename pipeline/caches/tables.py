"""What the cache commands print for people."""

import json
from collections.abc import Iterator, Mapping, Sequence

from pipeline.caches.answers import Copies, Differences, Facts, Listed, Listing, Tidied, Verified
from pipeline.tables.text import Cell, text_table
from pipeline.terminal.printable import printable_line
from pipeline.terminal.progress import human_bytes

_ROWS_SHOWN = 20


def listing_text(found: Listing) -> str:
    """Lay out what `cache ls` found; users of a cache one a line, then what is wrong."""
    lines = [f"{one.object}: {one.problem}" for one in found.problems]
    lines += [one.problem for one in found.caches if one.problem]
    rows: list[Sequence[Cell]] = []
    for one in found.caches:
        name = (one.dataset, one.backbone, one.key)
        holds = (one.tokens or "-", one.state, _images(one), human_bytes(one.bytes))
        rows.append((*name, *holds, one.used_by or "-"))
    headings = ("dataset", "backbone", "key", "tokens", "state", "images", "size", "used by")
    # a key must stay whole, so that it can be copied
    table = text_table(headings, rows, whole=2) if rows else nothing_text(found.store)
    return "\n".join([table, *map(printable_line, lines)])


def nothing_text(where: str) -> str:
    """Say that a store is empty, and what fills it."""
    return f"no caches in {where}; `spg-pipe extract` makes them"


def _images(one: Listed) -> str:
    if one.images is None:
        return "-"
    return f"{one.images}" if one.images == one.of else f"{one.images} of {one.of}"


def info_text(found: Facts) -> str:
    """Lay out what `cache info` found: what the key covers, then what it does not."""
    names = ("images", "shards", "manifest_sha256", "created", "versions", "timings")
    besides: list[Sequence[Cell]] = [*_flat({name: getattr(found, name) for name in names})]
    besides += [("size", human_bytes(found.bytes)), ("used by", found.used_by or "-")]
    covered = text_table(("the key covers", ""), _flat(found.covers))
    return "\n".join([found.path, covered, "", text_table(("not in the key", ""), besides)])


def _flat(value: Mapping[str, object], path: str = "") -> Iterator[tuple[str, str]]:
    """Yield `a.b` and its value for every leaf."""
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _flat(inner, f"{path}{name}.")
        else:
            yield f"{path}{name}", inner if isinstance(inner, str) else json.dumps(inner)


def differences_text(found: Differences) -> str:
    """Say why two keys differ, one sentence a line."""
    first, second = found.caches
    said = [f"- {sentence}" for sentence in found.differences] or ["nothing differs"]
    return "\n".join([f"first:  {first}", f"second: {second}", *said])


def verify_text(where: str, caches: Sequence[Verified]) -> str:
    """Say of each cache whether it is sound, and name everything that is not."""
    lines = []
    for one in caches:
        told = f"{len(one.problems)} problem(s)" if one.problems else "sound"
        size = f"{one.objects} objects, {human_bytes(one.bytes)}"
        lines.append(f"{where}/{one.cache}: {told} ({size})")
        for problem in one.problems:
            lines.append(f"  {problem.object}: {problem.problem}")
            lines += [f"    {image}" for image in problem.images[:_ROWS_SHOWN]]
            lines += [f"    {more}" for more in _more(problem.images)]
    return "\n".join(lines) or nothing_text(where)


def _more(shown: Sequence[object]) -> list[str]:
    more = len(shown) - _ROWS_SHOWN
    return [f"and {more} more; --json lists all"] if more > 0 else []


def copy_text(found: Copies) -> str:
    """Lay out what was copied, then what could not be."""
    headings = (f"now in {found.store}", "shards copied", "there before", "bytes copied")
    rows = [
        (one.cache, f"{one.copied_shards}", f"{one.present_shards}", human_bytes(one.copied_bytes))
        for one in found.copied
    ]
    problems = [f"not copied: {one.object}: {one.problem}" for one in found.problems]
    return "\n".join([text_table(headings, rows), *map(printable_line, problems)])


def gc_text(found: Tidied) -> str:
    """Lay out what can go or has gone, and who used the caches that were named."""
    if not found.objects:
        return f"nothing to remove in {found.store}"
    shown = found.objects[:_ROWS_SHOWN]
    rows = [(one.object, human_bytes(one.bytes), one.reason) for one in shown]
    lines = [text_table(("object", "size", "reason"), rows), *_more(found.objects)]
    for cache in found.removed:
        if cache.used_by:
            lines.append(f"{cache.cache} is used by: {', '.join(cache.used_by)}")
    size = f"{len(found.objects)} objects, {human_bytes(found.bytes)}"
    told = f"deleted {size}" if found.deleted else f"{size} would go; add --delete to remove them"
    return "\n".join([*lines, told])

"""What `ls`, `show` and `rm` print for people."""

import json
from collections.abc import Iterator, Mapping, Sequence

from pipeline.registry.answers import Branch, Holdings, Listed, Removal, Shown, Transfer
from pipeline.tables.text import Cell, text_table
from pipeline.terminal.printable import printable_line
from pipeline.terminal.progress import human_bytes


def holdings_text(found: Holdings) -> str:
    """Lay out what `ls` found as a forest: each below the first that it stands on."""
    lines = [f"{one.object}: {one.problem}" for one in found.problems]
    lines += [f"{one.artifact}: {one.problem}" for one in found.artifacts if one.problem]
    if not found.artifacts:
        empty = f"no SAEs, guides or scores in {found.store}; `spg-pipe fit-sae` makes the first"
        return "\n".join([empty, *map(printable_line, lines)])
    headings = ("artifact", "names", "state", "made", "size")
    table = text_table(headings, list(_forest(found.artifacts)), whole=0)
    return "\n".join([table, *map(printable_line, lines)])


def _forest(artifacts: Sequence[Listed]) -> Iterator[Sequence[Cell]]:
    """Give a row an artifact, indented below its first parent, and one a parent without a row."""
    known = {one.artifact for one in artifacts}
    below: dict[str, list[Listed]] = {}
    for one in artifacts:
        below.setdefault(next(iter(one.stands_on), ""), []).append(one)
    seen: set[str] = set()

    def rows(above: str, depth: int) -> Iterator[Sequence[Cell]]:
        for one in below.get(above, []):
            if one.artifact not in seen:
                seen.add(one.artifact)
                yield _row(one, depth)
                yield from rows(one.artifact, depth + 1)

    for root in sorted(below.keys() - known):
        if root:
            yield (root,)
        yield from rows(root, int(bool(root)))
    for one in artifacts:  # whose parents go in a circle, which a forged document can say
        if one.artifact not in seen:
            yield _row(one, 0)


def _row(one: Listed, depth: int) -> Sequence[Cell]:
    made = (one.created or "-").replace("T", " ").partition("+")[0]
    return ("  " * depth + one.artifact, one.names or "-", one.state, made, human_bytes(one.bytes))


def shown_text(found: Shown) -> str:
    """Lay out what `show` found."""
    names = f"called {', '.join(found.names)}" if found.names else "without a name"
    lines = [found.text, f"{found.kind}, {names}, made {found.document.get('created')}"]
    files = ", ".join(f"{name} ({human_bytes(size)})" for name, size in found.files.items())
    lines += [f"files: {files}", "", "stands on:", *_tree(found.stands_on, 1)]
    lines += ["", "stood on by:", *(f"  {one}" for one in found.stood_on_by or ["nothing"])]
    config = found.document.get("config")
    if isinstance(config, Mapping):
        rows = [
            (name, value if isinstance(value, str) else json.dumps(value))
            for name, value in config.items()
        ]
        lines += ["", text_table(("config", ""), rows)]
    return "\n".join(lines)


def _tree(branches: Sequence[Branch], depth: int) -> Iterator[str]:
    for one in branches:
        yield "  " * depth + printable_line(one.folder) + ("" if one.is_here else " (not here)")
        yield from _tree(one.stands_on, depth + 1)


def removal_text(found: Removal) -> str:
    """Lay out what can go or has gone, and which names mean nothing then."""
    rows = [
        (one.artifact, f"{one.files}", human_bytes(one.bytes), one.reason)
        for one in found.artifacts
    ]
    lines = [text_table(("artifact", "files", "size", "reason"), rows, whole=0)]
    tense = "means" if found.deleted else "would mean"
    for one in found.artifacts:
        lines += [f"{name!r} {tense} nothing any more: it was {one.artifact}" for name in one.names]
    for trouble in found.problems:
        lines.append(printable_line(f"cannot tell of {trouble.object}: {trouble.problem}"))
    size = f"{len(found.artifacts)} artifacts, {human_bytes(found.bytes)}"
    told = f"deleted {size}" if found.deleted else f"{size} would go; add --delete to remove them"
    return "\n".join([*lines, told])


def transfer_text(made: Transfer) -> str:
    """Lay out what is in a store now, then what was kept as it was there."""
    caches = [(one.cache, _written(one.copied_bytes)) for one in made.caches]
    rows = [*caches, *((one.artifact, _written(one.bytes)) for one in made.artifacts)]
    lines = [text_table((f"now in {made.store}", "written"), rows, whole=0)]
    lines += [f"called {name}" for name in made.names]
    for one in made.artifacts:
        lines += [f"{one.artifact}/{file} is another there, and was kept" for file in one.kept]
    lines += [f"{one.object}: {one.problem}" for one in made.problems]
    return "\n".join(lines)


def _written(n_bytes: int) -> str:
    return human_bytes(n_bytes) if n_bytes else "there before"

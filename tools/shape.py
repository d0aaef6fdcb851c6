"""Print the shape of the code: sizes, long functions, uses of Any, fan-out, repeated lines.

    python tools/shape.py [FOLDER ...]      the four packages if none is named

docs/design/010-house.md keeps what it said before and after a rebuilding.
"""

import ast
import sys
from collections import Counter, defaultdict
from pathlib import Path
from statistics import median, quantiles

PACKAGES = ("pipeline", "spg_core", "cache", "manifests")
REPEATED_LINES = 6


def main(folders: list[str]) -> None:
    """Print one row a folder."""
    print("| folder | files | lines | longest file | functions | median | p90 | longest | `Any` "
          "| most imports | repeated |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for folder in folders or PACKAGES:
        print(f"| `{folder}/` | {' | '.join(shape_of(Path(folder)))} |")


def shape_of(folder: Path) -> list[str]:
    """Measure the modules below a folder, one text a column."""
    sources = {path: path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.py"))}
    trees = {path: ast.parse(text) for path, text in sources.items()}
    lines = {path: len(text.splitlines()) for path, text in sources.items()}
    functions = sorted(
        (node.end_lineno - node.lineno + 1, node.name)
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno
    )
    lengths = [length for length, _ in functions]
    longest = max(lines, key=lambda path: lines[path])
    fan_out = {path: len(imported(tree)) for path, tree in trees.items()}
    widest = max(fan_out, key=lambda path: fan_out[path])
    return [
        str(len(sources)),
        f"{sum(lines.values()):,}",
        f"{lines[longest]} {longest.name}",
        str(len(lengths)),
        f"{median(lengths):.0f}",
        f"{quantiles(lengths, n=10)[-1]:.0f}",
        f"{functions[-1][0]} {functions[-1][1]}",
        str(sum(uses_of_any(tree) for tree in trees.values())),
        f"{fan_out[widest]} {widest.name}",
        str(repeated_pairs(sources)),
    ]


def imported(tree: ast.AST) -> set[str]:
    """Give the modules of this project that a module imports, also inside functions."""
    return {
        str(node.module)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PACKAGES
    } - {None}


def uses_of_any(tree: ast.AST) -> int:
    """Count the places that say `Any`, imports left out."""
    return sum(isinstance(node, ast.Name) and node.id == "Any" for node in ast.walk(tree))


def repeated_pairs(sources: dict[Path, str]) -> int:
    """Count pairs of places that share at least six lines, blank ones and imports left out."""
    seen: defaultdict[tuple[str, ...], list[tuple[Path, int]]] = defaultdict(list)
    for path, text in sources.items():
        kept = [line.strip() for line in text.splitlines()]
        kept = [line for line in kept if line and not line.startswith(("from ", "import "))]
        for start in range(len(kept) - REPEATED_LINES + 1):
            seen[tuple(kept[start : start + REPEATED_LINES])].append((path, start))
    # windows that move on together in both places are one pair
    pairs = Counter(
        (a, b, i - j)
        for places in seen.values()
        for n, (a, i) in enumerate(places)
        for b, j in places[n + 1 :]
    )
    return len(pairs)


if __name__ == "__main__":
    main(sys.argv[1:])

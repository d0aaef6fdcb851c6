"""List every place in the source that is about a GPU, and see that the tests take it.

    python tools/cuda_branches.py            run tests/test_cuda_*.py, write docs/cuda.md
    python tools/cuda_branches.py --check    run them, fail where a place is not taken

A place is a comparison of a device's type, `is_cuda`, a call of `torch.cuda`, `torch.autocast` or
`pin_memory`, and a handler of a GPU's lack of memory. Each is wrapped as its module is imported: a
comparison counts when it came out as it does on a GPU, a call when it was made, a handler when it
was entered. What runs there are the real stages on pretended tensors, see `tests/pretended_gpu.py`.
"""

import ast
import builtins
import re
import sys
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "cuda.md"
PACKAGES = ("pipeline", "spg_core", "cache", "manifests")
HEAD = """# What the tests take of the GPU's path

Written by `python tools/cuda_branches.py`: every comparison of a device's type, every call that is
about a GPU, every handler of its lack of memory. The tests of `tests/test_cuda_*.py` take each of
them on pretended tensors; `tests/test_tools_cuda_branches.py` fails where the source has one that
is not on this page, or that they do not take. What reading had found wrong here, what was done and
which test guards it: [the ten bugs](design/016-devices.md).

| file | function | place |
|---|---|---|
"""


class Place(NamedTuple):
    """Where the source is about a GPU; without a line, so that it stays the same as lines move."""

    file: str
    function: str
    text: str


class Finder(ast.NodeTransformer):
    """Finds the places of a module, and wraps each in a call of `__cuda_seen__`."""

    def __init__(self, file: str) -> None:
        self.places: list[Place] = []
        self._file = file
        self._names: list[str] = []

    def _inside(self, node: "ast.FunctionDef | ast.ClassDef") -> ast.AST:
        self._names.append(node.name)
        found = self.generic_visit(node)
        self._names.pop()
        return found

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """Note the function's name."""
        return self._inside(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        """Note the class's name."""
        return self._inside(node)

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        """`device.type == "cuda"` and its like."""
        way = _way(node)
        return self.generic_visit(node) if way is None else self._wrapped(node, node, way)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        """`tensor.is_cuda`."""
        if node.attr == "is_cuda":
            return self._wrapped(node, node, True)
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """`torch.cuda.empty_cache()` and its like; arguments are looked through as well."""
        text = ast.unparse(node.func)
        is_one = text == "torch.autocast" or re.fullmatch(r"torch\.cuda\.\w+", text) is not None
        inner = ast.Call(node.func, [], []) if is_one else node
        found = self.generic_visit(node)
        if not (is_one or text.endswith(".pin_memory")):
            return found
        return self._wrapped(inner, found, None)

    def visit_Match(self, node: ast.Match) -> ast.AST:
        """`match device.type:`, where what is not the CPU is the GPU."""
        if ast.unparse(node.subject).endswith("device.type"):
            node.subject = self._wrapped(
                node, node.subject, "cuda", f"match {ast.unparse(node.subject)}"
            )
        return self.generic_visit(node)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> ast.AST:
        """`except torch.OutOfMemoryError`."""
        text = ast.unparse(node.type) if node.type else ""
        self.generic_visit(node)
        if "OutOfMemoryError" in text:
            call = self._wrapped(node, ast.Constant(True), None, f"except {text}")
            node.body.insert(0, ast.copy_location(ast.Expr(call), node.body[0]))
        return node

    def _wrapped(
        self, node: ast.AST, value: ast.AST, way: bool | str | None, text: str | None = None
    ) -> ast.expr:
        """Have a value pass through `__cuda_seen__`, which notes the place if it is of that way."""
        place = Place(self._file, ".".join(self._names), text or ast.unparse(node))
        self.places.append(place)
        written = ast.parse(repr(tuple(place)), mode="eval").body
        arguments = [written, value, ast.Constant(way)]
        call = ast.Call(ast.Name("__cuda_seen__", ast.Load()), arguments, [])  # type: ignore[arg-type]
        return ast.copy_location(call, node if hasattr(node, "lineno") else value)


def _way(node: ast.Compare) -> bool | None:
    """Give what a comparison says on a GPU; None where it is about something else."""
    match node:
        case ast.Compare(
            ast.Attribute(attr="type"), [operator], [ast.Constant("cuda" | "cpu" as kind)]
        ):
            return isinstance(operator, ast.Eq) == (kind == "cuda")
    return None


def files() -> Iterator[Path]:
    """Give the modules of the four packages."""
    for package in PACKAGES:
        yield from sorted((ROOT / package).rglob("*.py"))


def places() -> list[Place]:
    """Give all places in the source, in order; two that read the same in a function are one."""
    found: dict[Place, None] = {}
    for path in files():
        finder = Finder(path.relative_to(ROOT).as_posix())
        finder.visit(ast.parse(path.read_text(encoding="utf-8")))
        found |= dict.fromkeys(finder.places)
    return list(found)


class Watched(SourceFileLoader):
    """Imports a module with its places wrapped."""

    def get_code(self, fullname: str) -> CodeType | None:
        """Compile the source, never what is kept of it."""
        path = Path(self.get_filename(fullname))
        finder = Finder(path.relative_to(ROOT).as_posix())
        tree = finder.visit(ast.parse(path.read_text(encoding="utf-8")))
        code: CodeType = compile(ast.fix_missing_locations(tree), str(path), "exec")
        return code


class Watch(MetaPathFinder):
    """Has the four packages imported by `Watched`."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find one of our modules, nobody else's."""
        if name.partition(".")[0] not in PACKAGES:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = Watched(spec.loader.name, spec.loader.path)
        return spec


def taken() -> tuple[set[Place], int]:
    """Run the tests on pretended tensors; give the places they took, and pytest's exit code."""
    import pytest

    seen: set[Place] = set()

    def note(place: tuple[str, str, str], value: object, way: object) -> object:
        if way is None or value == way:
            seen.add(Place(*place))
        return value

    builtins.__cuda_seen__ = note  # type: ignore[attr-defined]
    sys.meta_path.insert(0, Watch())
    tests = sorted(str(path) for path in (ROOT / "tests").glob("test_cuda_*.py"))
    chosen = ["-m", "not slow and not gpu", "-k", "not benchmark"]
    code = pytest.main(["-q", "-p", "no:cacheprovider", f"--rootdir={ROOT}", *chosen, *tests])
    return seen, int(code)


def page(found: Sequence[Place]) -> str:
    """Give the page."""
    rows = (f"| {one.file} | `{one.function}` | `{one.text.replace('|', '/')}` |" for one in found)
    return HEAD + "\n".join(rows) + "\n"


def main() -> None:
    """Run, compare, write."""
    sys.path.insert(0, str(ROOT))
    there = places()
    seen, code = taken()
    if code:
        sys.exit(code)
    lacking = [place for place in there if place not in seen]
    if lacking:
        sys.exit("\n".join(["no test of tests/test_cuda_*.py takes", *map(" ".join, lacking)]))
    if "--check" not in sys.argv:
        PAGE.write_text(page(there))
    print(f"{len(there)} places, all taken")


if __name__ == "__main__":
    main()

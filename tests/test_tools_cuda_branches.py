"""Every place in the source that is about a GPU is known, and taken by tests."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pretended_gpu import needs_cuda_build
from tools.cuda_branches import PAGE, Finder, page, places

TOOL = Path(__file__).resolve().parents[1] / "tools" / "cuda_branches.py"


def test_the_page_lists_the_places_of_the_source() -> None:
    assert PAGE.read_text() == page(places()), "run `python tools/cuda_branches.py`"


@pytest.mark.slow
@needs_cuda_build
def test_every_place_is_taken() -> None:
    ran = subprocess.run(
        [sys.executable, str(TOOL), "--check"], capture_output=True, text=True, check=False
    )

    assert ran.returncode == 0, ran.stderr[-3000:] + ran.stdout[-3000:]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("device.type == 'cuda'", ["device.type == 'cuda'"]),
        ("x if device.type != 'cpu' else y", ["device.type != 'cpu'"]),
        ("f(rows.is_cuda)", ["rows.is_cuda"]),
        ("torch.cuda.device_count() > n", ["torch.cuda.device_count()"]),
        ("a.pin_memory().to(b)", ["a.pin_memory()"]),
        ("with torch.autocast('cuda', half): pass", ["torch.autocast()"]),
        ("try: pass\nexcept torch.OutOfMemoryError: pass", ["except torch.OutOfMemoryError"]),
        ("match device.type:\n  case 'cpu': pass", ["match device.type"]),
        ("device.type in ('cpu', 'cuda')", []),
        ("node.type == 'file'", []),
    ],
)
def test_a_place_is_told_from_what_is_none(source: str, expected: list[str]) -> None:
    finder = Finder("x.py")
    finder.visit(ast.parse(source))

    assert [place.text for place in finder.places] == expected

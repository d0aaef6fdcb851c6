"""Which layout a folder looks like, to tell a user who named another one."""

from pathlib import Path
from typing import Final

SIGNS: Final = (
    ("visa", "VisA", ("split_csv/1cls.csv",)),
    ("meta", "a dataset with a meta.json", ("meta.json",)),
    ("real-iad", "Real-IAD", ("realiad_jsons*", "realiad_*", "*/OK/S[0-9]*", "OK/S[0-9]*")),
    ("mvtec-ad-2", "MVTec AD 2", ("*/test_public", "test_public")),
    ("mvtec-3d", "MVTec 3D-AD", ("*/test/*/rgb", "test/*/rgb")),
    ("bmad", "BMAD", ("*/test/*/img", "test/*/img")),
    ("loco", "MVTec LOCO", ("*/ground_truth/*/*/*.png", "ground_truth/*/*/*.png")),
    ("dagm", "DAGM", ("*/[Tt]rain/[Ll]abel", "*/[Tt]est/[Ll]abel", "[Tt]*/[Ll]abel")),
    ("kolektor", "KolektorSDD", ("kos*/*_label.bmp", "t*/*_GT.png", "*_label.bmp", "*_GT.png")),
    ("btad", "BTAD", ("*/test/ko", "test/ko")),
    ("visa", "VisA, reorganised", ("*/test/bad", "test/bad")),
    ("mvtec", "MVTec AD", ("*/test/*", "*/train/good", "test/*")),
)
"""Layout, what it is called, and what would be there; the first that is there counts."""


_MOST_LOOKED_INTO: Final = 20


def looks_like(root: Path) -> tuple[str, str] | None:
    """Give the layout whose signs a folder shows, and what it is called."""
    for layout, title, patterns in SIGNS:
        if any(next(root.glob(pattern), None) is not None for pattern in patterns):
            return layout, title
    return None


def looks_like_below(root: Path) -> str:
    """Give the end of an error: which folder in this one is a dataset, empty where none is."""
    for folder in sorted(root.glob("*/"))[:_MOST_LOOKED_INTO]:
        found = looks_like(folder)
        if found is not None:
            return f"; {folder.name} in it looks like {found[1]}: give that folder as --root"
    return ""


def but_looks_like(found: tuple[str, str] | None, asked: str) -> str:
    """Give the end of an error: what a folder looks like, unless that is what was asked."""
    if found is None or found[0] == asked:
        return ""
    return f"; this looks like {found[1]}: --dataset {found[0]}"

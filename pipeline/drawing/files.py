"""Pictures that a user asked for outside the store, by the suffix of their name."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.drawing.canvas import FORMATS, Strip, draw_sheet
from pipeline.files import check_place, write_file
from spg_core.errors import ConfigError


def check_picture(path: str, others: Sequence[str] = ()) -> None:
    """Refuse a file that no picture, nor one of the `others`, is written to, before the work.

    Raises: ConfigError that lists the suffixes, StoreError where no file can be written.
    """
    suffixes = (*FORMATS, *others)
    if Path(path).suffix not in suffixes:
        raise ConfigError(f"a figure is written to {', '.join(suffixes)}, got {path!r}")
    check_place(Path(path))


def write_picture(strips: Sequence[Strip], path: str) -> None:
    """Draw strips into a file. Raises: as `check_picture`."""
    check_picture(path)
    write_file(Path(path), draw_sheet(strips, Path(path).suffix))

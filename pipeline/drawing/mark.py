"""A text in the head of pictures we write, by which a later run knows that it may replace them."""

from pathlib import Path
from typing import Final

from PIL.PngImagePlugin import PngInfo

MARK: Final = ("Software", "spg-pipe")
_HEAD_BYTES: Final = 256


def png_mark() -> PngInfo:
    """Give what Pillow's `save` takes as `pnginfo`."""
    mark = PngInfo()
    mark.add_text(*MARK)
    return mark


def is_marked(path: Path) -> bool:
    """Tell whether a file is a picture of ours."""
    with path.open("rb") as file:
        return "\0".join(MARK).encode() in file.read(_HEAD_BYTES)

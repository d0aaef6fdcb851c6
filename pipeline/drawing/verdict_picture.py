"""The picture a person acts on: the photo with the map over it, what was said of it, and a scale.

Above the photo a band with verdict, score and reason; below it the colours from 0 to 1, with the
threshold. A line goes round every region in which the map reaches the threshold. A photo too small
to be looked at is enlarged by a whole number; a large one keeps its size, and gets larger letters.
"""

import textwrap
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pipeline.drawing.overlay import overlay
from pipeline.drawing.palette import N_COLOURS, OUTLINE, coloured

_SMALLEST: Final = 360
"""Pixels of the longer side up to which a photo is enlarged, by `_LARGEST_FACTOR` at most."""
_LARGEST_FACTOR: Final = 8
_NARROWEST: Final = 480
"""Pixels that band and scale need at least."""
_LETTERS: Final = (16, 72)
"""Their height in pixels, at least and at most; between them a 36th of the width."""
_BACKGROUND: Final = (24, 24, 28)
_INK: Final = (240, 240, 240)
_VERDICTS: Final = {
    "anomalous": (213, 94, 0),
    "normal": (0, 158, 115),
    "unsure": (230, 159, 0),
}


@dataclass(frozen=True)
class Said:
    """What is said of an image."""

    score: float
    threshold: float | None
    verdict: str | None
    reason: str | None


def verdict_picture(photo: Image.Image, values: NDArray[np.float32], said: Said) -> Image.Image:
    """Draw a photo with its map and what is said of it.

    Args:
        photo: RGB of any size and shape; it is not changed.
        values: the map `(H, W)` in [0, 1].
        said: what is said.

    Returns: RGB, the photo's size or a multiple of it, with a band above and a scale below.
    """
    factor = max(1, min(_LARGEST_FACTOR, _SMALLEST // max(photo.size)))
    shown = photo.resize((photo.width * factor, photo.height * factor), Image.Resampling.NEAREST)
    # far below a threshold nothing is to be seen, and the photo shows better without colour
    drawn = overlay(shown, values, 0.0 if said.threshold is None else said.threshold / 2)
    if said.threshold is not None:
        _outline(drawn, values, said.threshold)
    width = max(drawn.width, _NARROWEST)
    letters = min(max(width // 36, _LETTERS[0]), _LETTERS[1])
    band, scale = _band(said, width, letters), _scale(said.threshold, width, letters)
    sheet = Image.new("RGB", (width, band.height + drawn.height + scale.height), _BACKGROUND)
    sheet.paste(band, (0, 0))
    sheet.paste(drawn, ((width - drawn.width) // 2, band.height))
    sheet.paste(scale, (0, band.height + drawn.height))
    return sheet


def regions(values: NDArray[np.float32], threshold: float) -> list[NDArray[np.float64]]:
    """Give closed lines round where a map `(H, W)` reaches the threshold, `(n, 2)` of x and y.

    In shares of the map's width and height; a region at the border is closed along it.
    """
    from contourpy import contour_generator

    height, width = values.shape
    padded = np.pad(values.astype(np.float64), 1, constant_values=-1.0)
    # a pixel stands for its middle; the padding is half a pixel wide, so lines stay inside
    across = np.concatenate([[0], (np.arange(width) + 0.5) / width, [1]])
    down = np.concatenate([[0], (np.arange(height) + 0.5) / height, [1]])
    # lines of a level that is reached are drawn just below it
    level = float(np.nextafter(np.float32(threshold), np.float32(-1)))
    found = contour_generator(across, down, padded).lines(level)
    return [np.asarray(line, np.float64) for line in found]


def _outline(drawn: Image.Image, values: NDArray[np.float32], threshold: float) -> None:
    """Draw a bright line in a dark one, which is seen on any photo."""
    pen = ImageDraw.Draw(drawn)
    thick = max(1, round(max(drawn.size) / 300))
    lines = [
        [(float(x) * (drawn.width - 1), float(y) * (drawn.height - 1)) for x, y in line]
        for line in regions(values, threshold)
    ]
    for colour, more in ((_BACKGROUND, 2), (OUTLINE, 0)):
        for line in lines:
            pen.line(line, fill=colour, width=thick + more, joint="curve")


def _band(said: Said, width: int, letters: int) -> Image.Image:
    """Draw verdict and score, and the reason in as many lines as it takes."""
    font, gap, less = ImageFont.load_default(letters), letters // 2, _less(letters)
    small = ImageFont.load_default(less)
    # letters are about half as wide as high
    per_line = max(20, int((width - 2 * gap) / (0.55 * less)))
    told = textwrap.wrap(_printable(said.reason), per_line)[:_MOST_LINES] if said.reason else []
    row, small_row = letters + gap, int(less * 1.3)
    band = Image.new("RGB", (width, row + gap + small_row * len(told)), _BACKGROUND)
    pen = ImageDraw.Draw(band)
    colour = _VERDICTS.get(said.verdict or "", _INK)
    pen.rectangle((0, 0, gap // 2, band.height), fill=colour)
    verdict = said.verdict or "no verdict"
    pen.text((gap, gap), verdict, fill=colour, font=font, anchor="la")
    score = f"score {said.score:.3f}"
    if said.threshold is not None:
        score += f"  threshold {said.threshold:.3f}"
    pen.text((width - gap, gap), score, fill=_INK, font=font, anchor="ra")
    for at, line in enumerate(told):
        pen.text((gap, row + gap // 2 + at * small_row), line, fill=_INK, font=small)
    return band


_MOST_LINES = 4


def _less(letters: int) -> int:
    """Give the height of smaller letters beside some."""
    return max(_LETTERS[0] - 3, letters * 3 // 4)


def _printable(text: str) -> str:
    return text.encode("ascii", "replace").decode()


def _scale(threshold: float | None, width: int, letters: int) -> Image.Image:
    """Draw the colours from 0 to 1 with three numbers below, and a mark at the threshold."""
    font, gap, high = ImageFont.load_default(_less(letters)), letters, letters
    scale = Image.new("RGB", (width, 3 * high), _BACKGROUND)
    span = width - 2 * gap
    ramp = Image.fromarray(np.arange(N_COLOURS, dtype=np.uint8)[None, :])
    scale.paste(coloured(ramp).convert("RGB").resize((span, high)), (gap, high // 2))
    pen = ImageDraw.Draw(scale)
    pen.rectangle((gap, high // 2, gap + span - 1, high // 2 + high), outline=_INK)
    marks = [(0.0, "0"), (0.5, "0.5"), (1.0, "1")]
    if threshold is not None:
        marks = [(0.0, "0"), (1.0, "1"), (threshold, f"{threshold:.2f}")]
        x = gap + threshold * (span - 1)
        thick = max(2, letters // 8)
        pen.line((x, high // 4, x, high * 7 // 4), fill=OUTLINE, width=thick)
    for value, text in marks:
        x = gap + value * (span - 1) - pen.textlength(text, font=font) / 2
        x = min(max(x, 2), width - 2 - pen.textlength(text, font=font))
        own = threshold is not None and text not in ("0", "1")
        pen.text((x, high * 7 // 4), text, fill=OUTLINE if own else _INK, font=font)
    return scale

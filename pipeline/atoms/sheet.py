"""A contact sheet of atoms as a PNG: a row an atom, its strongest patches from left to right.

Each cell is the model input with the atom's activation laid over it, on one scale a row: from 0 to
the atom's strongest activation, which the row states. The patch itself is outlined.
"""

import io
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont, UnidentifiedImageError

from pipeline.drawing.mark import png_mark
from pipeline.drawing.palette import OUTLINE, rgb
from pipeline.report.data import Atom, AtomPatch
from spg_core.errors import CorruptStore

_CELL, _GAP, _CAPTION, _LABEL, _TITLE = 160, 8, 30, 212, 56
_INK, _FAINT, _PAPER = (24, 24, 28), (104, 104, 112), (255, 255, 255)
_OPACITY = 0.85
"""Of the strongest activation over a picture; weaker ones let more of the picture through."""
_MARGIN = 2
"""Pixels between a patch and its outline, so that the outline does not hide the activation."""
_SHARES_SHOWN, _SMALLEST_SHARE = 3, 0.005


def draw_sheet(atoms: Sequence[Atom], title: str, note: str, patches: int) -> bytes:
    """Draw the sheet of one guide.

    Args:
        atoms: in order, the first on top.
        title: the first line of the sheet.
        note: the second line.
        patches: columns, the most patches an atom has.

    Raises: CorruptStore for a thumbnail that is no picture.
    """
    step = _CELL + _CAPTION + _GAP
    width = _LABEL + patches * (_CELL + _GAP) + _GAP
    sheet = Image.new("RGB", (max(width, 720), _TITLE + len(atoms) * step + _GAP), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, 8), title, _INK, _font(16))
    draw.text((_GAP, 32), note, _FAINT, _font(12))
    for at, atom in enumerate(atoms):
        top = _TITLE + at * step
        strongest = max((float(patch.heatmap.max()) for patch in atom.patches), default=0.0)
        _label(draw, atom, strongest, top)
        for column, patch in enumerate(atom.patches):
            left = _LABEL + column * (_CELL + _GAP)
            sheet.paste(_cell(patch, strongest), (left, top))
            draw.text((left, top + _CELL + 2), _fit(_caption(patch), _CELL), _INK, _font(11))
            draw.text((left, top + _CELL + 15), f"{patch.activation:.3g}", _FAINT, _font(11))
    stream = io.BytesIO()
    sheet.save(stream, "PNG", optimize=True, pnginfo=png_mark())
    return stream.getvalue()


def _label(draw: ImageDraw.ImageDraw, atom: Atom, strongest: float, top: int) -> None:
    lines = [f"coefficient {atom.coefficient:.4g}"]
    if atom.patches:
        lines.append(f"colours 0 to {strongest:.3g}")
    else:
        lines.append("never active here")
    draw.text((_GAP, top), f"atom {atom.index}", _INK, _font(15))
    lines += _shares(atom.category_spread) + _shares(atom.defect_spread)
    for at, line in enumerate(lines):
        draw.text((_GAP, top + 22 + 15 * at), _fit(line, _LABEL - 2 * _GAP), _FAINT, _font(11))


def _shares(spread: Mapping[str, float]) -> list[str]:
    """Write the largest shares of a spread, and how many more there are."""
    named = [pair for pair in spread.items() if pair[1] >= _SMALLEST_SHARE]
    ordered = sorted(named, key=lambda pair: -pair[1])
    lines = [f"{share:.0%} {name}" for name, share in ordered[:_SHARES_SHOWN]]
    if len(ordered) > _SHARES_SHOWN:
        lines[-1] += f" and {len(ordered) - _SHARES_SHOWN} more"
    return lines


def _caption(patch: AtomPatch) -> str:
    return f"{patch.category} / {patch.defect}"


def _cell(patch: AtomPatch, strongest: float) -> Image.Image:
    """Draw one picture with its activations, fitted into a square cell."""
    picture = _thumbnail(patch)
    ratio = patch.heatmap.shape[1] / patch.heatmap.shape[0]
    if picture is not None:
        ratio = picture.width / picture.height
    width, height = min(_CELL, round(_CELL * ratio)), min(_CELL, round(_CELL / ratio))
    size = (max(1, width), max(1, height))
    share = np.clip(patch.heatmap / (strongest or 1.0), 0, 1).astype(np.float32)
    # patches keep their borders: what lies between two of them was never computed
    level = np.asarray(Image.fromarray(share).resize(size, Image.Resampling.NEAREST))
    colours = rgb(level)
    if picture is not None:
        ground = np.asarray(picture.resize(size), np.float32)
        opacity = _OPACITY * np.sqrt(level[..., None])
        colours = np.rint(ground * (1 - opacity) + colours * opacity).astype(np.uint8)
    cell = Image.new("RGB", (_CELL, _CELL), _PAPER)
    cell.paste(Image.fromarray(colours), (0, 0))
    if patch.box is not None:
        left, top, wide, high = patch.box
        # a patch at the border keeps its outline inside the cell
        upper = (max(0, round(left * width) - _MARGIN), max(0, round(top * height) - _MARGIN))
        right, bottom = round((left + wide) * width), round((top + high) * height)
        lower = (min(_CELL - 1, right + _MARGIN), min(_CELL - 1, bottom + _MARGIN))
        ImageDraw.Draw(cell).rectangle((upper, lower), outline=OUTLINE)
    return cell


def _thumbnail(patch: AtomPatch) -> Image.Image | None:
    if patch.thumbnail is None:
        return None
    try:
        with Image.open(io.BytesIO(patch.thumbnail), formats=["JPEG"]) as image:
            return image.convert("RGB")
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise CorruptStore(f"the thumbnail of {patch.image_path} is no JPEG: {error}") from None


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _fit(text: str, width: int) -> str:
    """Cut a text to a width in pixels at size 11; an ellipsis says so."""
    font = _font(11)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."

"""A contact sheet of atoms as a PNG: a row an atom, its strongest patches from left to right.

Each cell is the model input with the atom's activation laid over it, on one scale a row: from 0 to
the atom's strongest activation, which the row states. The patch itself is outlined.
"""

import io
from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

from pipeline.drawing.mark import png_mark
from pipeline.drawing.overlay import lay_over
from pipeline.drawing.palette import N_COLOURS, OUTLINE, coloured, levels
from pipeline.drawing.thumbnail import open_thumbnail
from pipeline.report.data import Atom, AtomPatch

_CELL, _GAP, _CAPTION, _LABEL, _TITLE = 160, 8, 30, 212, 56
_INK, _FAINT, _PAPER = (24, 24, 28), (104, 104, 112), (255, 255, 255)
_COVER = [round(0.85 * (255 * level) ** 0.5) for level in range(N_COLOURS)]
"""Of a picture below its activations; weaker ones let more of it through, as the square root."""
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
        _label(draw, atom, top)
        for column, patch in enumerate(atom.patches):
            left = _LABEL + column * (_CELL + _GAP)
            sheet.paste(_cell(patch, atom.top), (left, top))
            caption = _fit(f"{patch.category} / {patch.defect}", _CELL)
            draw.text((left, top + _CELL + 2), caption, _INK, _font(11))
            draw.text((left, top + _CELL + 15), f"{patch.activation:.3g}", _FAINT, _font(11))
    stream = io.BytesIO()
    sheet.save(stream, "PNG", optimize=True, pnginfo=png_mark())
    return stream.getvalue()


def _label(draw: ImageDraw.ImageDraw, atom: Atom, top: int) -> None:
    draw.text((_GAP, top), f"atom {atom.index}", _INK, _font(15))
    colours = f"colours 0 to {atom.top:.3g}" if atom.patches else "never active here"
    lines = [f"coefficient {atom.coefficient:.4g}", colours]
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


def _cell(patch: AtomPatch, top: float) -> Image.Image:
    """Draw one picture with its activations from 0 to `top`, fitted into a square cell."""
    jpeg, seen = patch.thumbnail, levels(patch.heatmap, top)
    photo = None if jpeg is None else open_thumbnail(jpeg, patch.image_path)
    shown = photo or seen
    width = max(1, min(_CELL, round(_CELL * shown.width / shown.height)))
    height = max(1, min(_CELL, round(_CELL * shown.height / shown.width)))
    # patches keep their borders: what lies between two of them was never computed
    seen = seen.resize((width, height), Image.Resampling.NEAREST)
    cell = Image.new("RGB", (_CELL, _CELL), _PAPER)
    below = photo and lay_over(photo.resize((width, height)), seen, _COVER)
    cell.paste(below or coloured(seen), (0, 0))
    left, upper, wide, high = patch.box
    # a patch at the border keeps its outline inside the cell
    corner = max(0, round(left * width) - _MARGIN), max(0, round(upper * height) - _MARGIN)
    right, lower = round((left + wide) * width), round((upper + high) * height)
    other = min(_CELL - 1, right + _MARGIN), min(_CELL - 1, lower + _MARGIN)
    ImageDraw.Draw(cell).rectangle((corner, other), outline=OUTLINE)
    return cell


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

"""Give docs/formats.md, written from the rows that the tests read."""

from tests.format_rows import FOLDERS, LISTS, Row
from tests.weight_rows import WEIGHTS

HEAD = """# What is read

Written by `make docs` from the rows that the tests make, read and compare with the table that must
come out (`tests/format_rows.py`). What is not read is refused by name. Nothing is guessed: a mask
is never an image, and a good part never a defect.

Extraction says what is odd before it computes anything; errors stop it, warnings are counted.

- Paths in lists: `a//b`, `./a`, `a\\b` and absolute paths below `--root` are understood. What
  leaves the root is refused by name, links too, unless `--follow-links` is given.
- Splits in any case; `validation` goes with `train`. `--split` chooses, `test` by default.
- Words for normal, in any case, with or without `-`, `_` and spaces: good, ok, normal, no, none,
  pass, negative, free, defect-free, non-defective. `--normal NAME` replaces them; `--normal none`
  says that all parts are defective.
- Folders of masks: mask, gt, ground truth, annotation, label, and their plurals; `crack_mask` holds
  the masks of `crack`. `--masks FOLDER` replaces them, `--masks none` says that there are none.
- Names are compared composed, so that files from a Mac match; what systems leave (Thumbs.db,
  @eaDir, #recycle, ..) is passed over.
- A mask belongs to the image of its stem, with or without `_mask`, `_label`, `_GT`, `_seg`. It is
  anomalous where it is not 0. A mask of many greys (a JPEG once, or smooth edges) is cut at half of
  its largest level; one of another size than its image is resized (nearest pixel). Both are said,
  and so is one that covers more than half of its image.
- `--limit N` takes the first N images a category and label, `--skip-broken` leaves out what cannot
  be decoded and names it in the manifest.
"""


def formats() -> str:
    """Give the page."""
    lines = [HEAD]
    for title, rows in (("Folders", FOLDERS), ("Lists", LISTS)):
        lines += [
            f"## {title}",
            "",
            "| what | how it looks | option | result |",
            "|---|---|---|---|",
        ]
        lines += [_line(row) for row in rows] + [""]
    if WEIGHTS:
        lines += ["## Weights", "", "| what | what is in it | result |", "|---|---|---|"]
        lines += [_cells(row.what, row.keys, row.result) for row in WEIGHTS]
    return "\n".join(lines).rstrip() + "\n"


def _line(row: Row) -> str:
    option = f"`--dataset {row.layout}{' ' if row.option else ''}{row.option}`"
    result = f'refused: "{row.refusal}"' if row.refusal else "read"
    result += f"; {row.remark}" if row.remark else ""
    return _cells(row.what, row.where, option, result)


def _cells(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

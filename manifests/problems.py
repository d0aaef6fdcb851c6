"""What can be wrong with a dataset, and whether it stops the build.

Everything is gathered first and told at once: errors in one `DatasetError`, warnings as one counted
line a kind beside the finished manifest.

| kind | | why |
|---|---|---|
| no images | error | nothing to do |
| unusable list (CSV, JSON) | error | entries would be guessed |
| wrong layout | error | labels would be wrong in silence |
| undecodable (or empty, 16-bit, too large) | error | no tokens, or wrong ones |
| missing file, unreadable folder | error | the list and the disk disagree |
| leaves the root, symlink loop | error | reads what the user did not name |
| unusable name (not UTF-8, control character) | error | not fit for a manifest |
| mask size (of another shape) | error | pixels cannot be matched |
| ambiguous mask (two masks, or one for two images) | error | one would be wrong |
| mask on a good image | error | label and mask contradict |
| looks like a mask (by its name; two levels, a twin) | error | a mask would count as an image |
| no good folder (no name says normal, no mask says defect) | error | good parts would be defects |
| listed twice | error | counted twice in every metric |
| missing mask of a defective image | error where the layout has masks; warning in lists, and in a \
plain folder with masks | image metrics do without |
| no masks (of a whole tree) | warning | as above |
| empty mask of a defective image | warning | pixel metrics have no region there |
| large mask (more than half of the image) | warning | a whole part, or black and white swapped |
| resized mask (another size, the same shape) | warning | as their authors do |
| grey mask (once a JPEG, smooth edges) | warning | cut at half of its largest |
| duplicate bytes | warning | true of some published sets |
| duplicate bytes, other label | warning | as above, and no score can be right |
| orphan mask (no image of that stem) | warning | harmless, but often a misspelling |
| stray image (outside good/ and defect folders) | warning | left out of the manifest |
| other split, no labels, no path, unread format | warning | left out of the manifest |
| left out (broken, with --skip-broken) | warning | left out of the manifest, named in it |
| empty category (no image in this split) | warning | it will miss in the table |
| unlabelled (plain folder: no class folder, no masks at all) | warning | counted as good |
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

from spg_core.errors import DatasetError

Kind = Literal[
    "no images",
    "unusable list",
    "wrong layout",
    "undecodable",
    "missing file",
    "unreadable folder",
    "leaves the root",
    "symlink loop",
    "unusable name",
    "mask size",
    "resized mask",
    "grey mask",
    "ambiguous mask",
    "mask on a good image",
    "listed twice",
    "missing mask",
    "empty mask",
    "large mask",
    "duplicate bytes",
    "duplicate bytes, other label",
    "orphan mask",
    "stray image",
    "other split",
    "empty category",
    "unlabelled",
    "no good folder",
    "looks like a mask",
    "no labels",
    "no masks",
    "no path",
    "left out",
    "unread format",
]
Layout = Literal[
    "mvtec",
    "visa",
    "btad",
    "loco",
    "mvtec-ad-2",
    "mvtec-3d",
    "bmad",
    "real-iad",
    "kolektor",
    "dagm",
    "folder",
    "meta",
    "list",
]
LAYOUTS: Final[tuple[str, ...]] = get_args(Layout)

WARNINGS: Final[frozenset[Kind]] = frozenset(
    {
        "empty mask",
        "large mask",
        "resized mask",
        "grey mask",
        "duplicate bytes",
        "duplicate bytes, other label",
        "orphan mask",
        "stray image",
        "other split",
        "empty category",
        "unlabelled",
        "no labels",
        "no masks",
        "no path",
        "left out",
        "unread format",
    }
)
"""Kinds that never stop a build. `missing mask` depends on the layout; all others stop it."""

MEANING: Final[dict[Kind, str]] = {
    "leaves the root": "leaves the root; --follow-links reads what links lead to",
    "missing mask": "defective image without a mask",
    "empty mask": "defective image whose mask is empty",
    "large mask": "mask that covers more than half of its image; are black and white swapped?",
    "mask size": "mask of another size than its image",
    "resized mask": "mask of another size than its image, brought to it (nearest pixel)",
    "grey mask": "mask of many greys, cut at half of its largest",
    "duplicate bytes": "image with the bytes of an earlier one",
    "duplicate bytes, other label": "image with the bytes of one that has another label",
    "mask on a good image": "good image whose mask is not empty",
    "orphan mask": "mask without an image",
    "stray image": "image outside good/ and defect folders, left out",
    "other split": "split that is neither train nor test, left out",
    "empty category": "category without an image in this split",
    "unlabelled": "image without class folder or mask, counted as good",
    "no good folder": "class folder, and no folder's name says normal (good, ok, no, ..): "
    "--normal NAME, or --normal none if all are defects",
    "looks like a mask": "image that looks like the mask of another: --masks FOLDER says where "
    "masks are, --masks none that there are none",
    "no labels": "folder without labels, left out",
    "no masks": "no image has a mask: image metrics only, and no guides",
    "no path": "entry of a list without a path, left out",
    "unread format": "picture in a format that is not read, left out",
    "left out": "broken file, left out with its image",
}
"""Kinds that need more words than their name."""

WARNING_NAMES: Final = 20
"""Most files named for one kind of problem; its count is always the full one."""

MAX_TEXT: Final = 400
"""Most characters of one problem: a path in a list may be as long as it likes."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with one file: its kind, its path under the root, and detail."""

    kind: Kind
    path: str
    detail: str = ""

    def __str__(self) -> str:
        text = f"{self.path}: {self.detail}" if self.detail else self.path
        return printable(text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]} ..")


def printable(text: str) -> str:
    """Escape what is not UTF-8, and what a terminal would obey: a name on disk may hold both."""
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def is_warning(problem: Problem, layout: Layout) -> bool:
    """Tell whether a problem lets the build go on in this layout."""
    if problem.kind == "missing mask":
        return layout in ("meta", "list", "real-iad", "folder")
    return problem.kind in WARNINGS


def settle(problems: Sequence[Problem], layout: Layout, root: Path) -> tuple[str, ...]:
    """Raise all errors at once, or give the warnings, one counted line a kind.

    Raises:
        DatasetError: At least one problem is an error; the message counts every one of them,
            names the first few of each kind, and gives the warnings after them.
    """
    errors = {problem for problem in problems if not is_warning(problem, layout)}
    warnings = _warning_lines(problem for problem in problems if is_warning(problem, layout))
    if not errors:
        return warnings
    count = "1 problem" if len(errors) == 1 else f"{len(errors)} problems"
    lines = [f"{count} in {printable(str(root))} (layout {layout}); no manifest was made"]
    for kind, found in _by_kind(errors).items():
        lines.append(f"  {MEANING.get(kind, kind)} ({len(found)}):")
        lines += [f"    {problem}" for problem in found[:WARNING_NAMES]]
        rest = len(found) - WARNING_NAMES
        lines += [f"    and {rest} more"] if rest > 0 else []
    lines += [f"  also: {line}" for line in warnings]
    raise DatasetError("\n".join(lines))


def _warning_lines(problems: Iterable[Problem]) -> tuple[str, ...]:
    lines = []
    for kind, found in _by_kind(problems).items():
        names = "; ".join(str(problem) for problem in found[:WARNING_NAMES])
        rest = len(found) - WARNING_NAMES
        more = f"; and {rest} more" if rest > 0 else ""
        lines.append(f"{len(found)} x {MEANING.get(kind, kind)}: {names}{more}")
    return tuple(lines)


def _by_kind(problems: Iterable[Problem]) -> dict[Kind, list[Problem]]:
    grouped: dict[Kind, list[Problem]] = {}
    for problem in sorted(set(problems), key=lambda found: (found.kind, found.path, found.detail)):
        grouped.setdefault(problem.kind, []).append(problem)
    return grouped

"""What can be wrong with a dataset, and whether it stops the build.

Everything is gathered first and told at once: errors in one `DatasetError`, warnings as one counted
line a kind beside the finished manifest.

| kind | mvtec, visa | meta | folder | why |
|---|---|---|---|---|
| no images | error | error | error | nothing to do |
| unusable list (CSV, JSON) | error | error | - | entries would be guessed |
| wrong layout | error | error | error | labels would be wrong in silence |
| undecodable (or empty, 16-bit, too large) | error | error | error | no tokens, or wrong ones |
| missing file, unreadable folder | error | error | error | the list and the disk disagree |
| leaves the root, symlink loop | error | error | error | reads what the user did not name |
| unusable name (not UTF-8, control character) | error | error | error | not fit for a manifest |
| mask size (of another shape) | error | error | error | pixels cannot be matched |
| resized mask (another size, the same shape) | warning | warning | warning | as their authors do |
| grey mask (once a JPEG, smooth edges) | warning | warning | warning | cut at half of its largest |
| ambiguous mask (two masks, or one for two images) | error | error | error | one would be wrong |
| mask on a good image | error | error | error | label and mask contradict |
| listed twice | error | error | - | counted twice in every metric |
| missing mask of a defective image | error | warning | warning, none if there are no masks | \
mvtec and visa always have them; image metrics do without |
| empty mask of a defective image | warning | warning | warning; unsorted: good | \
image metrics hold; pixel metrics have no region there |
| duplicate bytes | warning | warning | warning | true of some published sets |
| duplicate bytes, other label | warning | warning | warning | as above, and no score can be right |
| orphan mask (no image of that stem) | warning | - | warning | harmless, but often a misspelling |
| stray image (outside good/ and defect folders) | warning | - | - | left out of the manifest |
| other split (neither train nor test) | - | warning | - | left out of the manifest |
| empty category (no image in this split) | warning | - | - | it will miss in the table |
| unlabelled (no class folder, no masks at all) | - | - | warning | counted as good |
| no good folder (class folders, none normal) | - | - | warning | every image counts as defective |
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
    "duplicate bytes",
    "duplicate bytes, other label",
    "orphan mask",
    "stray image",
    "other split",
    "empty category",
    "unlabelled",
    "no good folder",
]
Layout = Literal["mvtec", "visa", "folder", "meta"]
LAYOUTS: Final[tuple[str, ...]] = get_args(Layout)

WARNINGS: Final[frozenset[Kind]] = frozenset(
    {
        "empty mask",
        "resized mask",
        "grey mask",
        "duplicate bytes",
        "duplicate bytes, other label",
        "orphan mask",
        "stray image",
        "other split",
        "empty category",
        "unlabelled",
        "no good folder",
    }
)
"""Kinds that never stop a build. `missing mask` depends on the layout; all others stop it."""

MEANING: Final[dict[Kind, str]] = {
    "missing mask": "defective image without a mask",
    "empty mask": "defective image whose mask is empty",
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
    "no good folder": "class folder counted as a defect, and none named good, normal or ok",
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
        return layout in ("meta", "folder")
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

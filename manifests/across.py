"""What only shows once all images of a dataset are known: twins, masks taken for images."""

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from manifests.examine import Facts
from manifests.listing import Reading
from manifests.problems import Kind, Layout, Problem
from manifests.trees import TREES


def relevant(
    problems: Sequence[Problem], layout: Layout, all_facts: Sequence[Facts]
) -> Iterator[Problem]:
    """Leave out missing masks where masks are optional, or all are missing, which is told once."""
    defective = [facts for facts in all_facts if facts.entry.label == 1]
    is_tree = layout in TREES and layout != "visa"  # VisA always has masks
    # A mask that fits no image says that there are masks, only under other names.
    no_masks = (
        is_tree
        and bool(defective)
        and all(facts.mask_id is None for facts in defective)
        and not any(problem.kind == "orphan mask" for problem in problems)
    )
    if no_masks:
        yield Problem("no masks", ".")
    for problem in problems:
        # A plain folder has named those that look forgotten when it was listed.
        told = layout == "folder" and not problem.detail
        if problem.kind != "missing mask" or not (told or no_masks):
            yield problem


def across(all_facts: Sequence[Facts], layout: Layout, reading: Reading) -> Iterator[Problem]:
    """Find what no image shows by itself."""
    yield from _duplicates(all_facts)
    # A list says what is an image; in trees numbers repeat, so a twin is one in the same folder.
    if (layout == "folder" or layout in TREES) and reading.masks != "none":
        yield from _masks_as_images(all_facts, anywhere=layout == "folder")
    if layout in TREES and not TREES[layout].classes and "none" not in reading.normal:
        yield from _unknown_words(all_facts)


def _unknown_words(all_facts: Sequence[Facts]) -> Iterator[Problem]:
    """Find test splits without a good image, and their classes of which no mask says `defect`.

    Good parts may have a name that we do not know: `ok_front`, `gut`, `clean`.
    """
    tests = [facts for facts in all_facts if facts.entry.split == "test"]
    with_good = {facts.entry.category for facts in tests if facts.entry.label == 0}
    masked = {(f.entry.category, f.entry.defect) for f in tests if f.mask_pixels}
    for facts in tests:
        entry = facts.entry
        if entry.category not in with_good and (entry.category, entry.defect) not in masked:
            yield Problem("no good folder", str(PurePosixPath(entry.image_path).parent))


def _duplicates(all_facts: Sequence[Facts]) -> Iterator[Problem]:
    first: dict[str, Facts] = {}
    for facts in all_facts:
        earlier = first.setdefault(facts.image_id, facts).entry
        if earlier is facts.entry:
            continue
        detail = f"same bytes as {earlier.image_path}"
        same_label = earlier.label == facts.entry.label
        kind: Kind = "duplicate bytes" if same_label else "duplicate bytes, other label"
        yield Problem(kind, facts.entry.image_path, detail)


def _masks_as_images(all_facts: Sequence[Facts], *, anywhere: bool) -> Iterator[Problem]:
    """Find images that look like the mask of another: two greys, its size, its name in theirs."""
    pictures: dict[tuple[str, str, int, int], str] = {}
    for facts in all_facts:
        if not facts.two_greys:
            folder, stem = _place(facts, anywhere)
            pictures[folder, stem, facts.width, facts.height] = facts.entry.image_path
    for facts in all_facts:
        if facts.two_greys:
            folder, stem = _place(facts, anywhere)
            cuts = [cut.span() for cut in re.finditer(r"[-_. ]", stem)]
            parts = [stem, *(stem[:start] for start, _ in cuts), *(stem[end:] for _, end in cuts)]
            keys = [(folder, part, facts.width, facts.height) for part in parts]
            twin = next((pictures[key] for key in keys if key in pictures), None)
            if twin is not None:
                yield Problem("looks like a mask", facts.entry.image_path, f"of {twin}")


def _place(facts: Facts, anywhere: bool) -> tuple[str, str]:
    path = PurePosixPath(facts.entry.image_path)
    return "" if anywhere else str(path.parent), path.stem

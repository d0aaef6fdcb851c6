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
    """Leave out missing masks where masks are optional, or are told of once for all."""
    no_masks = _has_no_masks(all_facts, layout)
    for problem in problems:
        # A plain folder has named those that look forgotten when it was listed.
        told = layout == "folder" and not problem.detail
        if problem.kind != "missing mask" or not (told or no_masks):
            yield problem


def across(all_facts: Sequence[Facts], layout: Layout, reading: Reading) -> Iterator[Problem]:
    """Find what no image shows by itself."""
    yield from _duplicates(all_facts)
    # Elsewhere a list, or the name of a folder, says what is an image.
    if layout == "folder" and reading.masks != "none":
        yield from _masks_as_images(all_facts)
    if _has_no_masks(all_facts, layout):
        yield Problem("no masks", ".")


def _has_no_masks(all_facts: Sequence[Facts], layout: Layout) -> bool:
    """Tell whether a tree has defective images, and masks for none of them."""
    defective = [facts for facts in all_facts if facts.entry.label == 1]
    is_tree = layout in TREES and layout != "visa"  # VisA always has masks
    return is_tree and bool(defective) and all(facts.mask_id is None for facts in defective)


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


def _masks_as_images(all_facts: Sequence[Facts]) -> Iterator[Problem]:
    """Find images that look like the mask of another: two greys, its size, its name in theirs."""
    pictures: dict[tuple[str, int, int], str] = {}
    for facts in all_facts:
        if not facts.two_greys:
            stem = PurePosixPath(facts.entry.image_path).stem
            pictures[stem, facts.width, facts.height] = facts.entry.image_path
    for facts in all_facts:
        if facts.two_greys:
            stem = PurePosixPath(facts.entry.image_path).stem
            cuts = [cut.span() for cut in re.finditer(r"[-_. ]", stem)]
            parts = [stem, *(stem[:start] for start, _ in cuts), *(stem[end:] for _, end in cuts)]
            twins = [pictures.get((part, facts.width, facts.height)) for part in parts]
            if any(twins):
                detail = f"of {next(filter(None, twins))}"
                yield Problem("looks like a mask", facts.entry.image_path, detail)

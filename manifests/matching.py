"""Which mask belongs to which image, by their names: by stem, never by order."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import PurePosixPath

from manifests.problems import Problem
from manifests.words import composed, mask_stems


def match_masks(
    images: dict[str, str], masks: dict[str, str], problems: list[Problem]
) -> dict[str, str | None]:
    """Give each image its mask, or None.

    Args:
        images: Image path -> key, which is the path without suffix below the image folder.
        masks: Mask path -> key likewise; a mask's key may end in `_mask`, `_label`, `_GT`, ..
        problems: Gets masks that fit no image, or more than one, and images with two masks.
    """
    by_key: dict[str, list[str]] = defaultdict(list)
    images = {image: composed(key) for image, key in images.items()}
    masks = {mask: composed(key) for mask, key in masks.items()}
    for mask, key in masks.items():
        for image_key in mask_keys(key):
            by_key[image_key].append(mask)
    matched: dict[str, str | None] = {}
    taken: dict[str, str] = {}
    for image, key in images.items():
        # The exact stem first, so that the result does not depend on the order of the files.
        candidates = sorted(by_key.get(key, ()), key=lambda mask: (masks[mask] != key, mask))
        if len(candidates) > 1:
            detail = f"two masks fit: {' and '.join(candidates[:2])}"
            problems.append(Problem("ambiguous mask", image, detail))
        matched[image] = candidates[0] if candidates else None
        for mask in candidates:
            if mask in taken:
                detail = f"fits two images: {taken[mask]} and {image}"
                problems.append(Problem("ambiguous mask", mask, detail))
            taken[mask] = image
    problems += [
        Problem("orphan mask", mask, "no image has this stem")
        for mask in masks
        if mask not in taken
    ]
    return matched


def mask_keys(key: str) -> list[str]:
    """Give the keys that an image may have whose mask has this key."""
    folder, slash, stem = key.rpartition("/")
    return [f"{folder}{slash}{image_stem}" for image_stem in mask_stems(stem)]


def masks_beside(files: Iterable[str], *, same_stem: bool = True) -> dict[str, str]:
    """Find masks that lie beside their images: `Part5_label.bmp` beside `Part5.jpg`.

    A mask has its image's stem and a suffix; or, beside a JPEG, the same stem and an ending without
    loss, and that it looks like a mask is checked when it is opened.

    Args:
        files: Paths of images and masks, mixed.
        same_stem: Whether masks of the same stem are looked for.

    Returns:
        Mask path -> image path.
    """
    by_key: dict[str, list[str]] = defaultdict(list)
    for path in files:
        by_key[composed(without_ending(path))].append(path)
    found: dict[str, str] = {}
    for key, paths in by_key.items():
        images = [path for image_key in mask_keys(key)[1:] for path in by_key.get(image_key, ())]
        jpegs = [path for path in paths if path.lower().endswith((".jpg", ".jpeg"))]
        if images:
            found.update(dict.fromkeys(paths, images[0]))
        elif same_stem and len(paths) == 2 and len(jpegs) == 1:
            found[next(path for path in paths if path not in jpegs)] = jpegs[0]
    # `1_mask_gt` beside `1_mask` beside `1`: a mask's own companion is no mask of an image.
    return {mask: image for mask, image in found.items() if image not in found}


def without_ending(path: str) -> str:
    """Give a path without the ending of its file name."""
    return PurePosixPath(path).with_suffix("").as_posix()


def by_name(paths: Iterable[str]) -> dict[str, str]:
    """Find paths by name in any case; where two differ in case alone, each by its own."""
    own = {composed(PurePosixPath(path).name): path for path in paths}
    return {**{name_key(path): path for path in own.values()}, **own}


def name_key(path: str) -> str:
    """Give the name of a path as names are compared, in any case."""
    return composed(PurePosixPath(path).name).casefold()

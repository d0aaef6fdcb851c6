"""Datasets laid out as `<category>/<split>/<class>/<image>`: MVTec AD and all that follow it.

What differs between them is one table, `TREES`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from manifests.listing import Listing
from manifests.lists import Entry
from manifests.matching import by_name, masks_beside, match_masks, name_key
from manifests.paths import NO_PICTURE, Folder
from manifests.schema import GOOD
from manifests.words import SPLIT_OF, composed, is_normal, without_mask_word


@dataclass(frozen=True, kw_only=True)
class Tree:
    """Where such a dataset keeps its parts; names are compared without regard to case."""

    test: str = "test"
    """Folder of the test split below a category; the others are `train` and `validation`."""
    classes: tuple[str, ...] = ()
    """The class folders of the test split, where they are always the same."""
    masks: str = "ground_truth"
    """Folder of masks below the category, with the class folders in it."""
    images: str = ""
    """Folder below a class that holds the images; empty where the class folder does."""
    masks_in_class: str = ""
    """Folder below a class that holds its masks, for sets that keep them there."""
    many_masks: bool = False
    """Whether an image's masks are a folder of their own, named by the image's stem."""
    left_out: tuple[str, ...] = ()
    """Folders below a category without labels of their own split."""


TREES: Final[dict[str, Tree]] = {
    "mvtec": Tree(),
    "visa": Tree(classes=("good", "bad")),
    "btad": Tree(classes=("ok", "ko")),
    "loco": Tree(many_masks=True),
    "mvtec-ad-2": Tree(
        test="test_public",
        classes=("good", "bad"),
        masks="test_public/ground_truth",
        left_out=("test_private", "test_private_mixed"),
    ),
    "mvtec-3d": Tree(images="rgb", masks_in_class="gt"),
    "bmad": Tree(
        classes=("good", "ungood"),
        images="img",
        masks_in_class="label",
        left_out=("valid",),
    ),
}


def list_tree(listing: Listing, layout: str, *, instead_of: str = "") -> list[Entry]:
    """List a dataset of the tree `layout`; `instead_of` only words an error."""
    tree = TREES[layout]
    entries: list[Entry] = []
    n_categories = 0
    categories = listing.folder("").folders
    listing.check_masks(categories)
    for category in categories:
        inside = listing.folder(category).folders
        if not {"train", tree.test} & {_name(path).casefold() for path in inside}:
            continue
        n_categories += 1
        found = _list_category(listing, tree, category, inside)
        if not found or _lacks_test(listing, tree, inside):
            missing = "test" if found else "+".join(listing.splits)
            listing.add("empty category", category, f"no image in {missing}")
        entries += found
    if n_categories == 0:
        expected = f"expected <category>/{tree.test}/<defect> folders"
        expected += f" or {instead_of}" if instead_of else ""
        if (listing.root / tree.test).is_dir():
            expected += "; this is one category: give the folder above it"
        listing.add("wrong layout", ".", expected + listing.this_looks_like(layout))
    return entries


def _lacks_test(listing: Listing, tree: Tree, inside: Sequence[str]) -> bool:
    names = {_name(path).casefold() for path in inside}
    return "test" in listing.splits and tree.test not in names


def _list_category(
    listing: Listing, tree: Tree, category: str, inside: Sequence[str]
) -> list[Entry]:
    masks = _class_masks(listing, tree, category, inside)
    entries: list[Entry] = []
    for path in inside:
        name = _name(path).casefold()
        split = "test" if name == tree.test else {**SPLIT_OF, "test": ""}.get(name)
        if name in tree.left_out:
            listing.add("no labels", path)
        elif name.startswith("test") and not split:
            detail = f"no folder of this layout{listing.this_looks_like()}"
            listing.add("wrong layout", path, detail)
        elif name.startswith("val") and not split:
            listing.add("other split", path)
        elif split in listing.splits:
            list_split = _list_train if split == "train" else _list_test
            entries += list_split(listing, tree, category, listing.folder(path), masks)
    return entries


def _list_train(
    listing: Listing, tree: Tree, category: str, listed: Folder, masks: Mapping[str, str]
) -> list[Entry]:
    # Some reorganised trees keep normal training images directly in train/.
    images = list(listed.images)
    for folder in listed.folders:
        inside = _images_of(listing, tree, folder)
        # "none" is said of the defects; what is trained on is good all the same.
        normal = [word for word in listing.reading.normal if word != "none"]
        if is_normal(_name(folder), normal):
            images += inside
        elif inside:
            listing.add("wrong layout", folder, "train holds good images only; --normal names them")
    return [Entry(category, "train", GOOD, image, None, 0) for image in images]


def _list_test(
    listing: Listing, tree: Tree, category: str, listed: Folder, masks: Mapping[str, str]
) -> list[Entry]:
    detail = "expected in test/good or test/<defect>"
    for image in listed.images:
        listing.add("stray image", image, detail)
    entries = []
    for folder in listed.folders:
        name = _name(folder)
        if _holds_masks(listing, tree, category, folder, masks):
            continue
        if tree.classes and name.casefold() not in tree.classes:
            detail = f"expected {' and '.join(tree.classes)}{listing.this_looks_like()}"
            listing.add("wrong layout", folder, detail)
            continue
        normal = is_normal(name, listing.reading.normal)
        defect = GOOD if normal else name
        images = {path: _stem(path) for path in _images_of(listing, tree, folder)}
        class_masks = _masks_of(listing, tree, folder, masks)
        matched = match_masks(images, class_masks, listing.problems)
        entries += [
            Entry(category, "test", defect, image, mask, int(not normal))
            for image, mask in matched.items()
        ]
    classes = {name_key(folder) for folder in listed.folders}
    for folder in sorted(set(masks.values())):
        if name_key(folder) not in classes:
            listing.add("orphan mask", folder, "no class of images has this name")
    return entries


def _holds_masks(
    listing: Listing, tree: Tree, category: str, folder: str, masks: Mapping[str, str]
) -> bool:
    """Tell whether a folder among the classes holds masks; a problem unless they belong there."""
    if folder.casefold() == f"{category}/{listing.masks or tree.masks}".casefold():
        return True
    # A class of its own masks, or where the user has named the masks, is a class by any name.
    is_class = listing.reading.masks is not None or composed(_name(folder)) in masks
    if is_class or without_mask_word(_name(folder)) is None:
        return False
    detail = "masks among the classes; --masks names those that are, `none` says that none are"
    listing.add("wrong layout", folder, detail)
    return True


def _class_masks(
    listing: Listing, tree: Tree, category: str, inside: Sequence[str]
) -> dict[str, str]:
    """Give the folder of masks of each class, by its name."""
    if tree.masks_in_class or listing.no_masks:
        return {}
    head, _, tail = (listing.masks or tree.masks).rpartition("/")
    above = by_name(inside).get(name_key(head)) if head else ""
    level = listing.folder(above).folders if above else () if head else inside
    named = by_name(level).get(name_key(tail))
    candidates = [named] if named else []
    if not candidates and listing.masks is None:
        candidates = [path for path in level if without_mask_word(_name(path)) == ""]
    if len(candidates) > 1:
        detail = f"two folders of masks: {' and '.join(candidates)}; --masks NAME names the one"
        listing.add("wrong layout", category, detail)
    if not candidates:
        return {}
    listed = listing.folder(candidates[0])
    for mask in listed.images[:1]:
        listing.add("wrong layout", mask, "expected masks in a folder for each class of images")
    return by_name(listed.folders)


def _images_of(listing: Listing, tree: Tree, folder: str) -> Sequence[str]:
    """Give the images of a class folder; what lies deeper than the layout says is a problem."""
    listed = listing.folder(folder)
    images = list(listed.images)
    if tree.images and images and f"/{tree.test}/" in folder.casefold():
        detail = f"expected in a folder {tree.images}{listing.this_looks_like()}"
        listing.add("wrong layout", images[0], detail)
    beside = {} if listing.no_masks else masks_beside(images, same_stem=False)
    for mask, image in beside.items():
        listing.add("looks like a mask", mask, f"of {image}, by its name")
    for inner in listed.folders:
        name = _name(inner).casefold()
        if name == tree.images:
            images += listing.folder(inner).images
        elif name != tree.masks_in_class and name != "xyz" and listing.folder(inner).images:
            detail = f"images below a class folder{listing.this_looks_like()}"
            listing.add("wrong layout", inner, detail)
    return images


def _masks_of(
    listing: Listing, tree: Tree, folder: str, masks: Mapping[str, str]
) -> dict[str, str]:
    """Give the masks of a class, path -> stem of the image."""
    if tree.masks_in_class:
        inner = by_name(listing.folder(folder).folders).get(tree.masks_in_class)
        return {} if inner is None else {m: _stem(m) for m in listing.folder(inner).images}
    found = masks.get(composed(_name(folder))) or masks.get(name_key(folder))
    if found is None:
        return {}
    listed = listing.folder(found)
    many = (listed.folders, listed.images)
    right, wrong = many if tree.many_masks else many[::-1]
    others = (*listed.unread, *listed.notes)
    if others and not right and not wrong:
        listing.add("wrong layout", others[0], NO_PICTURE)
    for path in wrong[:1]:
        kind = "a folder of masks" if tree.many_masks else "one mask"
        detail = f"expected {kind} for each image{listing.this_looks_like()}"
        listing.add("wrong layout", path, detail)
    if not tree.many_masks:
        return {path: _stem(path) for path in right}
    # Listing what is in each finds the links that lead away.
    return {path: _name(path) for path in right if listing.folder(path).images}


def _name(path: str) -> str:
    return PurePosixPath(path).name


def _stem(path: str) -> str:
    return PurePosixPath(path).stem

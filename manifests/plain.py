"""A plain folder of images, sorted into class folders or not, with masks or without.

Nothing says which folder holds what but the names, so this layout takes only what `manifests.words`
knows, tells what it understood, and refuses the rest; `--normal` and `--masks` settle it.

- Class folders: the first folder is the defect; good, ok, normal, no, pass, .. are normal.
- No class folders: an image is defective where its mask has something in it. Without any mask all
  count as good, with a warning.
- Masks: in folders called mask, gt, ground_truth, labels, .. at the same relative path and stem as
  their image; or beside their image, with a suffix (`1_mask.png`) or as the PNG beside a JPEG.
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from manifests.listing import Listing
from manifests.lists import Entry
from manifests.matching import mask_keys, masks_beside, match_masks
from manifests.paths import NO_PICTURE, Folder
from manifests.schema import GOOD
from manifests.words import SPLIT_OF, composed, is_normal, mask_stems, without_mask_word

IMAGE_FOLDERS: Final = ("images", "image", "imgs", "img")
"""Folders that only say that images are in them."""


@dataclass(frozen=True)
class _File:
    """A file and where it belongs: `mask/crack/0_mask.png` has key `crack/0_mask`."""

    path: str
    folders: tuple[str, ...]
    """Folders that mean something: classes, and what is below them."""
    is_mask: bool

    @property
    def key(self) -> str:
        return composed("/".join((*self.folders, PurePosixPath(self.path).stem)))


def list_plain_folder(listing: Listing) -> list[Entry]:
    """List a folder of images; all are `test` images of one category, named like the dataset."""
    if "test" not in listing.splits:
        listing.add("no images", ".", "a plain folder has only the split test")
        return []
    if _is_a_tree(listing):
        detail = "train/ and test/ folders look like MVTec AD; expected layout mvtec or visa"
        listing.add("wrong layout", ".", listing.this_looks_like("folder")[2:] or detail)
        return []
    listing.check_masks([""])
    folders = listing.below("")
    _check_mask_folders(listing, folders)
    files = [_file(listing, path) for path in sorted(p for f in folders for p in f.images)]
    beside = masks_beside(file.path for file in files if not file.is_mask)
    if listing.no_masks:
        beside = {}
    images = [file for file in files if not file.is_mask and file.path not in beside]
    images = _sorted_ones(listing, images)
    matched = _matched(listing, images, [file for file in files if file.is_mask], beside)
    _check_classes(listing, images)
    has_masks = any(matched.values())
    return [
        _entry(listing, image, matched[image.path], has_masks, bool(beside)) for image in images
    ]


def _check_mask_folders(listing: Listing, folders: list[Folder]) -> None:
    """Refuse folders of masks in which there is something, and nothing that is read."""
    for folder in folders:
        others = (*folder.unread, *folder.notes)
        if others and not folder.images and _file(listing, others[0]).is_mask:
            listing.add("wrong layout", others[0], NO_PICTURE)


def understood(entries: list[Entry]) -> str:
    """Say in one line what a folder was taken for."""
    counts = [
        f"{sum(entry.label == label for entry in entries)} {word}"
        for label, word in ((0, "normal"), (1, "defective"))
    ]
    open_ones = sum(entry.label is None for entry in entries)
    counts += [f"{open_ones} that their masks will tell"] if open_ones else []
    masked = [entry for entry in entries if entry.mask_path is not None]
    if not masked:
        return f"{', '.join(counts)}, no masks"
    pair = f"{masked[0].mask_path} is the mask of {masked[0].image_path}"
    masks = "1 mask" if len(masked) == 1 else f"{len(masked)} masks"
    return f"{', '.join(counts)}, {masks}: {pair}"


def _is_a_tree(listing: Listing) -> bool:
    top = _folder_names(listing.root)
    inner = [name for folder in top for name in _folder_names(listing.root / folder)]
    return any(name.casefold() in (*SPLIT_OF, "test_public") for name in top + inner)


def _folder_names(folder: Path) -> list[str]:
    try:
        return [inner.name for inner in folder.iterdir() if inner.is_dir()]
    except OSError:
        return []  # named when its images are listed


def _file(listing: Listing, path: str) -> _File:
    if listing.masks is not None:
        start = f"{listing.masks}/"
        folders = PurePosixPath(path.removeprefix(start)).parts[:-1]
        return _File(path, _meaningful(folders), path.startswith(start))
    folders = PurePosixPath(path).parts[:-1]
    rests = [None if listing.no_masks else without_mask_word(folder) for folder in folders]
    is_mask = any(rest is not None for rest in rests)
    left = [folder if rest is None else rest for folder, rest in zip(folders, rests, strict=True)]
    return _File(path, _meaningful(left), is_mask)


def _meaningful(folders: list[str] | tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in folders if name and name.casefold() not in IMAGE_FOLDERS)


def _sorted_ones(listing: Listing, images: list[_File]) -> list[_File]:
    """Leave out images beside class folders, where there are any."""
    if not any(image.folders for image in images):
        return images
    for image in images:
        if not image.folders:
            listing.add("stray image", image.path, "there are class folders, and it is in none")
    return [image for image in images if image.folders]


def _matched(
    listing: Listing, images: list[_File], masks: list[_File], beside: dict[str, str]
) -> dict[str, str | None]:
    """Give each image its mask."""
    keys = {image.path: image.key for image in images}
    known = {mask: keys[image] for mask, image in beside.items() if image in keys}
    taken = set(keys.values())
    by_stem: dict[str, list[_File]] = defaultdict(list)
    for image in images:
        by_stem[composed(PurePosixPath(image.path).stem)].append(image)
    for mask in masks:
        if mask.folders or taken.intersection(mask_keys(mask.key)):
            known[mask.path] = mask.key
        else:
            known.update(_flat_mask(listing, mask, by_stem))
    matched = match_masks(keys, known, listing.problems)
    if known and not any(matched.values()):
        listing.add("ambiguous mask", next(iter(known)), "no mask fits an image by its name")
    return matched


def _flat_mask(listing: Listing, mask: _File, by_stem: dict[str, list[_File]]) -> dict[str, str]:
    """Give mask path -> key of its image, for masks that lie flat while images are in classes."""
    fitting = [image for stem in mask_stems(mask.key) for image in by_stem.get(stem, ())]
    # Good images need no mask, so one of a defective image with the same stem comes first.
    fitting = [image for image in fitting if not _is_normal(listing, image)] or fitting
    if len(fitting) > 1:
        detail = f"fits {fitting[0].path} and {fitting[1].path}; sort masks into the classes, too"
        listing.add("ambiguous mask", mask.path, detail)
        return {}
    return {mask.path: fitting[0].key if fitting else mask.key}


def _is_normal(listing: Listing, image: _File) -> bool:
    return is_normal(image.folders[0], listing.reading.normal) if image.folders else True


def _entry(
    listing: Listing, image: _File, mask: str | None, has_masks: bool, beside: bool
) -> Entry:
    dataset = listing.dataset
    if image.folders:
        label = int(not _is_normal(listing, image))
        if label and mask is None and beside:
            detail = f"no mask beside it, others have one{listing.this_looks_like('folder')}"
            listing.add("ambiguous mask", image.path, detail)
        elif label and mask is None and has_masks:
            listing.add("missing mask", image.path, "other images have one")
        return Entry(dataset, "test", image.folders[0] if label else GOOD, image.path, mask, label)
    if mask is None:
        if not has_masks:
            listing.add("unlabelled", image.path)
        return Entry(dataset, "test", GOOD, image.path, None, 0)
    return Entry(dataset, "test", "defect", image.path, mask, None)


def _check_classes(listing: Listing, images: list[_File]) -> None:
    """Refuse class folders of which none is normal, or where normal ones lie deeper."""
    normal = listing.reading.normal
    classes = {image.folders[0] for image in images if image.folders}
    for image in images:
        deeper = [name for name in image.folders[1:] if is_normal(name, normal)]
        if deeper and not _is_normal(listing, image):
            detail = f"{deeper[0]} below {image.folders[0]}: give the folder above {deeper[0]}"
            listing.add("wrong layout", image.path, f"{detail}, one category at a time")
            return
    if "none" in normal:
        return
    for name in normal:
        if not any(is_normal(folder, (name,)) for folder in classes):
            listing.add("no good folder", name, "named by --normal, and there is no such folder")
    if classes and not any(is_normal(folder, normal) for folder in classes):
        hint = listing.this_looks_like("folder").removeprefix("; ")
        for folder in sorted(classes):
            listing.add("no good folder", folder, hint)

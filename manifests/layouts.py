"""Which images a dataset holds: one function a layout, no pixel decoded.

Every function lists all it can and adds what it cannot use to `problems`. Masks are matched to
images by stem, never by order: `000.png` goes with `000.png` or `000_mask.png`.

| layout | tree | defect | label |
|---|---|---|---|
| mvtec | `<cat>/{train/good,test/<defect>,ground_truth/<defect>}` | folder | 0 for good |
| visa, raw | `split_csv/1cls.csv`: object,split,label,image,mask | bad | label column |
| visa, reorganised | as mvtec, with `test/{good,bad}` | folder | 0 for good |
| meta | `meta.json`: `{split: {category: [{img_path, mask_path, specie_name, anomaly}]}}` | \
specie_name | anomaly |
| folder | see `list_plain_folder` | class folder | 0 for good, normal, ok |

Raw VisA calls its defects `bad` as the reorganised tree does, so that both give the same rows in
the same order, and with that the same cache key.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from manifests.lists import Entry, list_meta_json, list_visa_csv
from manifests.paths import Folder, list_folder, walk_images
from manifests.problems import LAYOUTS, Layout, Problem
from manifests.schema import GOOD, SPLITS
from spg_core.errors import ConfigError

VISA_CSV: Final = "split_csv/1cls.csv"
META_JSON: Final = "meta.json"
GOOD_FOLDERS: Final = (GOOD, "normal", "ok")
"""Class folders of a plain folder that hold normal images, in lower case."""
MASK_FOLDERS: Final = frozenset({"masks", "ground_truth"})


def list_entries(
    root: Path, *, layout: Layout, split: str, dataset: str, problems: list[Problem]
) -> list[Entry]:
    """List a dataset's images, sorted by category, split, defect and path.

    Args:
        root: The dataset root.
        layout: How it is laid out.
        split: `train`, `test` or `all`.
        dataset: The category of a plain folder, which has no other.
        problems: Gets everything that cannot be used.

    Raises:
        ConfigError: An unknown layout or split.
    """
    splits = splits_of(split)
    match layout:
        case "mvtec":
            entries = list_tree(root, splits, problems)
        case "visa" if (root / VISA_CSV).exists():
            entries = list_visa_csv(root, VISA_CSV, splits, problems)
        case "visa":
            entries = list_tree(root, splits, problems, instead_of=VISA_CSV)
        case "meta":
            entries = list_meta_json(root, META_JSON, splits, problems)
        case "folder":
            entries = list_plain_folder(root, splits, dataset, problems)
        case _:
            raise ConfigError(f"unknown layout {layout!r}; expected one of {', '.join(LAYOUTS)}")
    return sorted(entries, key=Entry.order)


def splits_of(split: str) -> tuple[str, ...]:
    """Give the splits that an option value names.

    Raises:
        ConfigError: Neither `train`, `test` nor `all`.
    """
    if split == "all":
        return SPLITS
    if split in SPLITS:
        return (split,)
    raise ConfigError(f"unknown split {split!r}; expected train, test or all")


def list_tree(
    root: Path, splits: Sequence[str], problems: list[Problem], *, instead_of: str = ""
) -> list[Entry]:
    """List MVTec AD's tree, which reorganised VisA shares; `instead_of` only words an error."""
    entries: list[Entry] = []
    categories = []
    for category in list_folder(root, "", problems).folders:
        inside = list_folder(root, category, problems).folders
        if not {f"{category}/{split}" for split in SPLITS} & set(inside):
            continue
        categories.append(category)
        masks = _list_tree_masks(root, category, inside, problems)
        found: list[Entry] = []
        for split in splits:
            if f"{category}/{split}" in inside:
                found += _list_tree_split(root, category, split, masks, problems)
        if not found:
            problems.append(Problem("empty category", category, f"no image in {'+'.join(splits)}"))
        entries += found
    if not categories:
        expected = "expected <category>/test/<defect> folders"
        expected += f" or {instead_of}" if instead_of else ""
        if (root / "test").is_dir():
            expected += "; this is one category: give the folder above it"
        problems.append(Problem("wrong layout", ".", expected))
    return entries


def _list_tree_masks(
    root: Path, category: str, inside: Sequence[str], problems: list[Problem]
) -> dict[str, tuple[str, ...]]:
    """Give the masks of each defect."""
    mask_root = f"{category}/ground_truth"
    if mask_root not in inside:
        return {}
    folders = list_folder(root, mask_root, problems).folders
    return {_name(folder): list_folder(root, folder, problems).images for folder in folders}


def _list_tree_split(
    root: Path,
    category: str,
    split: str,
    masks: dict[str, tuple[str, ...]],
    problems: list[Problem],
) -> list[Entry]:
    listed = list_folder(root, f"{category}/{split}", problems)
    if split == "train":
        return _list_tree_train(root, category, listed, problems)
    detail = "expected in test/good or test/<defect>"
    problems += [Problem("stray image", image, detail) for image in listed.images]
    entries = []
    for folder in listed.folders:
        defect = _name(folder)
        images = {path: _stem(path) for path in list_folder(root, folder, problems).images}
        defect_masks = {path: _stem(path) for path in masks.get(defect, ())}
        matched = match_masks(images, defect_masks, problems)
        label = int(defect != GOOD)
        entries += [Entry(category, split, defect, i, m, label) for i, m in matched.items()]
    return entries


def _list_tree_train(
    root: Path, category: str, listed: Folder, problems: list[Problem]
) -> list[Entry]:
    # Some reorganised trees keep normal training images directly in train/.
    images = list(listed.images)
    for folder in listed.folders:
        inside = list_folder(root, folder, problems).images
        if _name(folder) == GOOD:
            images += inside
        elif inside:
            problems.append(Problem("wrong layout", folder, "train holds good images only"))
    return [Entry(category, "train", GOOD, image, None, 0) for image in images]


def list_plain_folder(
    root: Path, splits: Sequence[str], dataset: str, problems: list[Problem]
) -> list[Entry]:
    """List a folder of images; all are `test` images of one category, named like the dataset.

    Images are in `root/images` if that exists, else in `root`. Masks, if any, are in `root/masks`
    or `root/ground_truth`, at the same relative path and stem as their image.

    - Images in subfolders: the first subfolder is the defect; good, normal and ok are normal.
    - Images without a subfolder: defective where the mask has something in it. If there is no mask
      folder at all, they count as good, with a warning.
    """
    if "test" not in splits:
        problems.append(Problem("no images", ".", "a plain folder has only the split test"))
        return []
    top = list_folder(root, "", problems).folders
    if any(name in ("train", "test") or _holds_tree(root, name) for name in top):
        detail = "train/ and test/ folders look like MVTec AD; expected layout mvtec or visa"
        problems.append(Problem("wrong layout", ".", detail))
        return []
    base = "images" if "images" in top else ""
    mask_folders = sorted(MASK_FOLDERS & set(top))
    images = {
        image: _key(image, base) for image in walk_images(root, base, problems, skip=MASK_FOLDERS)
    }
    masks = {
        mask: _key(mask, folder)
        for folder in mask_folders
        for mask in walk_images(root, folder, problems)
    }
    matched = match_masks(images, masks, problems)
    entries = [
        _plain_entry(image, mask, images[image], dataset, bool(masks), problems)
        for image, mask in matched.items()
    ]
    _check_classes(entries, problems)
    return entries


def match_masks(
    images: dict[str, str], masks: dict[str, str], problems: list[Problem]
) -> dict[str, str | None]:
    """Give each image its mask, or None.

    Args:
        images: Image path -> key, which is the path without suffix below the image folder.
        masks: Mask path -> key likewise; a mask's key may end in `_mask`.
        problems: Gets masks that fit no image, or more than one, and images with two masks.
    """
    by_key: dict[str, list[str]] = defaultdict(list)
    for mask, key in masks.items():
        by_key[key].append(mask)
    matched: dict[str, str | None] = {}
    taken: dict[str, str] = {}
    for image, key in images.items():
        candidates = by_key.get(key, []) + by_key.get(f"{key}_mask", [])
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


def _plain_entry(
    image: str, mask: str | None, key: str, dataset: str, has_masks: bool, problems: list[Problem]
) -> Entry:
    folder, slash, _ = key.partition("/")
    if slash:
        label = int(folder.lower() not in GOOD_FOLDERS)
        if label and mask is None and has_masks:
            problems.append(Problem("missing mask", image, "other images have one"))
        return Entry(dataset, "test", folder if label else GOOD, image, mask, label)
    if mask is None:
        if not has_masks:
            problems.append(Problem("unlabelled", image))
        return Entry(dataset, "test", GOOD, image, None, 0)
    return Entry(dataset, "test", "defect", image, mask, None)


def _check_classes(entries: Iterable[Entry], problems: list[Problem]) -> None:
    entries = list(entries)
    if entries and all(entry.label == 1 for entry in entries):
        problems += [
            Problem("no good folder", defect)
            for defect in sorted({entry.defect for entry in entries})
        ]


def _holds_tree(root: Path, folder: str) -> bool:
    return (root / folder / "test").is_dir() and (root / folder / "ground_truth").is_dir()


def _name(path: str) -> str:
    return PurePosixPath(path).name


def _stem(path: str) -> str:
    return PurePosixPath(path).stem


def _key(path: str, folder: str) -> str:
    below = PurePosixPath(path).relative_to(folder) if folder else PurePosixPath(path)
    return below.with_suffix("").as_posix()

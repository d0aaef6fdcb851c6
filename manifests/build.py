"""Walk a dataset, open every image and mask once, and make its manifest.

Which problem is an error and which a warning is the table at the top of `manifests.problems`.
Decoding runs in threads: Pillow gives up the interpreter lock while it decodes and so does hashlib
while it hashes, and threads, unlike forked processes, are safe beside a loaded torch.
"""

import hashlib
import os
import re
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pyarrow as pa

from manifests.across import across, relevant
from manifests.examine import Examined, Facts, Keep, examine
from manifests.guess import but_looks_like, looks_like, looks_like_below
from manifests.layouts import first_of_each, layout_named, list_entries
from manifests.listing import Reading
from manifests.lists import Entry
from manifests.named_paths import NAMED
from manifests.plain import understood
from manifests.problems import Layout, Problem, printable, settle
from manifests.schema import MAX_ROWS, schema_for
from manifests.table import Manifest
from spg_core.ahead import in_order
from spg_core.errors import ConfigError, DatasetError

_AHEAD = 16
"""Images a thread may be ahead of the one whose turn it is."""
DATASET_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
"""Names of datasets are folder names in the store, on every file system and in S3 alike."""


@dataclass(frozen=True)
class BuiltManifest:
    """A manifest and what is odd about its dataset."""

    manifest: Manifest
    warnings: tuple[str, ...]
    """One line a kind of oddity, with its count and the files' names."""


def build_manifest(
    root: Path,
    *,
    layout: Layout,
    dataset: str,
    split: str,
    workers: int,
    progress: Callable[[int, int], None] | None = None,
    thumbnails: bool = False,
    exif: bool = False,
    reading: Reading | None = None,
    announce: Callable[[str], None] | None = None,
    keep: Keep | None = None,
) -> BuiltManifest:
    """Build the manifest of a dataset on disk.

    The same files give the same rows, wherever they are and however many workers look at them.

    Args:
        root: Folder of the dataset; paths in the manifest are relative to it.
        layout: A name of `manifests.problems.LAYOUTS`.
        dataset: Name that the dataset gets in the store.
        split: `train`, `test` or `all`.
        workers: Threads that decode, 1 or more.
        progress: Called in this thread after each image with (images done, images in all).
        thumbnails: Add the thumbnail column.
        exif: Turn images as their EXIF orientation says; masks must fit the turned image.
        reading: What the user corrects about the layout, and what to leave out.
        announce: Told in one line, before an image is opened, what a plain folder was taken for.
        keep: Given each image as it was decoded, so that nobody need decode it again.

    Raises:
        ConfigError: An unknown layout or split, a dataset name unfit for a folder, no worker.
        DatasetError: The dataset cannot be used; lists every problem found.
    """
    _check(dataset, workers)
    reading = reading or Reading()
    problems: list[Problem] = []
    entries = _listed(root, layout, split, dataset, problems, reading)
    if announce is not None and layout == "folder" and entries:
        announce(understood(entries))
    all_facts: list[Facts] = []
    look = partial(examine, root=root, exif=exif, thumbnails=thumbnails, keep=keep)
    # Closing matters: after an interrupt the pool must drop what it has not begun.
    with closing(_examine_all(entries, workers, look)) as results:
        for done, examined in enumerate(results, 1):
            facts, found = _kept(examined, reading)
            all_facts += facts
            problems += found
            if progress is not None:
                progress(done, len(entries))
    # Again, because the mask has settled what some layouts leave open.
    all_facts = _limited(sorted(all_facts, key=lambda facts: facts.entry.order()), reading)
    problems = [*relevant(problems, layout, all_facts), *across(all_facts, layout, reading)]
    left_out = sorted({problem.path for problem in problems if problem.kind == "left out"})
    if entries and left_out and not all_facts:
        problems.append(Problem("no images", ".", "all are broken"))
    warnings = settle(problems, layout, root)
    table = _table(all_facts, dataset, thumbnails=thumbnails, left_out=left_out)
    return BuiltManifest(Manifest(table), warnings)


def _check(dataset: str, workers: int) -> None:
    if not re.fullmatch(DATASET_NAME, dataset):
        raise ConfigError(
            f"dataset name {dataset!r} is unfit for a folder: expected up to 64 letters, digits, "
            f"'.', '_' or '-', the first a letter or digit"
        )
    if workers < 1:
        raise ConfigError(f"workers must be 1 or more, got {workers}")


def _kept(examined: Examined, reading: Reading) -> tuple[list[Facts], Sequence[Problem]]:
    """Give what is known of an image, unless it or its mask is broken and may be left out."""
    broken = [problem for problem in examined.problems if problem.kind == "undecodable"]
    if reading.skip_broken and broken:
        return [], [replace(problem, kind="left out") for problem in broken]
    return ([] if examined.facts is None else [examined.facts]), examined.problems


def fingerprint_files(
    root: Path, layout: Layout, split: str, reading: Reading | None = None
) -> str:
    """Digest the listing of a dataset, so that an unchanged one is recognised without decoding.

    Covers what the layout says of each image, what the user corrects, and size and times of
    each image and mask. Equal fingerprints of one folder mean that nothing was touched; a
    copy of the dataset has other times and so another fingerprint, though its manifest is the same.

    Returns:
        64 hex digits.

    Raises:
        ConfigError: An unknown layout or split.
        DatasetError: The listing itself shows an error.
    """
    reading = reading or Reading()
    problems: list[Problem] = []
    entries = _listed(root, layout, split, "dataset", problems, reading)
    settle(problems, layout, root)
    digest = hashlib.sha256(f"{layout} {split} {reading}\n".encode("utf-8", "surrogateescape"))
    for entry in entries:
        digest.update(repr(entry).encode())
        for path in (entry.image_path, entry.mask_path):
            if path is not None:
                digest.update(_stamp(root / path).encode())
    return digest.hexdigest()


def _listed(
    root: Path,
    layout: Layout,
    split: str,
    dataset: str,
    problems: list[Problem],
    reading: Reading,
) -> list[Entry]:
    """List the entries; a listing without any is a problem of its own."""
    layout = layout_named(layout)
    shown = printable(str(root))
    if not os.path.isdir(root):  # noqa: PTH112 (any name is fine)
        raise DatasetError(f"{shown}: no such folder; --root names the folder of the dataset")
    entries = list_entries(
        root, layout=layout, split=split, dataset=dataset, problems=problems, reading=reading
    )
    if reading.skip_broken:
        missing = [p for p in problems if p.kind == "missing file" and p.detail.startswith(NAMED)]
        problems[:] = [p for p in problems if p not in missing]
        problems += [replace(problem, kind="left out") for problem in missing]
    if len(entries) > MAX_ROWS:
        raise DatasetError(f"{shown}: {len(entries)} images are more than the limit of {MAX_ROWS}")
    if not entries and not any(problem.kind == "no images" for problem in problems):
        broken_list = any(problem.kind == "unusable list" for problem in problems)
        found = None if broken_list else looks_like(root)
        below = "" if broken_list or found else looks_like_below(root)
        hint = but_looks_like(found, layout) + below
        detail = f"none in split {split} of layout {layout}{hint}"
        problems.append(Problem("no images", ".", detail))
    return entries


def _examine_all(
    entries: list[Entry], workers: int, look: Callable[[Entry], Examined]
) -> Generator[Examined, None, None]:
    """Yield what is found in the order of the entries."""
    with ThreadPoolExecutor(workers) as pool:
        yield from in_order(pool, look, entries, _AHEAD * workers)


def _limited(all_facts: list[Facts], reading: Reading) -> list[Facts]:
    if reading.limit is None:
        return all_facts
    kept = {entry.image_path for entry in first_of_each([f.entry for f in all_facts], reading)}
    return [facts for facts in all_facts if facts.entry.image_path in kept]


def _stamp(path: Path) -> str:
    try:
        if path.is_dir():
            return "".join(_stamp(inner) for inner in sorted(path.iterdir()))
        status = path.stat()
    except OSError as error:
        shown = printable(str(path))
        raise DatasetError(f"{shown}: cannot be read ({error.strerror or error})") from error
    # the time of change too: programs set that of modification back (touch, rsync -t, unzip)
    return f" {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}\n"


def _table(
    all_facts: list[Facts], dataset: str, *, thumbnails: bool, left_out: list[str]
) -> pa.Table:
    columns: dict[str, list[object]] = {
        "image_id": [facts.image_id for facts in all_facts],
        "dataset": [dataset] * len(all_facts),
        "category": [facts.entry.category for facts in all_facts],
        "split": [facts.entry.split for facts in all_facts],
        "defect": [facts.entry.defect for facts in all_facts],
        "label": [facts.entry.label for facts in all_facts],
        "image_path": [facts.entry.image_path for facts in all_facts],
        "mask_path": [facts.entry.mask_path for facts in all_facts],
        "mask_id": [facts.mask_id for facts in all_facts],
        "width": [facts.width for facts in all_facts],
        "height": [facts.height for facts in all_facts],
        "mask_pixels": [facts.mask_pixels for facts in all_facts],
        "row": list(range(len(all_facts))),
    }
    if thumbnails:
        columns["thumbnail"] = [facts.thumbnail for facts in all_facts]
    return pa.table(columns, schema=schema_for(thumbnails=thumbnails, left_out=left_out))

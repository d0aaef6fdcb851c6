"""The end of an extraction: publish manifest and record, or say why they do not fit."""

import pyarrow as pa

from cache.layout import MANIFEST
from cache.writer import CacheWriter
from manifests.schema import THUMBNAIL
from manifests.table import Manifest, manifest_from_bytes, manifest_to_bytes
from pipeline.machine.versions import library_versions
from pipeline.terminal.progress import say
from spg_core.errors import ManifestDiffers

_NAMED = 5


def finish(writer: CacheWriter, manifest: Manifest, seconds: float, device: str) -> None:
    """Publish manifest and record; explain a cache whose labels or masks are not ours.

    A manifest with the same rows but other bytes (another version of the Parquet library made it)
    is taken as it is.

    Raises: ManifestDiffers, IncompleteCache, StoreError.
    """
    data = manifest_to_bytes(manifest)
    name = f"{writer.folder}/{MANIFEST}"
    if writer.objects.size(name) is not None:
        stored = writer.objects.get(name)
        theirs = manifest_from_bytes(stored, f"{writer.objects.where}/{name}").table
        ours = manifest.table
        if (THUMBNAIL.name in theirs.column_names) != (THUMBNAIL.name in ours.column_names):
            has = "has" if THUMBNAIL.name in theirs.column_names else "has no"
            say(f"remark: the cache {has} thumbnails, and stays so; it is written once")
            theirs, ours = _without_thumbnails(theirs), _without_thumbnails(ours)
        change = describe_change(theirs, ours)
        if change is not None:
            raise ManifestDiffers(
                f"{writer.where} holds tokens of the same images, but {change}. A cache is written "
                f"once: use it as it is, or remove it with `spg-pipe cache gc --remove "
                f"{writer.key} --delete` and extract again"
            )
        data = stored
    timings = {"seconds": round(seconds, 3), "device": device}
    writer.finish(data, versions=library_versions(), timings=timings)


def _without_thumbnails(table: pa.Table) -> pa.Table:
    return table.select([name for name in table.column_names if name != THUMBNAIL.name])


def describe_change(stored: pa.Table, ours: pa.Table) -> str | None:
    """Say in which column two manifests of the same images differ; None where they do not."""
    if stored.column_names != ours.column_names:
        more = sorted(set(stored.column_names) ^ set(ours.column_names))
        return f"its manifest and yours do not both have the column {', '.join(more)}"
    for name in ours.column_names:
        pairs = zip(stored[name].to_pylist(), ours[name].to_pylist(), strict=True)
        rows = [row for row, (theirs, mine) in enumerate(pairs) if theirs != mine]
        if rows:
            image = ours["image_path"][rows[0]].as_py()
            return f"{name} is another one for {len(rows)} of them (first {image})"
    return None


def warn_of_vanished(vanished: list[str], height: int, width: int) -> None:
    """Count and name defects that are too small for the model's input size."""
    if vanished:
        named = sorted(vanished)[:_NAMED]
        names = ", ".join(named) + (" ..." if len(vanished) > _NAMED else "")
        say(
            f"warning: {len(vanished)} defects vanish at {height} x {width} pixels and stay "
            f"without a defective pixel: {names}"
        )

"""What an extraction is about to do, said before it starts: caches, images, bytes, time."""

from collections.abc import Sequence
from functools import partial

from cache.space import check_free_space
from cache.writer import CacheWriter
from pipeline.extraction.maker import ShardMaker
from pipeline.extraction.shards import seconds_an_image
from pipeline.terminal.printable import counted
from pipeline.terminal.progress import human_bytes, human_seconds, say
from pipeline.workers.work import Workers


def announce(
    workers: Workers[ShardMaker],
    writers: Sequence[CacheWriter],
    pending: Sequence[Sequence[int]],
    device: str,
) -> None:
    """Say what is about to happen, over all caches. Raises: StoreError where it cannot end."""
    for writer in writers:
        geometry = writer.geometry
        height, width = geometry.mask_size or (0, 0)
        say(
            f"{writer.where}\n{counted(geometry.n_images, 'image')} of {height} x {width} -> "
            f"{geometry.tokens_per_image} tokens of {geometry.d_model}: "
            f"{human_bytes(writer.estimated_bytes)}"
        )
    n_images, n_pending = writers[0].geometry.n_images, n_images_of(writers, pending)
    if n_pending < n_images:
        there = counted(n_images - n_pending, "image is", "images are")
        say(f"{there} there already; {n_pending} to go")
    check_free_space(writers)
    writers[0].objects.check_writable()
    seconds, n_workers = _seconds(workers, writers, pending)
    on = device if workers.opened is not None else f"{n_workers} workers, {device}"
    say(f"about {human_seconds(seconds)} on {on}")


def _seconds(
    workers: Workers[ShardMaker],
    writers: Sequence[CacheWriter],
    pending: Sequence[Sequence[int]],
) -> tuple[float, int]:
    """Estimate the time of all forward passes, and count the workers that share it.

    Images that lack the same caches take the same time, which is measured once for each such kind.
    """
    images: dict[tuple[int, ...], int] = {}
    for shard, caches in lacking_by_shard(pending).items():
        images[caches] = images.get(caches, 0) + len(writers[0].shard_rows(shard))
    alone: dict[str, float] = {}
    for caches, n_images in images.items():
        for address, seconds in workers.ask_all(partial(seconds_an_image, caches=caches)).items():
            alone[address] = alone.get(address, 0.0) + n_images * seconds
    return 1 / sum(1 / seconds for seconds in alone.values()), len(alone)


def lacking_by_shard(pending: Sequence[Sequence[int]]) -> dict[int, tuple[int, ...]]:
    """Turn the shards that each cache lacks into the caches that lack each shard, in order."""
    shards = sorted({shard for of_cache in pending for shard in of_cache})
    return {
        shard: tuple(cache for cache, lacks in enumerate(pending) if shard in lacks)
        for shard in shards
    }


def n_images_of(writers: Sequence[CacheWriter], pending: Sequence[Sequence[int]]) -> int:
    """Count the images that some cache lacks."""
    return sum(len(writers[0].shard_rows(shard)) for shard in lacking_by_shard(pending))


def named(writers: Sequence[CacheWriter]) -> str:
    """Name what is extracted, for a bar: the backbones, and how many caches if several."""
    names = ", ".join(dict.fromkeys(writer.folder.split("/")[2] for writer in writers))
    return names if len(writers) == 1 else f"{len(writers)} caches of {names}"

"""Fill a cache: have every shard that is not there yet made, here or by workers, then finish it.

The key, and whether anything can start at all, come from those who do the work: a process that asks
workers needs neither the weights nor a GPU.
"""

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from time import perf_counter

from cache.key import explain_difference
from cache.objects import Objects
from cache.writer import CacheWriter
from manifests.files import read_bytes
from manifests.schema import THUMBNAIL
from manifests.table import Manifest
from pipeline.backbones.spec import BackboneSpec
from pipeline.configs import ClusterConfig, ExtractConfig
from pipeline.extraction.finish import finish, warn_of_vanished
from pipeline.extraction.masks import require_masks
from pipeline.extraction.shards import (
    AT_ONCE,
    Shard,
    ShardMaker,
    describe,
    has_receipt,
    make_shard,
    open_extract_job,
    open_writer,
    seconds_an_image,
)
from pipeline.progress import bar, counting, human_bytes, human_seconds, say
from pipeline.work import Workers, open_workers
from spg_core.errors import ClusterError, DatasetError

_SAMPLED_IMAGES = 3


@dataclass(frozen=True)
class Filled:
    """What a run wrote: the cache, and how many shards of it."""

    key: str
    path: str
    n_images: int
    n_shards: int


def fill_cache(
    store: Objects,
    config: ExtractConfig,
    cluster: ClusterConfig,
    checked: Callable[[], Manifest],
) -> Filled:
    """Make a cache whole.

    Args:
        store: where it goes.
        config: what it holds.
        cluster: who computes it.
        checked: gives the manifest, which may take minutes; asked for when the model is loaded.

    Raises: BackboneError, DatasetError, StoreError, ClusterError: what is wrong and what to do.
    """
    job = config if cluster.is_here else _for_workers(config)
    with open_workers(store, cluster, open_extract_job, job, at_once=AT_ONCE) as workers:
        spec, device = _agreed(workers.ask_all(describe))
        manifest = checked()
        if workers.opened is None:
            workers.ask_all(partial(require_images, samples=_samples(manifest)))
        writer = open_writer(store, config, manifest, spec)
        with counting("Checking what is there") as progress:
            pending = writer.pending_shards(progress)
        if pending:
            _announce(workers, writer, pending, device)
        start = perf_counter()
        made = _make(workers, writer, manifest, pending, spec.name) if pending else set()
        seconds = perf_counter() - start
    if writer.state() != "complete":
        theirs = [shard for shard in range(writer.geometry.n_shards) if shard not in made]
        require_masks(writer, manifest, theirs, spec, config)
    helpers = "" if cluster.is_here else f", {len(workers.addresses)} workers"
    finish(writer, manifest, seconds, device + helpers)
    return Filled(writer.key, writer.where, manifest.n_images, len(pending))


def _for_workers(config: ExtractConfig) -> ExtractConfig:
    """Name files so that they do not depend on the folder a worker was started in."""
    weights = str(Path(config.weights).absolute()) if config.weights else None
    return replace(config, root=str(Path(config.root).absolute()), weights=weights)


def _agreed(answers: dict[str, tuple[BackboneSpec, str]]) -> tuple[BackboneSpec, str]:
    """Give what all workers say; refuse workers that would make different tokens."""
    (first, (spec, device)), *others = answers.items()
    for address, (other, _) in others:
        differences = explain_difference(spec.covers(), other.covers())
        if differences:
            raise ClusterError(
                f"workers {first} and {address} would make different tokens: "
                f"{'; '.join(differences)}. Start workers of one kind, or name the choice, such "
                "as --compute-dtype"
            )
    return spec, device


def _samples(manifest: Manifest) -> tuple[tuple[str, str], ...]:
    """Choose images from the start, the middle and the end: path in the root, and SHA-256."""
    last = manifest.n_images - 1
    rows = sorted({last * i // max(1, _SAMPLED_IMAGES - 1) for i in range(_SAMPLED_IMAGES)})
    table = manifest.select(rows)
    paths, ids = table["image_path"].to_pylist(), table["image_id"].to_pylist()
    return tuple((str(path), str(image_id)) for path, image_id in zip(paths, ids, strict=True))


def require_images(maker: ShardMaker, samples: tuple[tuple[str, str], ...]) -> None:
    """In a worker: see that some images are the same here. Raises: DatasetError."""
    for path, image_id in samples:
        here = Path(maker.config.root) / path
        if sha256(read_bytes(here)).hexdigest() != image_id:
            raise DatasetError(
                f"{here} is another image here than where the extraction was started"
            )


def _announce(
    workers: Workers[ShardMaker], writer: CacheWriter, pending: list[int], device: str
) -> None:
    """Say what is about to happen: images, tokens, bytes, time. Raises: StoreError."""
    geometry = writer.geometry
    height, width = geometry.mask_size or (0, 0)
    say(
        f"{writer.where}\n{geometry.n_images} images of {height} x {width} -> "
        f"{geometry.tokens_per_image} tokens of {geometry.d_model}: "
        f"{human_bytes(writer.estimated_bytes)}"
    )
    n_pending = _n_images(writer, pending)
    if n_pending < geometry.n_images:
        say(f"{geometry.n_images - n_pending} images are there already; {n_pending} to go")
    writer.check_free_space()
    writer.objects.check_writable()
    rates = [1 / seconds for seconds in workers.ask_all(seconds_an_image).values()]
    on = device if workers.opened is not None else f"{len(rates)} workers, {device}"
    say(f"about {human_seconds(n_pending / sum(rates))} on {on}")


def _make(
    workers: Workers[ShardMaker],
    writer: CacheWriter,
    manifest: Manifest,
    pending: list[int],
    name: str,
) -> set[int]:
    """Have the pending shards made, and warn of defects that vanished; give those made by us."""
    made: set[int] = set()
    vanished: list[str] = []
    with bar(f"Extracting {name}", _n_images(writer, pending)) as advance:
        if workers.opened is not None:
            workers.opened.advance = advance  # batch by batch, not shard by shard
        shards = _shards(writer, manifest, pending)
        handles = (workers.submit(make_shard, writer, shard) for shard in shards)
        for done in workers.results(handles):
            vanished += done.vanished
            made |= {done.number} if done.is_ours else set()
            if workers.opened is None:
                advance(done.n_images)
    height, width = writer.geometry.mask_size or (0, 0)
    warn_of_vanished(vanished, height, width)
    return made


def _shards(writer: CacheWriter, manifest: Manifest, pending: list[int]) -> Iterator[Shard]:
    """Give the shards, from anywhere in the list on.

    So two people who start at once meet half-way and do not do everything twice.
    """
    names = [name for name in manifest.table.column_names if name != THUMBNAIL.name]
    slim = Manifest(manifest.table.select(names))
    distrusted = {shard for shard in pending if has_receipt(writer, shard)}
    start = secrets.randbelow(len(pending))
    for shard in pending[start:] + pending[:start]:
        rows = Manifest(slim.select(list(writer.shard_rows(shard))))
        yield Shard(shard, rows, shard in distrusted)


def _n_images(writer: CacheWriter, shards: list[int]) -> int:
    return sum(len(writer.shard_rows(shard)) for shard in shards)

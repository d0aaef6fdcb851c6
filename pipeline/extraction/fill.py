"""Fill caches: have every shard that is not there yet made, here or by workers, then finish them.

The keys, and whether anything can start at all, come from those who do the work: a process that
asks workers needs neither the weights nor a GPU.
"""

import secrets
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from time import perf_counter

from cache.key import explain_difference
from cache.objects import Objects
from cache.writer import CacheWriter
from manifests.examine import Keep
from manifests.files import read_bytes
from manifests.schema import THUMBNAIL
from manifests.table import Manifest
from pipeline.backbones.spec import BackboneSpec
from pipeline.configs import ClusterConfig, ExtractConfig
from pipeline.extraction.announce import announce, lacking_by_shard, n_images_of, named
from pipeline.extraction.finish import finish, warn_of_vanished
from pipeline.extraction.kept import Size
from pipeline.extraction.maker import ShardMaker
from pipeline.extraction.masks import require_masks
from pipeline.extraction.shards import (
    AT_ONCE,
    Shard,
    describe,
    make_shard,
    open_extract_job,
    open_writer,
)
from pipeline.terminal.progress import bar, counting
from pipeline.workers.open import open_workers
from pipeline.workers.work import Workers
from spg_core.errors import ClusterError, DatasetError

_SAMPLED_IMAGES = 3


@dataclass(frozen=True)
class Filled:
    """What a run wrote of one cache, and how many shards."""

    spec: BackboneSpec
    key: str
    path: str
    n_images: int
    n_shards: int


def fill_caches(
    store: Objects,
    config: ExtractConfig,
    cluster: ClusterConfig,
    checked: Callable[[Keep | None], Manifest],
) -> list[Filled]:
    """Make the caches of a run whole, one a backbone and layer.

    Args:
        store: where they go.
        config: what they hold.
        cluster: who computes them.
        checked: gives the manifest, which may take minutes; asked for when the models are loaded,
            and told who keeps what it decodes.

    Raises: BackboneError, DatasetError, StoreError, ClusterError: what is wrong and what to do.
    """
    job = config if cluster.is_here else _for_workers(config)
    with open_workers(store, cluster, open_extract_job, job, at_once=AT_ONCE) as workers:
        specs, device = _agreed(workers.ask_all(describe))
        kept = None if workers.opened is None else workers.opened.keep_inputs()
        manifest = checked(kept)
        if workers.opened is None:
            workers.ask_all(partial(require_images, samples=_samples(manifest)))
        writers = [open_writer(store, config, manifest, spec) for spec in specs]
        pending = [_pending(writer) for writer in writers]
        if any(pending):
            announce(workers, writers, pending, device)
        start = perf_counter()
        made = _make(workers, writers, manifest, pending) if any(pending) else set()
        seconds = perf_counter() - start
    helpers = "" if cluster.is_here else f", {len(workers.addresses)} workers"
    for place, (writer, spec) in enumerate(zip(writers, specs, strict=True)):
        if writer.state() != "complete":
            shards = range(writer.geometry.n_shards)
            theirs = [shard for shard in shards if (place, shard) not in made]
            require_masks(writer, manifest, theirs, spec, config)
        finish(writer, manifest, seconds, device + helpers)
    return [
        Filled(spec, writer.key, writer.where, manifest.n_images, len(shards))
        for spec, writer, shards in zip(specs, writers, pending, strict=True)
    ]


def _pending(writer: CacheWriter) -> list[int]:
    with counting("Checking what is there") as progress:
        return writer.pending_shards(progress)


def _for_workers(config: ExtractConfig) -> ExtractConfig:
    """Name files so that they do not depend on the folder a worker was started in."""
    files = {name: config.weights_of(name) for name in config.backbone}
    weights = tuple(f"{name}={file.absolute()}" for name, file in files.items() if file)
    return replace(config, root=str(Path(config.root).absolute()), weights=weights)


def _agreed(answers: dict[str, tuple[list[BackboneSpec], str]]) -> tuple[list[BackboneSpec], str]:
    """Give what all workers say; refuse workers that would make different tokens."""
    (first, (specs, device)), *others = answers.items()
    for address, (theirs, _) in others:
        differences = [
            sentence
            for spec, other in zip(specs, theirs, strict=True)
            for sentence in explain_difference(spec.covers(), other.covers())
        ]
        if differences:
            raise ClusterError(
                f"workers {first} and {address} would make different tokens: "
                f"{'; '.join(differences)}. Start workers of one kind, or name the choice, such "
                "as --compute-dtype"
            )
    return specs, device


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


def _make(
    workers: Workers[ShardMaker],
    writers: Sequence[CacheWriter],
    manifest: Manifest,
    pending: Sequence[Sequence[int]],
) -> set[tuple[int, int]]:
    """Have what is pending made, and warn of defects that vanished; give what was made by us.

    Returns: pairs of a cache's place and a shard's number.
    """
    made: set[tuple[int, int]] = set()
    vanished: dict[Size, list[str]] = defaultdict(list)
    with bar(f"Extracting {named(writers)}", n_images_of(writers, pending)) as advance:
        if workers.opened is not None:
            workers.opened.advance = advance  # batch by batch, not shard by shard
        shards = _shards(writers, manifest, pending)
        handles = (workers.submit(make_shard, writers, shard) for shard in shards)
        for done in workers.results(handles):
            made |= {(cache, done.number) for cache in done.ours}
            for size, paths in done.vanished.items():
                vanished[size] += paths
            if workers.opened is None:
                advance(done.n_images)
    for size, paths in vanished.items():
        warn_of_vanished(paths, *size)
    return made


def _shards(
    writers: Sequence[CacheWriter], manifest: Manifest, pending: Sequence[Sequence[int]]
) -> Iterator[Shard]:
    """Give the shards, from anywhere in the list on.

    So two people who start at once meet half-way and do not do everything twice.
    """
    names = [name for name in manifest.table.column_names if name != THUMBNAIL.name]
    slim = Manifest(manifest.table.select(names))
    lacking = lacking_by_shard(pending)
    distrusted = [writer.distrusted for writer in writers]
    numbers = list(lacking)
    start = secrets.randbelow(len(numbers))
    for shard in numbers[start:] + numbers[:start]:
        rows = Manifest(slim.select(list(writers[0].shard_rows(shard))))
        doubted = frozenset(cache for cache in lacking[shard] if shard in distrusted[cache])
        yield Shard(shard, rows, lacking[shard], doubted)

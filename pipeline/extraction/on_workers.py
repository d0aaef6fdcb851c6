"""Extraction by Dask workers: a task is a shard, a worker loads the model once.

The key, and whether anything can start at all, come from the workers: the process that asks needs
neither the weights nor a GPU. A task carries the few rows of the manifest that it is about, so it
is a pure function of what it is given; done twice, the second finds the shard published.
"""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

from cache.key import explain_difference
from cache.objects import Objects
from cache.writer import CacheWriter
from manifests.images import read_bytes
from manifests.table import Manifest
from pipeline.backbones.load import Backbone
from pipeline.backbones.spec import BackboneSpec
from pipeline.cluster import Workers, open_workers
from pipeline.cluster_store import StoreTicket, open_ticket, store_ticket
from pipeline.configs import ClusterConfig, ExtractConfig
from pipeline.extraction.finish import finish, warn_of_vanished
from pipeline.extraction.model_inputs import ModelInput, model_inputs
from pipeline.extraction.shards import (
    Written,
    announce,
    compute_shard,
    has_receipt,
    is_done_meanwhile,
    open_backbone,
    open_writer,
    vanished_defects,
)
from pipeline.progress import bar, counting, say
from spg_core.errors import ClusterError, DatasetError

_SAMPLED_IMAGES = 3


@dataclass(frozen=True)
class ExtractJob:
    """What a worker must be told before it can make shards."""

    ticket: StoreTicket
    config: ExtractConfig
    samples: tuple[tuple[str, str], ...]
    """Some images, path in the root and SHA-256, to see that the worker has the same folder."""


class ShardMaker:
    """In a worker: the store and the model, opened once."""

    def __init__(self, store: Objects, config: ExtractConfig, backbone: Backbone) -> None:
        self.store, self.config, self.backbone = store, config, backbone
        self.writer: CacheWriter | None = None


def extract_on_cluster(
    store: Objects, config: ExtractConfig, manifest: Manifest, cluster: ClusterConfig
) -> Written:
    """Have workers compute and publish every shard that is not there yet, then finish the cache.

    Raises: ClusterError where workers cannot do it, and whatever one process would raise.
    """
    with store_ticket(store) as ticket:
        job = ExtractJob(ticket, _for_workers(config), _samples(manifest))
        with open_workers(cluster, open_extract_job, job) as workers:
            spec, device = _agreed(workers.ask_all(describe))
            writer = open_writer(store, config, manifest, spec)
            with counting("Checking what is there") as progress:
                pending = writer.pending_shards(progress)
            if pending:
                announce(writer, pending)
                say(f"{len(workers.addresses)} workers on {device}")
                writer.check_free_space()
            start = perf_counter()
            vanished = _write_shards(workers, writer, manifest, pending, spec.name)
            seconds = perf_counter() - start
    finish(writer, manifest, seconds, f"{device}, {len(workers.addresses)} workers")
    warn_of_vanished(vanished, spec.height, spec.width)
    return Written(writer.key, writer.where, len(pending))


def _for_workers(config: ExtractConfig) -> ExtractConfig:
    """Name files so that they do not depend on the folder a worker was started in."""
    weights = str(Path(config.weights).absolute()) if config.weights else None
    return replace(config, root=str(Path(config.root).absolute()), weights=weights, decoders=0)


def _samples(manifest: Manifest) -> tuple[tuple[str, str], ...]:
    """Choose images from the start, the middle and the end."""
    last = manifest.n_images - 1
    rows = sorted({last * i // max(1, _SAMPLED_IMAGES - 1) for i in range(_SAMPLED_IMAGES)})
    table = manifest.select(rows)
    paths, ids = table["image_path"].to_pylist(), table["image_id"].to_pylist()
    return tuple((str(path), str(image_id)) for path, image_id in zip(paths, ids, strict=True))


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


def _write_shards(
    workers: Workers, writer: CacheWriter, manifest: Manifest, pending: list[int], name: str
) -> list[str]:
    """Have the pending shards written; give the images whose defect vanished."""
    columns = [column for column in manifest.table.column_names if column != "thumbnail"]
    slim = Manifest(manifest.table.select(columns))
    vanished: list[str] = []
    handles = []
    for shard in pending:
        rows = Manifest(slim.select(list(writer.shard_rows(shard))))
        handles.append(workers.submit(make_shard, writer, shard, rows, has_receipt(writer, shard)))
    n_images = sum(len(writer.shard_rows(shard)) for shard in pending)
    with bar(f"Extracting {name}", n_images) as advance:
        for shard, lost in workers.results(handles):
            vanished += lost
            advance(len(writer.shard_rows(shard)))
    return vanished


def open_extract_job(job: ExtractJob) -> ShardMaker:
    """In a worker: check the images and the store, load the model.

    Raises: DatasetError, StoreError, BackboneError, ConfigError: what this worker lacks.
    """
    root = Path(job.config.root)
    if not root.is_dir():
        raise DatasetError(f"{root}: no such folder here; every worker reads images from there")
    for path, image_id in job.samples:
        if hashlib.sha256(read_bytes(root / path)).hexdigest() != image_id:
            raise DatasetError(
                f"{root / path} is another image here than where the extraction was started"
            )
    return ShardMaker(open_ticket(job.ticket), job.config, open_backbone(job.config))


def describe(maker: ShardMaker) -> tuple[BackboneSpec, str]:
    """In a worker: say what its model is and where it runs."""
    return maker.backbone.spec, str(maker.backbone.device)


def make_shard(
    maker: ShardMaker, writer: CacheWriter, shard: int, rows: Manifest, distrust: bool
) -> tuple[int, list[str]]:
    """In a worker: compute and publish one shard.

    Args:
        maker: what this worker has opened.
        writer: of the cache; the first one that came is kept, it checks the store once.
        shard: its number.
        rows: the manifest's rows of this shard.
        distrust: whether a receipt lay there from the start that does not fit what is stored.

    Returns: the shard's number, and its images whose defect vanished.
    """
    if maker.writer is None or maker.writer.folder != writer.folder:
        maker.writer = writer
    if not distrust and is_done_meanwhile(maker.writer, shard):
        return shard, []
    config, backbone = maker.config, maker.backbone
    here = list(range(rows.n_images))
    inputs = model_inputs(rows, Path(config.root), backbone.spec, [here], config)
    with ThreadPoolExecutor(1) as decoder:
        ahead = _ahead(inputs, decoder)
        arrays = compute_shard(backbone, ahead, rows.n_images, lambda _: None)
    maker.writer.write_shard(shard, *arrays)
    return shard, vanished_defects(rows, range(rows.n_images), arrays.masks)


def _ahead(inputs: Iterator[ModelInput], decoder: ThreadPoolExecutor) -> Iterator[ModelInput]:
    """Decode the next batch while the last one is in the model; workers may not have children."""
    coming = decoder.submit(next, inputs, None)
    while (batch := coming.result()) is not None:
        coming = decoder.submit(next, inputs, None)
        yield batch

"""What an earlier extraction of the same question led to, where nothing contradicts it by now.

The answer is remembered; the evidence is looked at each time: the cache is there and the one that
was seen then, and the weights that a model would be loaded with now are those of its record.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from cache.find import cache_state, read_record
from cache.layout import cache_folder
from cache.objects import Objects
from cache.record import CacheRecord
from pipeline.backbones.digest import sha256_of_file
from pipeline.backbones.hub import cached_weights
from pipeline.backbones.spec import slug
from pipeline.configs import ExtractConfig
from pipeline.machine.memo import recall, remember

_KIND = "found"


@dataclass(frozen=True, kw_only=True)
class ExtractedCache:
    """One cache that an extraction left in the store: a layer of a backbone."""

    backbone: str
    layer: int | None
    """None is the last."""
    key: str
    path: str
    images: int
    state: str
    """`extracted` where this run wrote shards, `found` where everything was there already."""


class _Answer(NamedTuple):
    """What is remembered of a cache."""

    backbone: str
    layer: int | None
    key: Annotated[str, Meta(pattern=r"^[0-9a-f]{16}$")]
    manifest_sha256: str


def remember_found(
    store: Objects, config: ExtractConfig, asked: str, caches: Sequence[ExtractedCache]
) -> None:
    """Remember which caches, in which state, answer what was `asked`. Raises: StoreError."""
    answers = [
        _Answer(one.backbone, one.layer, one.key, _record(store, config, one).manifest_sha256)
        for one in caches
    ]
    remember(_KIND, asked, msgspec.json.encode(answers))


def found_before(store: Objects, config: ExtractConfig, asked: str) -> list[ExtractedCache] | None:
    """Give the finished caches that were remembered, None where one is to be made.

    Raises: StoreError, BackboneError: a cache or a weights file cannot be read.
    """
    try:
        answers = msgspec.json.decode(recall(_KIND, asked) or b"[]", type=list[_Answer])
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None  # a memo that cannot be read is as good as none
    found, records = [], []
    for one in answers:
        folder = folder_of(config, one.backbone, one.key)
        if cache_state(store, folder) != "complete":
            return None
        record = read_record(store, folder)
        if record.manifest_sha256 != one.manifest_sha256:
            return None
        records.append((one.backbone, record))
        found.append(
            ExtractedCache(
                backbone=one.backbone,
                layer=one.layer,
                key=one.key,
                path=f"{store.where}/{folder}",
                images=record.geometry.n_images,
                state="found",
            )
        )
    return found if found and _have_weights(config, records) else None


def _have_weights(config: ExtractConfig, records: Sequence[tuple[str, CacheRecord]]) -> bool:
    """Tell whether caches were made with the weights at hand; those that are gone say nothing."""
    digests = {}
    for backbone in config.backbone:
        path = config.weights_of(backbone) or cached_weights(backbone)
        digests[backbone] = None if path is None else sha256_of_file(path)
    for backbone, record in records:
        match record.covers.get("backbone"):
            case {"weights_sha256": str(digest)} if digests.get(backbone) in (None, digest):
                continue
        return False
    return True


def _record(store: Objects, config: ExtractConfig, cache: ExtractedCache) -> CacheRecord:
    return read_record(store, folder_of(config, cache.backbone, cache.key))


def folder_of(config: ExtractConfig, backbone: str, key: str) -> str:
    """Give the folder of a cache in its store."""
    return cache_folder(config.name or config.dataset, slug(backbone), key)

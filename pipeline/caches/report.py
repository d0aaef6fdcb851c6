"""What the cache commands tell about the caches of a store."""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from cache.find import (
    CacheInfo,
    held_caches,
    inspect_cache,
    read_record,
    resolve_caches,
    survey,
    told_apart,
)
from cache.key import explain_difference
from cache.layout import IMAGES_PER_SHARD, MANIFEST
from cache.objects import Objects
from cache.record import CacheRecord
from cache.store import open_store
from cache.verify import Problem
from manifests.table import Manifest, manifest_from_bytes
from pipeline.caches.answers import (
    Differences,
    Facts,
    Listed,
    Listing,
    Spoilt,
    State,
    Trouble,
)
from pipeline.caches.stated import planned_images, users
from pipeline.chosen import fitting, in_words, read_records, say_tokens
from pipeline.configs import CacheWords
from spg_core.errors import ConfigError, IncompleteCache, NotInStore, SpgError, StoreError


@dataclass(frozen=True)
class NamedCache:
    """A cache that a user named, and the store it is in."""

    store: Objects
    info: CacheInfo

    @property
    def where(self) -> str:
        """Give its full path or URL."""
        return f"{self.store.where}/{self.info.folder}"


def name_cache(store: Objects, reference: str, words: CacheWords | None = None) -> NamedCache:
    """Find the one cache that a key, its start, `dataset/backbone[/key]`, or a path means.

    `words` choose among several complete ones by layer and input.

    A path or URL that holds `/tokens/` may lie in another store.

    Raises: NotInStore, StoreError: none or several fit; says which there are.
    """
    other, _, inside = reference.rstrip("/").rpartition("/tokens/")
    if other:
        store, reference = open_store(other, read_only=True), inside
    reference = reference.rstrip("/").removeprefix("tokens/")
    if not reference:
        raise NotInStore(f"no cache is called ''; `spg-pipe cache ls` lists those of {store.where}")
    meant = [inspect_cache(store, name) for name in resolve_caches(store, reference)]
    if words is not None and in_words(words):
        records = read_records(store, [info for info in meant if info is not None])
        keys = {one.key for one in fitting(records, words, reference, store.where)}
        meant = [info for info in meant if info is not None and info.key in keys]
    match [info for info in meant if info is not None]:
        case [only]:
            return NamedCache(store, only)
        case []:
            raise NotInStore(
                f"no cache {reference!r} in {store.where}, which holds {held_caches(store)}"
            )
        case several:
            names = ", ".join(info.folder for info in several)
            records = read_records(store, several)
            apart = f" ({told_apart(records)})" if len(records) > 1 else ""
            raise StoreError(
                f"{reference!r} means several caches: {names}{apart}; type more of the key"
            )


def name_caches(store: Objects, references: Sequence[str], words: CacheWords) -> list[NamedCache]:
    """Find the one cache that each of some names means. Raises: as `name_cache`, ConfigError."""
    if in_words(words) and not references:
        raise ConfigError(
            f"{in_words(words)} chooses among the caches of a name; give one, such as "
            "DATASET/BACKBONE"
        )
    return [name_cache(store, one, words) for one in references]


def listing(store: Objects) -> Listing:
    """Give what a store holds, and the folders that could not be looked into."""
    used, seen = users(store), survey(store)
    rows = [_listed(store, info, used.get(info.key, [])) for info in seen.caches]
    return Listing(store.where, rows, troubles(seen.problems))


def troubles(problems: Mapping[str, str]) -> list[Trouble]:
    """Give problems by the name of their object as rows."""
    return [Trouble(name, text) for name, text in problems.items()]


def _listed(store: Objects, info: CacheInfo, used_by: list[str]) -> Listed:
    state: State = "partial"
    problem = tokens = None
    if info.state == "complete":
        try:
            record = read_record(store, info.folder)
            images = of = record.geometry.n_images
            state, tokens = "complete", say_tokens(record)
        except StoreError as error:
            state, images, of, problem = "damaged", None, None, str(error)
    else:
        of = planned_images(store, info)
        most = of if of is not None else sys.maxsize
        starts = [shard * IMAGES_PER_SHARD for shard in _receipts(store, info)]
        images = sum(max(0, min(IMAGES_PER_SHARD, most - start)) for start in starts)
    return Listed(
        dataset=info.dataset,
        backbone=info.backbone,
        key=info.key,
        state=state,
        tokens=tokens,
        images=images,
        of=of,
        bytes=info.size_bytes,
        used_by=used_by,
        problem=problem,
    )


def _receipts(store: Objects, info: CacheInfo) -> list[int]:
    """Give the shards that have receipts; other files in their folder do not count."""
    names = (PurePosixPath(found.name).name for found in store.walk(f"{info.folder}/receipts"))
    return [int(name.split(".")[0]) for name in names if re.fullmatch(r"[0-9]{5,9}\.json", name)]


def describe_cache(named: NamedCache) -> Facts:
    """Give all that a key covers, and what is known besides.

    Raises: IncompleteCache, CorruptStore.
    """
    record = _record(named)
    geometry = record.geometry
    return Facts(
        key=record.key,
        path=named.where,
        covers=dict(record.covers),
        images=geometry.n_images,
        shards=geometry.n_shards,
        bytes=record.size_bytes,
        manifest_sha256=record.manifest_sha256,
        created=record.created,
        versions=dict(record.versions),
        timings=dict(record.timings),
        used_by=users(named.store).get(record.key, []),
    )


def _record(named: NamedCache) -> CacheRecord:
    if named.info.state != "complete":
        raise IncompleteCache(
            f"{named.where} is only partly written, and what it covers is written last; run the "
            "extraction again to finish it"
        )
    return read_record(named.store, named.info.folder)


def differences(first: NamedCache, second: NamedCache) -> Differences:
    """Say why two caches have different keys; also where only the manifests differ."""
    a, b = _record(first), _record(second)
    sentences = explain_difference(a.covers, b.covers)
    if a.covers.get("images") != b.covers.get("images"):
        sentences += _image_differences(_manifest(first), _manifest(second))
    if not sentences and a.manifest_sha256 != b.manifest_sha256:
        sentences.append("the keys are the same, the manifests differ: labels, splits or masks")
    return Differences((first.where, second.where), sentences)


def _image_differences(a: Manifest, b: Manifest) -> Iterator[str]:
    ids = [dict(zip(m.column("image_id"), m.column("image_path"), strict=True)) for m in (a, b)]
    for which, mine, others in (("first", ids[0], ids[1]), ("second", ids[1], ids[0])):
        only = [str(path) for image, path in mine.items() if image not in others]
        if only:
            shown = ", ".join(only[:5]) + (", ..." if len(only) > 5 else "")
            yield f"{len(only)} images are only in the {which}: {shown}"
    if set(ids[0]) == set(ids[1]):
        yield "both hold the same images, in another order or number"


def _manifest(named: NamedCache) -> Manifest:
    n_images = _record(named).geometry.n_images
    data = named.store.get(f"{named.info.folder}/{MANIFEST}")
    return manifest_from_bytes(data, f"{named.where}/{MANIFEST}", n_images)


def spoilt(named: NamedCache, problems: tuple[Problem, ...]) -> list[Spoilt]:
    """Give problems of a verification, with the images named where the manifest still tells."""
    try:
        paths = [str(path) for path in _manifest(named).column("image_path")]
    except SpgError:
        paths = []
    return [
        Spoilt(one.name, one.text, one.rows, [paths[row] for row in one.rows if row < len(paths)])
        for one in problems
    ]

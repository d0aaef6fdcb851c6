"""Which cache is meant, where it is told by its layer and input instead of a key."""

from collections.abc import Mapping, Sequence

from cache.find import CacheName, read_record, resolve_caches, told_apart
from cache.layout import RECORD
from cache.objects import Objects
from cache.record import CacheRecord
from pipeline.backbones.depth import n_blocks
from pipeline.backbones.layers import choose_layers
from pipeline.backbones.spec import slug
from pipeline.configs import CacheWords
from spg_core.errors import CorruptStore, NotInStore, StoreError


def chosen_key(
    store: Objects, dataset: str, backbone: str, words: CacheWords, key: str | None = None
) -> str | None:
    """Give the key of the complete cache that words mean, or `key` where there are none.

    Raises: NotInStore, StoreError: none or several fit; says in words which there are.
    """
    if not in_words(words):
        return key
    found = meant_caches(store, dataset, backbone, words, key)
    if len(found) > 1:
        raise StoreError(
            f"{dataset}/{backbone} with {in_words(words)} in {store.where} means several caches, "
            f"choose a key: {told_apart(found)}"
        )
    return found[0].key if found else key


def meant_caches(
    store: Objects, dataset: str, backbone: str, words: CacheWords, key: str | None = None
) -> list[CacheRecord]:
    """Give the complete caches that words mean; none where there are no caches at all.

    Raises: NotInStore where none of them fits; says in words which there are.
    """
    names = resolve_caches(store, f"{dataset}/{slug(backbone)}/{key or ''}")
    records = read_records(store, names)
    return fitting(records, words, f"{dataset}/{backbone}", store.where) if records else []


def layers_meant(
    store: Objects, dataset: str, backbone: str, words: Sequence[str]
) -> tuple[int, ...]:
    """Give the blocks, from 0, that words such as 5, -1, every:3 mean for a cached backbone.

    Raises: NotInStore where there is no cache that tells how many it has; ConfigError.
    """
    if all(word.isdigit() for word in words):
        return tuple(dict.fromkeys(map(int, words)))
    records = read_records(store, resolve_caches(store, f"{dataset}/{slug(backbone)}/"))
    if not records:
        raise NotInStore(
            f"no complete cache of {dataset!r} by {backbone!r} in {store.where} tells how many "
            f"blocks there are; name layers by numbers from 0, or extract with --layer "
            f"{','.join(words)}"
        )
    stated = _backbone(records[0])
    depth = n_blocks(str(stated.get("library")), str(stated.get("model")))
    return choose_layers(words, depth, backbone)


def read_records(store: Objects, names: Sequence[CacheName]) -> list[CacheRecord]:
    """Read what complete caches state; a damaged one does not hide the others."""
    records = []
    for one in names:
        if store.size(f"{one.folder}/{RECORD}") is not None:
            try:
                records.append(read_record(store, one.folder))
            except CorruptStore:
                if len(names) == 1:
                    raise
    return records


def fitting(
    records: Sequence[CacheRecord], words: CacheWords, asked: str, where: str
) -> list[CacheRecord]:
    """Give those of some caches that words mean. Raises: NotInStore where none fits."""
    found = [one for one in records if _has_input(one, words)]
    if words.layer is not None:
        found = _of_layer(found, int(words.layer), asked)
    if not found:
        raise NotInStore(
            f"no cache {asked} in {where} with {in_words(words)}; there is {told_apart(records)}"
        )
    return found


def in_words(words: CacheWords) -> str:
    """Write what was asked for as it is typed; empty where nothing was."""
    said = [] if words.layer is None else [f"--layer {words.layer}"]
    said += [] if words.image_size is None else [f"--image-size {words.image_size}"]
    match words.final_norm:
        case True:
            said.append("--final-norm")
        case False:
            said.append("--no-final-norm")
    return " ".join(said)


def say_tokens(record: CacheRecord) -> str:
    """Say in words which tokens a cache holds: `layer 5, 448 px`."""
    backbone = _backbone(record)
    layer = backbone.get("layer")
    said = "the last layer" if layer is None else f"layer {layer}"
    return f"{said}, {backbone.get('height')} px"


def _has_input(record: CacheRecord, words: CacheWords) -> bool:
    backbone = _backbone(record)
    return words.image_size in (None, backbone.get("height")) and words.final_norm in (
        None,
        backbone.get("final_norm"),
    )


def _of_layer(records: Sequence[CacheRecord], layer: int, asked: str) -> list[CacheRecord]:
    """Give the caches of a layer; how many there are is asked only where a number does not tell."""
    if layer >= 0 and (exact := [one for one in records if _backbone(one).get("layer") == layer]):
        return exact
    if layer == -1:
        return [one for one in records if _backbone(one).get("layer", 0) is None]
    found = []
    for one in records:
        backbone = _backbone(one)
        depth = n_blocks(str(backbone.get("library")), str(backbone.get("model")))
        [meant] = choose_layers(layer, depth, asked)
        stored = backbone.get("layer")
        found += [one] if meant == (depth - 1 if stored is None else stored) else []
    return found


def _backbone(record: CacheRecord) -> Mapping[str, object]:
    """Give what a cache states of its backbone."""
    stated = record.covers.get("backbone")
    return stated if isinstance(stated, Mapping) else {}

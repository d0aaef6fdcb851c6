"""What an earlier extraction of the same question led to, where nothing contradicts it by now.

The answer is remembered; the evidence is looked at each time: the cache is there and the one that
was seen then, and the weights that a model would be loaded with now are those of its record.
"""

import json
from pathlib import Path

from cache.find import cache_state, read_record
from cache.key import is_key
from cache.layout import cache_folder
from cache.objects import Objects
from cache.record import CacheRecord
from pipeline.backbones.digest import sha256_of_file
from pipeline.backbones.hub import cached_weights
from pipeline.backbones.spec import slug
from pipeline.configs import ExtractConfig
from pipeline.memo import recall, remember

_KIND = "found"


def remember_found(store: Objects, config: ExtractConfig, asked: str, key: str) -> None:
    """Remember which cache, in which state, answers what was `asked`. Raises: StoreError."""
    record = read_record(store, folder_of(config, key))
    answer = {"key": key, "manifest": record.manifest_sha256}
    remember(_KIND, asked, json.dumps(answer).encode())


def found_before(store: Objects, config: ExtractConfig, asked: str) -> CacheRecord | None:
    """Give the record of the finished cache that was remembered, None where it is to be made.

    Raises: StoreError, BackboneError: the cache or the weights file cannot be read.
    """
    try:
        answer = json.loads(recall(_KIND, asked) or b"{}")
        key, manifest = str(answer["key"]), answer["manifest"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None  # a memo that cannot be read is as good as none
    if not is_key(key) or cache_state(store, folder_of(config, key)) != "complete":
        return None
    record = read_record(store, folder_of(config, key))
    if record.manifest_sha256 != manifest or not _has_weights_of(config, record):
        return None
    return record


def _has_weights_of(config: ExtractConfig, record: CacheRecord) -> bool:
    """Tell whether a cache was made with the weights at hand; those that are gone say nothing."""
    path = Path(config.weights) if config.weights else cached_weights(config.backbone)
    match record.covers.get("backbone"):
        case {"weights_sha256": str(digest)}:
            return path is None or sha256_of_file(path) == digest
    return False


def folder_of(config: ExtractConfig, key: str) -> str:
    """Give the folder of a cache in its store."""
    return cache_folder(config.name or config.dataset, slug(config.backbone), key)

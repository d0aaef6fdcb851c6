"""What other documents state of caches: how large one will be, and which artifacts come from it.

Of those documents only the fields that matter here are read, so that their version does not.
"""

import logging
from collections import defaultdict
from dataclasses import dataclass
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from cache.find import CacheInfo
from cache.layout import GROUP
from cache.objects import Objects
from pipeline.artifacts.parse import LARGEST_BYTES
from pipeline.artifacts.terms import Key
from pipeline.kinds import JSON, SAY, Kind
from spg_core.errors import SpgError, StoreError
from spg_core.fields import Count

_USERS: tuple[Kind, ...] = ("saes", "guides", "memories", "scores")

_log = logging.getLogger(__name__)


T = TypeVar("T")


@dataclass(frozen=True)
class _Cache:
    key: Key


@dataclass(frozen=True)
class _Parents:
    cache: _Cache


@dataclass(frozen=True)
class _Uses:
    """Of an artifact's document, of whatever version: which caches it was made from."""

    parents: _Parents
    fitted_on: _Cache | None = None

    @property
    def keys(self) -> set[str]:
        """Their keys."""
        return {self.parents.cache.key} | ({self.fitted_on.key} if self.fitted_on else set())


@dataclass(frozen=True)
class _Planned:
    """Of the `zarr.json` of an array that is being written: how large it will be."""

    shape: Annotated[tuple[Count, ...], Meta(min_length=1)]


def _read(store: Objects, name: str, kind: type[T]) -> T | None:
    """Read what a JSON document says of some fields; None for one that is torn or foreign."""
    try:
        return msgspec.json.decode(store.get(name, LARGEST_BYTES), type=kind)
    except (SpgError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def planned_images(store: Objects, info: CacheInfo) -> int | None:
    """Give how many images a cache will have, None where nothing tells."""
    planned = _read(store, f"{info.folder}/{GROUP}/tokens/zarr.json", _Planned)
    return None if planned is None else planned.shape[0]


def users(store: Objects) -> dict[str, list[str]]:
    """Give for each key the artifacts whose parents name it, such as `SAE visa-gabor-...`.

    Torn documents are passed over: they are for other commands to complain about. A kind that
    cannot be listed is left out with a warning.
    """
    found: dict[str, list[str]] = defaultdict(list)
    for kind in _USERS:
        try:
            entries = list(store.walk(kind))
        except StoreError as error:
            _log.warning("left out: %s", error)
            continue
        for entry in entries:
            parts = entry.name.split("/")
            if len(parts) != 3 or parts[2] != JSON[kind]:
                continue
            uses = _read(store, entry.name, _Uses)
            for key in uses.keys if uses else ():
                found[key].append(f"{SAY[kind]} {parts[1]}")
    return dict(found)

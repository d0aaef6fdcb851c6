"""What `cache info`, `verify`, `copy` and `gc` can be told."""

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from pipeline.configs.common import CacheWords
from spg_core.fields import ARGUMENT, REPEATED, FilePath, Name


@dataclass(frozen=True, kw_only=True)
class InfoConfig(CacheWords):
    """Which cache is described, or which two are told apart."""

    cache: Annotated[Name, ARGUMENT]
    """A key or its start, dataset/backbone/key or a start of it, or a path."""
    other: Annotated[Name | None, ARGUMENT] = None
    """A second cache: say why the two keys differ."""


@dataclass(frozen=True, kw_only=True)
class VerifyConfig(CacheWords):
    """Which caches are checked."""

    caches: Annotated[tuple[Name, ...], ARGUMENT] = ()
    """A key or its start, dataset/backbone/key or a start of it, or a path; of an artifact KIND/ID.
    All complete caches and all artifacts if none is given."""


@dataclass(frozen=True, kw_only=True)
class CopyConfig(CacheWords):
    """Which caches are copied, and where to."""

    source: Annotated[FilePath, ARGUMENT]
    """Store to copy from, or the path of one cache in it."""
    destination: Annotated[FilePath, ARGUMENT]
    """Store to copy to; made if it is not there."""
    only: Annotated[tuple[Name, ...], REPEATED] = ()
    """A key or its start, dataset/backbone/key or a start of it, or a path. All complete caches if
    not given. May be repeated."""
    threads: Annotated[int, Meta(ge=1, le=256)] = 4
    """Shards on their way at a time."""


@dataclass(frozen=True, kw_only=True)
class GcConfig(CacheWords):
    """What is garbage, and whether it goes."""

    delete: bool = False
    """Delete; otherwise only say what would go."""
    remove: Annotated[tuple[Name, ...], REPEATED] = ()
    """Also remove this whole cache. A key or its start, dataset/backbone/key or a start of it, or a
    path. May be repeated."""
    grace_hours: Annotated[float, Meta(ge=0, le=1e6)] = 24.0
    """Younger leftovers may belong to a living writer and stay."""

"""What the cache commands answer; the fields are those of `--json`, `bytes` are sizes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

State = Literal["complete", "partial", "damaged"]


@dataclass(frozen=True)
class Trouble:
    """An object or folder of a store, and what is wrong with it."""

    object: str
    problem: str


@dataclass(frozen=True)
class Spoilt(Trouble):
    """A stored object, and the images that it spoils: rows, and paths where they are known."""

    rows: Sequence[int] = ()
    images: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One cache of a store."""

    dataset: str
    backbone: str
    key: str
    state: State
    tokens: str | None
    """Which tokens, in words such as `layer 5, 448 px`; None for one that is not complete."""
    images: int | None
    """There already; None where nothing tells, as for `of`."""
    of: int | None
    bytes: int
    used_by: Sequence[str]
    problem: str | None
    """Of a damaged one."""


@dataclass(frozen=True)
class Listing:
    """All caches of a store, and the folders that could not be looked into."""

    store: str
    caches: Sequence[Listed]
    problems: Sequence[Trouble]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All that a cache's key covers, and what is known besides."""

    key: str
    path: str
    covers: Mapping[str, object]
    images: int
    shards: int
    bytes: int
    manifest_sha256: str
    created: str
    versions: Mapping[str, object]
    timings: Mapping[str, object]
    used_by: Sequence[str]


@dataclass(frozen=True)
class Differences:
    """Two caches, and in sentences why their keys differ."""

    caches: tuple[str, str]
    differences: Sequence[str]


@dataclass(frozen=True)
class Verified:
    """A cache or artifact, or a folder that is none, and what a verification found."""

    cache: str
    key: str
    bytes: int
    objects: int
    problems: Sequence[Spoilt]


@dataclass(frozen=True)
class Checked:
    """What a verification found of caches and of artifacts; those have no key."""

    store: str
    caches: Sequence[Verified]
    artifacts: Sequence[Verified]

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong."""
        return not any(one.problems for one in (*self.caches, *self.artifacts))


@dataclass(frozen=True)
class Copied:
    """A cache that is in another store now."""

    cache: str
    path: str
    copied_bytes: int
    copied_shards: int
    present_shards: int


@dataclass(frozen=True)
class Copies:
    """What was copied to a store, and why the rest was not."""

    store: str
    copied: Sequence[Copied]
    problems: Sequence[Trouble]


@dataclass(frozen=True)
class Leftover:
    """An object that no cache needs."""

    object: str
    bytes: int
    reason: str


@dataclass(frozen=True)
class Removed:
    """A cache that was named for removal."""

    cache: str
    bytes: int
    used_by: Sequence[str]


@dataclass(frozen=True)
class Tidied:
    """What can go from a store or, once `deleted`, has gone."""

    store: str
    deleted: bool
    bytes: int
    objects: Sequence[Leftover]
    removed: Sequence[Removed]

"""What the commands that keep order answer; fields are those of `--json`, `bytes` are sizes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.caches.answers import Copied, Trouble
from pipeline.registry.survey import State


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One artifact of a store."""

    artifact: str
    """Its folder, `guides/ID`."""
    state: State
    names: Sequence[str]
    created: str | None
    bytes: int
    stands_on: Sequence[str]
    problem: str | None
    """Of a damaged one."""


@dataclass(frozen=True)
class Holdings:
    """All artifacts of a store, parents before children, and what is none."""

    store: str
    artifacts: Sequence[Listed]
    problems: Sequence[Trouble]


@dataclass(frozen=True, kw_only=True)
class Branch:
    """An artifact or cache that one stands on, with what it stands on itself."""

    folder: str
    is_here: bool
    stands_on: Sequence["Branch"]


@dataclass(frozen=True, kw_only=True)
class Shown:
    """All that is told of one artifact."""

    id: str
    kind: str
    path: str
    names: Sequence[str]
    files: Mapping[str, int]
    """Their bytes by name."""
    document: Mapping[str, object]
    stands_on: Sequence[Branch]
    stood_on_by: Sequence[str]
    """Directly or not."""
    text: str
    """What its command says when it is made."""


@dataclass(frozen=True)
class Gone:
    """An artifact that is removed, and why."""

    artifact: str
    bytes: int
    files: int
    names: Sequence[str]
    """That mean nothing without it."""
    reason: str


@dataclass(frozen=True)
class Removal:
    """What can go from a store or, once `deleted`, has gone."""

    store: str
    deleted: bool
    bytes: int
    artifacts: Sequence[Gone]
    problems: Sequence[Trouble]
    """What could not be read, and so may stand on what goes; what was left."""


@dataclass(frozen=True)
class Naming:
    """A name, and the artifact it means; None once it is taken away."""

    name: str
    artifact: str | None


@dataclass(frozen=True)
class Moved:
    """An artifact that is in another store now."""

    artifact: str
    path: str
    bytes: int
    """Written; 0 where all of it was there."""
    kept: Sequence[str]
    """Files that are other ones there, such as a threshold, and were left."""


@dataclass(frozen=True)
class Transfer:
    """What a push or a pull did."""

    store: str
    artifacts: Sequence[Moved]
    """Parents first."""
    caches: Sequence[Copied]
    names: Sequence[str]
    problems: Sequence[Trouble]
    """Names that mean something else there, and were left."""

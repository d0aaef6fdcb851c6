"""What an artifact stands on, read off the `parents` of its document, whatever its kind."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass

from cache.layout import RECORD, cache_folder
from cache.objects import Objects
from pipeline.artifacts.documents import Document
from pipeline.artifacts.terms import CacheParent
from pipeline.backbones.spec import slug
from pipeline.kinds import JSON, SAY, Kind, folder


@dataclass(frozen=True)
class Parent:
    """A cache or an artifact, by the folder it has in a store."""

    folder: str
    kind: Kind | None
    """None for a cache."""

    def is_in(self, store: Objects) -> bool:
        """Tell whether a store has it, finished."""
        last = RECORD if self.kind is None else JSON[self.kind]
        return store.size(f"{self.folder}/{last}") is not None


def parents_of(document: Document) -> list[Parent]:
    """Give what a document names as its parents, each once, caches last."""
    found = dict.fromkeys(_named(getattr(document, "parents", None)))
    return sorted(found, key=lambda one: one.kind is None)


def _named(value: object, field: str = "") -> Iterator[Parent]:
    """Walk `parents`: a field that is called as a kind is called holds the id of one."""
    match value:
        case CacheParent():
            yield Parent(cache_folder(value.dataset, slug(value.backbone), value.key), None)
        case str() if (kind := _kind(field)) is not None:
            yield Parent(folder(kind, value), kind)
        case list() | tuple():
            for one in value:
                yield from _named(one, field)
        case _ if is_dataclass(value):
            for one in fields(value):
                yield from _named(getattr(value, one.name), one.name)


def _kind(field: str) -> Kind | None:
    return next((kind for kind, said in SAY.items() if field in (said.lower(), kind)), None)

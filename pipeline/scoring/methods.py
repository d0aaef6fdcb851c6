"""What scores were made by, as facts: names methods by what they differ in, and finds seeds.

A method is a detector with all that it was fitted with. Scores are of one method by several seeds
where nothing else differs.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cache.objects import Objects
from pipeline.artifacts import load_document, settings
from pipeline.artifacts.documents import (
    DOCUMENTS,
    CombinationDocument,
    Document,
    GuidesDocument,
    MemoryDocument,
    ScoresDocument,
)
from pipeline.artifacts.terms import Backbone
from pipeline.kinds import SAY
from pipeline.registry.parents import Parent, parents_of
from spg_core.errors import NotInStore

_GUIDES = {"sae": "SPG", "pca": "PCA", "random": "random atoms", "none": "free guides"}
"""Guides by their dictionary."""
_MEETING = {"mean": "mean", "max": "maximum", "learned": "learned mean"}
"""How parts meet, by `--combine`."""
_PREFIX = {"saes": "SAE ", "guides": "guides "}
"""Before the settings of what a detector stands on; its own need none."""
_UNSAID = "tokens"
"""Which caches: other tokens make another method, but a key tells nobody anything."""


@dataclass(frozen=True)
class Method:
    """What made some scores."""

    kind: str
    """In a few words: `SPG`, `memory`, `mean of SPG`."""
    facts: Mapping[str, Sequence[str]]
    """Every setting by its name, without seeds: one value a part that has it."""
    seeds: Sequence[str]

    def differences(self, others: Sequence["Method"]) -> list[str]:
        """Say each setting in which its own parts differ, or another of its kind from it."""
        alike = [one.said for one in others if one.kind == self.kind]
        return [
            f"{name} {value}"
            for name, value in self.said.items()
            if len({*self.facts[name]}) > 1 or any(one.get(name, value) != value for one in alike)
        ]

    @property
    def said(self) -> dict[str, str]:
        """Each setting in words, the values of several parts as `5+8`."""
        return {
            name: "+".join(dict.fromkeys(values))
            for name, values in self.facts.items()
            if name != _UNSAID
        }


def method_of(store: Objects, scores: ScoresDocument) -> Method:
    """Give what made some scores, as far as the store has the documents. Raises: CorruptStore."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for name, value in (*_of_config(scores), *_of_parents(store, scores)):
        found[name].append(value)
    found.pop("aupro", None)
    seeds = [value for name in list(found) if name.endswith("seed") for value in found.pop(name)]
    return Method(_kind(store, scores), found, seeds)


def labels(methods: Sequence[Method]) -> list[str]:
    """Name methods by their kind and by what tells them from others of that kind."""
    return [", ".join([one.kind, *one.differences(methods)]) for one in methods]


def _kind(store: Objects, document: Document) -> str:
    match document:
        case GuidesDocument():
            return _GUIDES[document.dictionary.kind]
        case MemoryDocument():
            return "memory"
        case CombinationDocument():
            return f"{_MEETING[document.config.combine]} of {_kinds_of_parents(store, document)}"
    return _kinds_of_parents(store, document)


def _kinds_of_parents(store: Objects, document: Document) -> str:
    detectors = [one for one in parents_of(document) if one.kind is not None]
    known = [(one, _document(store, one)) for one in detectors]
    kinds = [one.folder if held is None else _kind(store, held) for one, held in known]
    return " + ".join(dict.fromkeys(kinds))


def _of_parents(store: Objects, document: Document) -> Iterator[tuple[str, str]]:
    for parent in parents_of(document):
        held = _document(store, parent)
        if held is None:
            yield _UNSAID if parent.kind is None else SAY[parent.kind], parent.folder
            continue
        if not isinstance(document, GuidesDocument):  # what guides stand on has their tokens
            yield from _of_tokens(held)
        yield from _of_config(held)
        yield from _of_parents(store, held)


def _document(store: Objects, parent: Parent) -> Document | None:
    if parent.kind is None:
        return None
    try:
        return load_document(store, DOCUMENTS[parent.kind], parent.folder.partition("/")[2])
    except NotInStore:
        return None


def _of_config(document: Document) -> Iterator[tuple[str, str]]:
    prefix = _PREFIX.get(document.kind, "")
    for name, value in settings(getattr(document, "config", {})).items():
        yield f"{prefix}{name.replace('_', ' ')}", f"{value}"


def _of_tokens(document: Document) -> Iterator[tuple[str, str]]:
    backbone = getattr(document, "backbone", None)
    if isinstance(backbone, Backbone):
        spec = backbone.spec
        yield "backbone", backbone.name
        yield "layer", "last" if spec.layer is None else f"{spec.layer}"
        yield "input of", f"{spec.height} px"
        yield "final norm", f"{spec.final_norm}"

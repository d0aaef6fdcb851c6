"""SAEs, guides and scores in the store: safetensors for numbers, JSON for everything else.

An artifact is a folder `saes/<id>`, `guides/<id>` or `scores/<id>`. Its JSON document is written
last, so its presence means the artifact is whole. The id ends in a digest of what determines the
content (parents, configuration, seed, version), so the same request finds the same artifact.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import safetensors
import safetensors.torch
from torch import Tensor

from cache.objects import Objects
from cache.store import open_store
from pipeline import __version__
from pipeline.progress import say
from pipeline.versions import library_versions
from spg_core.errors import ArtifactError, CorruptStore, NotInStore, StoreError

Kind = Literal["saes", "guides", "scores"]
FORMAT = 1
_DOCUMENT: dict[Kind, str] = {"saes": "sae.json", "guides": "guides.json", "scores": "metrics.json"}
_TENSORS: dict[Kind, str] = {"saes": "sae.safetensors", "guides": "guides.safetensors"}
_SAY: dict[Kind, str] = {"saes": "SAE", "guides": "guides", "scores": "scores"}
_MAKE: dict[Kind, str] = {"saes": "fit-sae", "guides": "fit-guides", "scores": "score"}


@dataclass(frozen=True)
class Artifact:
    """A finished artifact: where it is, what its JSON says and the tensors it holds."""

    kind: Kind
    id: str
    path: str
    document: dict[str, Any]
    tensors: dict[str, Tensor]


def artifact_id(stem: str, identity: Mapping[str, Any]) -> str:
    """Name an artifact: a readable stem and 8 hex digits of what determines its content."""
    text = json.dumps({**identity, "spg": __version__}, sort_keys=True, separators=(",", ":"))
    return f"{stem}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def folder(kind: Kind, identifier: str) -> str:
    """Give the folder of an artifact inside its store."""
    return f"{kind}/{identifier}"


def is_complete(store: Objects, kind: Kind, identifier: str) -> bool:
    """Tell whether the artifact is there and whole."""
    return store.size(f"{folder(kind, identifier)}/{_DOCUMENT[kind]}") is not None


def save_artifact(
    store: Objects,
    kind: Kind,
    identifier: str,
    document: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
) -> Artifact:
    """Write an artifact, its JSON last. One that is already there is left as it is and returned."""
    place = folder(kind, identifier)
    full = {
        "format": FORMAT,
        "kind": kind,
        "id": identifier,
        **document,
        "versions": library_versions(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    if tensors:
        contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        data = safetensors.torch.save(contiguous)
        full["digest"] = hashlib.sha256(data).hexdigest()
        store.replace(f"{place}/{_TENSORS[kind]}", [data])
    text = json.dumps(full, indent=1, allow_nan=False)
    store.put_new(f"{place}/{_DOCUMENT[kind]}", [text.encode()])
    return load_artifact(store, kind, identifier)


def load_artifact(store: Objects, kind: Kind, reference: str) -> Artifact:
    """Read an artifact by id, unique prefix of an id, path, or `latest`; say which it is.

    Raises: NotInStore where there is none, ArtifactError where several fit, CorruptStore where the
    files are torn or do not belong together.
    """
    store, identifier = _resolve(store, kind, reference)
    place = folder(kind, identifier) if identifier else ""
    document_name = f"{place}/{_DOCUMENT[kind]}".lstrip("/")
    where = f"{store.where}/{document_name}"
    try:
        document = json.loads(store.get(document_name))
    except ValueError as error:
        raise CorruptStore(f"{where} is not JSON: {error}") from None
    if not isinstance(document, dict) or document.get("kind") != kind:
        raise CorruptStore(f"{where} does not describe {_SAY[kind]}")
    if document.get("format") != FORMAT:
        raise CorruptStore(
            f"{where} has format {document.get('format')!r}; this version reads {FORMAT}"
        )
    tensors: dict[str, Tensor] = {}
    if kind in _TENSORS:
        tensors = _load_tensors(store, f"{place}/{_TENSORS[kind]}".lstrip("/"), document)
    path = f"{store.where}/{place}".rstrip("/")
    if reference != document["id"]:
        say(f"{_SAY[kind]} {reference}: {document['id']}")
    return Artifact(kind, str(document["id"]), path, document, tensors)


def _load_tensors(store: Objects, name: str, document: Mapping[str, Any]) -> dict[str, Tensor]:
    data = store.get(name)
    if hashlib.sha256(data).hexdigest() != document.get("digest"):
        raise CorruptStore(f"{store.where}/{name} is not the file its JSON was written for")
    try:
        return dict(safetensors.torch.load(data))
    except safetensors.SafetensorError as error:
        raise CorruptStore(f"{store.where}/{name} is not a safetensors file: {error}") from None


def make_latest(store: Objects, artifact: Artifact) -> None:
    """Let `latest` mean this artifact: its command was given for its own sake.

    The points of a sweep, ablations and controls never are; so `latest` does not change a user's
    detector in silence. Where the store cannot be written, nothing is remembered.
    """
    if store.read_only:
        return
    note = {"format": FORMAT, "kind": artifact.kind, "id": artifact.id}
    try:
        store.replace(_latest(artifact.kind), [json.dumps(note).encode()])
    except StoreError as error:
        say(f"`latest` does not mean {artifact.id}: {error}")


def _latest(kind: Kind) -> str:
    return f"latest/{kind}.json"


def _read_latest(store: Objects, kind: Kind) -> str:
    """Give the id that `latest` means. Raises: NotInStore, CorruptStore."""
    name = _latest(kind)
    ids = list_artifacts(store, kind)
    try:
        identifier = str(json.loads(store.get(name))["id"])
    except NotInStore:
        raise NotInStore(
            f"no {_SAY[kind]} 'latest' in {store.where}/{kind}: `spg-pipe {_MAKE[kind]}` has made "
            f"none there that is not a control; there are: {_listed(kind, ids)}"
        ) from None
    except (ValueError, TypeError, LookupError) as error:
        raise CorruptStore(f"{store.where}/{name} does not name {_SAY[kind]} ({error})") from None
    if identifier not in ids:
        raise NotInStore(
            f"the latest {_SAY[kind]} were {identifier}, which are not in {store.where} any more; "
            f"there are: {_listed(kind, ids)}"
        )
    return identifier


def _listed(kind: Kind, ids: Sequence[str]) -> str:
    return ", ".join(ids) or f"none yet; `spg-pipe {_MAKE[kind]}` makes them"


def list_artifacts(store: Objects, kind: Kind) -> list[str]:
    """Give the ids of all finished artifacts of a kind, oldest first."""
    found = []
    for entry in store.walk(kind):
        parts = entry.name.split("/")
        if len(parts) == 3 and parts[2] == _DOCUMENT[kind]:
            found.append((entry.modified, parts[1]))
    return [identifier for _, identifier in sorted(found)]


def _resolve(store: Objects, kind: Kind, reference: str) -> tuple[Objects, str]:
    """Turn what a user typed into a store and an id; a path opens a store of its own."""
    path = Path(reference)
    if path.suffix in (".json", ".safetensors"):
        path = path.parent
    if (path / _DOCUMENT[kind]).is_file():
        return open_store(str(path), read_only=True), ""
    if "/" not in reference and reference != "latest" and is_complete(store, kind, reference):
        return store, reference
    identifier = _read_latest(store, kind) if reference == "latest" else ""
    return store, identifier or _by_prefix(store, kind, reference)


def _by_prefix(store: Objects, kind: Kind, reference: str) -> str:
    ids = list_artifacts(store, kind)
    fitting = [identifier for identifier in ids if identifier.startswith(reference)]
    match fitting:
        case [only]:
            return only
        case []:
            raise NotInStore(
                f"no {_SAY[kind]} {reference!r} in {store.where}/{kind}; there are: "
                f"{_listed(kind, ids)}"
            )
        case _:
            raise ArtifactError(
                f"{reference!r} fits several {_SAY[kind]}: {', '.join(fitting)}; "
                "type more of the id"
            )

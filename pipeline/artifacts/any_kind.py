"""What a user means where it may be of several kinds: one rule for all commands."""

from collections.abc import Sequence

from cache.objects import Objects
from cache.store import open_existing_store
from pipeline.artifacts.documents import DOCUMENTS, Document
from pipeline.artifacts.names import list_names, read_name
from pipeline.artifacts.resolve import Place, is_there, latest_id, list_artifacts, resolve
from pipeline.kinds import MAKE, SAY, Kind
from spg_core.errors import ArtifactError, NotInStore
from spg_core.nearest import near


def resolve_any(store: Objects, reference: str, kinds: Sequence[Kind]) -> Place[Document]:
    """Find what is called by an id, a name, `latest`, or the start of an id, in this order.

    The kind may stand before it, `guides/latest`. A name wins over the start of an id of another
    kind also where what it meant is gone.

    Raises: NotInStore where there is none, ArtifactError where several fit; CorruptStore.
    """
    of, slash, rest = reference.partition("/")
    if slash and of in kinds:
        return resolve(store, DOCUMENTS[_as_kind(of)], rest)
    called = [kind for kind in kinds if is_there(store, kind, reference)]
    called = called or [kind for kind in kinds if _meant(store, kind, reference) is not None]
    fitting = [(kind, reference) for kind in called] or _started(store, reference, kinds)
    match fitting:
        case [(kind, one)]:
            return resolve(store, DOCUMENTS[kind], one)
        case []:
            raise NotInStore(_nothing(store, reference, kinds))
    several = ", ".join(f"{kind}/{one}" for kind, one in fitting)
    raise ArtifactError(f"{reference!r} means several: {several}; type one of these")


def _meant(store: Objects, kind: Kind, reference: str) -> str | None:
    if reference == "latest":
        return latest_id(store, kind)
    return read_name(store, kind, reference)


def _started(store: Objects, start: str, kinds: Sequence[Kind]) -> list[tuple[Kind, str]]:
    return [
        (kind, one)
        for kind in kinds
        for one in list_artifacts(store, kind)
        if one.startswith(start)
    ]


def _as_kind(text: str) -> Kind:
    return next(kind for kind in DOCUMENTS if kind == text)


def _nothing(store: Objects, reference: str, kinds: Sequence[Kind]) -> str:
    """Say that nothing fits, and what is near, or how the first is made."""
    ids = [one for kind in kinds for one in list_artifacts(store, kind)]
    known = [*ids, *(one for kind in kinds for one in list_names(store, kind))]
    if not known:
        open_existing_store(store)  # of a mistyped store it is said that there is none
    said = ", ".join(SAY[kind] for kind in kinds)
    told = f"nothing in {store.where} is called {reference!r}{near(reference, known)}; "
    if not ids:
        return f"{told}it has none of {said} yet; `spg-pipe {MAKE[kinds[0]]}` makes the first"
    return f"{told}`spg-pipe ls` lists what there is ({said})"

"""Which artifact a user means, of whatever kind."""

import re

from cache.objects import Objects
from cache.store import open_existing_store, open_store
from pipeline.artifacts.documents import DOCUMENTS, Document
from pipeline.artifacts.names import list_names, read_name
from pipeline.artifacts.resolve import Place, latest_id, list_artifacts, resolve
from pipeline.kinds import JSON, SAY, Kind
from pipeline.progress import say
from spg_core.errors import ArtifactError, NotInStore
from spg_core.nearest import near

_PATH = re.compile(rf"(?P<store>.+)/(?P<inside>(?:{'|'.join(JSON)})/[^/]+)/?", re.DOTALL)


def find_any(store: Objects, reference: str) -> Place[Document]:
    """Find the artifact that a user calls by an id, its start, a name, `latest` or a path.

    The kind may stand before it, `guides/latest`; it has to where several kinds fit. Says on stderr
    which artifact it is, where the reference is not its id. A path may lead into another store,
    which is then the place's.

    Raises: NotInStore where there is none, ArtifactError where several fit.
    """
    path = _PATH.fullmatch(reference)
    if path is not None:
        store, inside = open_store(path["store"], read_only=store.read_only), path["inside"]
        return find_any(open_existing_store(store), inside)
    kind, slash, rest = reference.partition("/")
    if slash and kind in JSON:
        place = resolve(store, DOCUMENTS[kind], rest)
    else:
        place = _of_any_kind(store, reference)
    if reference not in (place.folder, place.folder.partition("/")[2]):
        say(f"{reference}: {place.folder}")
    return place


def _of_any_kind(store: Objects, reference: str) -> Place[Document]:
    ids = {kind: list_artifacts(store, kind) for kind in JSON}
    whole = [kind for kind in JSON if reference in ids[kind]]
    named = [kind for kind in JSON if _meant(store, kind, reference) is not None]
    started = [f"{kind}/{one}" for kind in JSON for one in ids[kind] if one.startswith(reference)]
    fitting = [f"{kind}/{reference}" for kind in whole or named] or started
    match fitting:
        case [only]:
            kind, _, rest = only.partition("/")
            return resolve(store, DOCUMENTS[_as_kind(kind)], rest)
        case []:
            raise NotInStore(_nothing(store, reference, ids))
        case several:
            raise ArtifactError(
                f"{reference!r} means several: {', '.join(several)}; type more of the id, or the "
                "kind before it"
            )


def _meant(store: Objects, kind: Kind, reference: str) -> str | None:
    if reference == "latest":
        return latest_id(store, kind)
    return read_name(store, kind, reference)


def _as_kind(text: str) -> Kind:
    return next(kind for kind in JSON if kind == text)


def _nothing(store: Objects, reference: str, ids: dict[Kind, list[str]]) -> str:
    """Say that nothing fits, and what is near."""
    known = [one for kind in JSON for one in (*ids[kind], *list_names(store, kind))]
    if not known:
        open_existing_store(store)  # of a mistyped store it is said that there is none
    said = ", ".join(SAY.values())
    return (
        f"nothing in {store.where} is called {reference!r}{near(reference, known)}; `spg-pipe ls` "
        f"lists what there is ({said})"
    )

"""Which artifact a user means, of whatever kind."""

import re

from cache.objects import Objects
from cache.store import open_existing_store, open_store
from pipeline.artifacts.any_kind import resolve_any
from pipeline.artifacts.documents import Document
from pipeline.artifacts.resolve import Place
from pipeline.kinds import JSON
from pipeline.terminal.progress import say

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
    place = resolve_any(store, reference, tuple(JSON))
    if reference not in (place.folder, place.folder.partition("/")[2]):
        say(f"{reference}: {place.folder}")
    return place

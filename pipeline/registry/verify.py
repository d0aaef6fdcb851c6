"""Check artifacts: every one is read by its digest, and what it stands on must be there."""

from collections.abc import Iterable

from cache.objects import Objects
from pipeline.artifacts.documents import Document
from pipeline.artifacts.notes import THRESHOLDS, ThresholdDocument, read_note
from pipeline.artifacts.parse import LARGEST_BYTES, read_json
from pipeline.artifacts.read import read_both
from pipeline.artifacts.resolve import Place
from pipeline.caches.answers import Spoilt, Verified
from pipeline.kinds import BODY, JSON
from pipeline.prediction.familiar_file import file_of as familiar_file
from pipeline.prediction.familiar_file import load_familiar
from pipeline.registry.find import find_any
from pipeline.registry.survey import Held, Survey, survey
from pipeline.terminal.progress import say
from spg_core.errors import NotInStore, SpgError, StoreError


def verify_artifacts(store: Objects) -> list[Verified]:
    """Check every finished artifact of a store, and name what is none.

    An artifact that stands on another needs it; tokens may be elsewhere, since a detector does
    without them.
    """
    seen = survey(store)
    for one in seen.artifacts.values():
        if one.state == "unfinished":
            say(f"{one.folder} is not finished and is passed over")
    strange = [
        Verified(name, "", 0, 0, [Spoilt(name, text)]) for name, text in seen.problems.items()
    ]
    finished = (one for one in seen.artifacts.values() if one.state != "unfinished")
    return strange + [_verify(one, store) for one in finished]


def verify_some(store: Objects, references: Iterable[str]) -> list[Verified]:
    """Check the artifacts that a user names, with their kind before it.

    Raises: NotInStore, ArtifactError.
    """
    found: list[Verified] = []
    for reference in references:
        place = find_any(store, reference)
        seen: Survey = survey(place.store, [place.kind])
        if place.folder not in seen.artifacts:
            raise NotInStore(f"{place.path}: {seen.problems.get(place.folder, 'went away')}")
        found.append(_verify(seen.artifacts[place.folder], place.store))
    return found


def _verify(one: Held, store: Objects) -> Verified:
    problems = list(_problems(one, store))
    return Verified(one.folder, "", one.size_bytes, len(one.objects), problems)


def _problems(one: Held, store: Objects) -> Iterable[Spoilt]:
    document = one.place.name(JSON[one.kind])
    if one.problem is not None:
        yield Spoilt(document, one.problem)
        return
    try:
        read_both(one.place)
    except SpgError as error:
        yield Spoilt(one.place.name(BODY[one.kind]), str(error))
    for parent in one.parents:
        if parent.kind is not None and not parent.is_in(store):
            yield Spoilt(document, f"stands on {parent.folder}, which is not in {store.where}")
    for note in one.objects:
        if note.name.endswith(".json") and ".zarr/" not in note.name and note.name != document:
            yield from _problems_of_note(one.place, store, note.name)


def _problems_of_note(place: Place[Document], store: Objects, name: str) -> Iterable[Spoilt]:
    try:
        if f"/{THRESHOLDS}/" in name:
            saved = read_note(store, name, ThresholdDocument)
            name = place.name(familiar_file(saved.familiar or ""))
            load_familiar(place, saved)
        else:
            read_json(store.get(name, LARGEST_BYTES), f"{store.where}/{name}")
    except StoreError as error:
        yield Spoilt(name, str(error))

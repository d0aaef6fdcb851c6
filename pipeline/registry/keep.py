"""List, describe, remove and name artifacts."""

from collections.abc import Sequence

from cache.gc import refuse_links
from cache.objects import Objects
from cache.store import open_existing_store
from pipeline.artifacts import to_json
from pipeline.artifacts.names import drop_name, give_name, list_names
from pipeline.artifacts.told import told
from pipeline.caches.answers import Trouble
from pipeline.caches.report import troubles
from pipeline.kinds import JSON, Kind
from pipeline.registry.answers import Branch, Gone, Holdings, Listed, Naming, Removal, Shown
from pipeline.registry.find import find_any
from pipeline.registry.parents import Parent
from pipeline.registry.survey import Held, Survey, survey
from spg_core.errors import ArtifactError, NotInStore, StoreError


def holdings(store: Objects, kinds: Sequence[Kind]) -> Holdings:
    """Give the artifacts of a store, of some kinds or of all."""
    seen = survey(store, kinds or tuple(JSON))
    return Holdings(
        store.where, [_listed(one) for one in seen.artifacts.values()], troubles(seen.problems)
    )


def _listed(one: Held) -> Listed:
    return Listed(
        artifact=one.folder,
        state=one.state,
        names=one.names,
        created=None if one.document is None else one.document.created,
        bytes=one.size_bytes,
        stands_on=[parent.folder for parent in one.parents],
        problem=one.problem,
    )


def describe(store: Objects, reference: str) -> Shown:
    """Give all that is told of an artifact. Raises: NotInStore, ArtifactError, CorruptStore."""
    place = find_any(store, reference)
    seen = survey(place.store)
    one = seen.artifacts.get(place.folder)
    if one is None or one.document is None:
        trouble = seen.problems.get(place.folder) if one is None else one.problem
        raise StoreError(f"{place.path}: {trouble or 'it went away meanwhile'}")
    start = f"{one.folder}/"
    return Shown(
        id=one.id,
        kind=one.kind,
        path=one.place.path,
        names=one.names,
        files={each.name.removeprefix(start): each.size_bytes for each in one.objects},
        document=to_json(one.document),
        stands_on=[_branch(seen, parent, (one.folder,)) for parent in one.parents],
        stood_on_by=[each.folder for each in seen.descendants(one.folder)],
        text=told(one.document, one.place.path),
    )


def _branch(seen: Survey, parent: Parent, above: tuple[str, ...]) -> Branch:
    """Give a parent with its own; one that stands on itself by a forged document ends there."""
    one = seen.artifacts.get(parent.folder)
    own = () if one is None or parent.folder in above else one.parents
    return Branch(
        folder=parent.folder,
        is_here=parent.is_in(seen.store),
        stands_on=[_branch(seen, each, (*above, parent.folder)) for each in own],
    )


def remove(
    store: Objects, references: Sequence[str], *, with_children: bool, delete: bool
) -> Removal:
    """Give what goes with some artifacts; delete it if asked to, children first.

    Names and `latest` stay as they are: what they mean is told by whoever uses them.

    Raises:
        ArtifactError: others stand on them, and `with_children` is False; or several fit a name.
        NotInStore, StoreError: none fits, or it lies behind a link or in another store.
    """
    seen = survey(store)
    named = [_choose(seen, each).folder for each in references]
    above = {child.folder: folder for folder in named for child in seen.descendants(folder)}
    others = [folder for folder in above if folder not in named]
    if others and not with_children:
        raise ArtifactError(
            f"{', '.join(named)}: others stand on it: {', '.join(others)}; --with-children removes "
            "them, too"
        )
    # what has fewer below it is no parent of what has more
    order = sorted({*named, *others}, key=lambda one: (len(seen.descendants(one)), one))
    for folder in order:
        refuse_links(store, folder)
    going = [_gone(seen.artifacts[one], one, above if one in others else {}) for one in order]
    problems = _unread(seen, order)
    if delete:
        problems += [left for folder in order for left in _delete(seen.artifacts[folder])]
    return Removal(store.where, delete, sum(one.bytes for one in going), going, problems)


def _choose(seen: Survey, reference: str) -> Held:
    """Find an artifact, also one that is unfinished or damaged, by its whole id."""
    whole = [one for one in seen.artifacts.values() if reference in (one.folder, one.id)]
    if len(whole) == 1:
        return whole[0]
    place = find_any(seen.store, reference)
    if place.store is not seen.store:
        raise StoreError(f"{place.path} is in another store; name that with --store")
    if place.folder not in seen.artifacts:
        raise NotInStore(f"{place.path}: {seen.problems.get(place.folder, 'went away meanwhile')}")
    return seen.artifacts[place.folder]


def _gone(one: Held, folder: str, above: dict[str, str]) -> Gone:
    reason = f"stands on {above[folder]}" if folder in above else "named"
    return Gone(one.folder, one.size_bytes, len(one.objects), one.names, reason)


def _unread(seen: Survey, going: Sequence[str]) -> list[Trouble]:
    """Name what cannot be read: it may stand on what goes."""
    damaged = {
        one.folder: one.problem
        for one in seen.artifacts.values()
        if one.problem is not None and one.folder not in going
    }
    return troubles(damaged)


def _delete(one: Held) -> list[Trouble]:
    """Delete an artifact, its JSON first: cut off, it is unfinished and not false."""
    store, last = one.place.store, one.place.name(JSON[one.kind])
    for each in sorted(one.objects, key=lambda each: each.name != last):
        store.delete(each.name)
    if one.id in store.folders(one.kind):
        return [Trouble(one.folder, "is left, with what is not a store's own: links, or pipes")]
    return []


def call(store: Objects, reference: str, name: str, *, move: bool) -> Naming:
    """Let a name mean an artifact.

    Raises: ArtifactError where it means another; NotInStore; StoreError.
    """
    place = find_any(store, reference)
    identifier = place.folder.partition("/")[2]
    give_name(place.store, place.kind, identifier, name, move=move)
    return Naming(name, place.folder)


def uncall(store: Objects, name: str) -> Naming:
    """Take a name away, of the one kind that has it, or of the kind that stands before it.

    Raises: NotInStore, ArtifactError.
    """
    kind, slash, rest = name.partition("/")
    kinds = [one for one in JSON if not slash or one == kind]
    held = [one for one in kinds if (rest or name) in list_names(store, one)]
    match held:
        case [only]:
            drop_name(store, only, rest or name)
            return Naming(rest or name, None)
        case []:
            open_existing_store(store)
            raise NotInStore(f"nothing in {store.where} is named {name!r}")
        case several:
            said = ", ".join(f"{one}/{name}" for one in several)
            raise ArtifactError(f"{name!r} means several: {said}; put the kind before it")

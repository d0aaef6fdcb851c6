"""Two writers of one artifact, whose numbers differ, in every order and with every crash.

Fits of one request differ in bits on a GPU, with other threads, by another path. Whatever the order
in which two of them reach the store, and wherever one dies, a reader finds a whole artifact of one
of them, or none and the next run makes it.

A writer is run again from its start for each of its steps, with the answers it had: so every order
of steps can be tried without threads. What it asks next follows from its answers alone, whatever
the other did, and is found out once.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import pyarrow as pa
import pytest

from cache.objects import ObjectInfo
from pipeline.artifacts import find_artifact, load_artifact, save_artifact
from pipeline.artifacts.documents import GuidesDocument, ScoresDocument
from pipeline.scoring.document import categories_file
from spg_core.errors import CorruptStore, NotInStore
from tests.artifact_samples import (
    guides_document,
    guides_tensors,
    scores_document,
)

Stored = dict[str, bytes]


Request = tuple[str, str, bytes]
"""What a writer asks of a store: an operation, a name, and what is written."""


class Paused(Exception):
    """A writer has no answer to its next request yet."""

    def __init__(self, request: Request) -> None:
        self.request = request


def perform(objects: Stored, request: Request) -> object:
    """Do what is asked of a store; give the answer, None where a name is not there."""
    operation, name, data = request
    match operation:
        case "get":
            return objects.get(name)
        case "size":
            return len(objects[name]) if name in objects else None
        case "put_new" if name in objects:
            return False
        case "put_new" | "replace":
            objects[name] = data
            return True
    raise ValueError(operation)


class Memory:
    """A store in memory; given answers, it gives these and then pauses the writer."""

    where = "memory"
    read_only = False

    def __init__(self, objects: Stored, answers: Iterable[object] | None = None) -> None:
        self.objects = objects
        self.answers = None if answers is None else iter(answers)

    def _ask(self, operation: str, name: str, data: bytes = b"") -> object:
        request = (operation, name, data)
        if self.answers is None:
            return perform(self.objects, request)
        for answer in self.answers:
            return answer
        raise Paused(request)

    def get(self, name, max_bytes=0):
        data = self._ask("get", name)
        if data is None:
            raise NotInStore(f"{name} is not in the store")
        return data

    def size(self, name):
        return self._ask("size", name)

    def walk(self, prefix):
        names = sorted(name for name in self.objects if name.startswith(f"{prefix}/"))
        return iter([ObjectInfo(name, len(self.objects[name]), 0.0) for name in names])

    def folders(self, prefix):
        return sorted({name.split("/")[0] for name in self.objects})

    def put_new(self, name, parts):
        return self._ask("put_new", name, b"".join(parts))

    def replace(self, name, parts):
        self._ask("replace", name, b"".join(parts))


def as_store(objects: Stored) -> Any:
    """Give what is stored as a store that anybody may read."""
    return Memory(objects)


@dataclass(frozen=True)
class Case:
    """A kind of artifact, made by writers 0, 1, 2 with numbers of their own."""

    kind: Any
    id: str
    write: Callable[[Memory, int], object]


def _write_guides(store, writer):
    document = guides_document()
    training = replace(document.training, steps=writer)
    if find_artifact(store, GuidesDocument, document.id) is None:
        save_artifact(store, replace(document, training=training), guides_tensors(writer))


def _write_scores(store, writer):
    document = scores_document()
    mean = replace(document.mean, image_ap=writer / 4)
    if find_artifact(store, ScoresDocument, document.id, categories_file) is None:
        table = pa.table({"score": [writer / 4]})
        save_artifact(store, replace(document, mean=mean), table, categories_file)


CASES = [
    Case("guides", guides_document().id, _write_guides),
    Case("scores", scores_document().id, _write_scores),
]


def next_request(case, writer, answers):
    """Give what a writer asks after the answers it had; None where it is done."""
    try:
        case.write(Memory({}, answers), writer)
    except Paused as paused:
        return paused.request
    return None


def every_end(case, start, check=lambda _: None):
    """Try all orders of two writers' steps and crashes; give each end and how many finished."""
    ends, seen, checked = {}, set(), set()
    asks = cache(partial(next_request, case))  # whatever the other writer did
    open_states = [(start, ((), ()), ("running", "running"))]
    while open_states:
        objects, answers, states = open_states.pop()
        stored = hash(tuple(sorted(objects.items())))
        key = (stored, answers, states)
        if key in seen:
            continue
        seen.add(key)
        if stored not in checked:
            checked.add(stored)
            check(objects)
        if "running" not in states:
            ends[stored, states.count("done")] = (objects, states.count("done"))
        for writer in (0, 1):
            if states[writer] != "running":
                continue
            open_states.append((objects, answers, changed(states, writer, "dead")))
            request = asks(writer, answers[writer])
            if request is None:
                open_states.append((objects, answers, changed(states, writer, "done")))
                continue
            after = dict(objects)
            heard = (*answers[writer], perform(after, request))
            open_states.append((after, changed(answers, writer, heard), states))
    return list(ends.values())


def changed(pair, at, value):
    """Give a pair with another value at a place."""
    return (value, pair[1]) if at == 0 else (pair[0], value)


def whole_or_none(case: Case, objects: Stored) -> None:
    """A reader finds a whole artifact or none, never parts of two."""
    try:
        load_artifact(as_store(objects), case.kind, case.id)
    except NotInStore:
        return


@pytest.fixture(autouse=True)
def listing(monkeypatch):
    """The memory lists no artifacts; nothing here needs that."""
    monkeypatch.setattr("pipeline.artifacts.resolve.list_artifacts", lambda *_: [])
    monkeypatch.setattr("pipeline.artifacts.terms.datetime", _Noon)


class _Noon:
    """One time, so that a writer that runs again writes the same."""

    @staticmethod
    def now(_):
        from datetime import UTC, datetime

        return datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.kind)
def test_readers_find_a_whole_artifact_or_none_whatever_the_order(case):
    ends = every_end(case, {}, partial(whole_or_none, case))

    assert len(ends) > 5
    for objects, n_done in ends:
        if n_done:
            assert load_artifact(as_store(objects), case.kind, case.id)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.kind)
def test_what_a_crash_left_is_finished_by_the_next_run_as_it_is(case):
    for objects, _ in every_end(case, {}):
        before = dict(objects)

        case.write(Memory(objects), 2)

        made = load_artifact(as_store(objects), case.kind, case.id)
        bodies = [name for name in before if name.endswith((".safetensors", "images.parquet"))]
        assert all(objects[name] == before[name] for name in bodies)
        assert made.id == case.id


def finished(case: Case, writer: int) -> Stored:
    objects: Stored = {}
    case.write(Memory(objects), writer)
    return objects


def wrecks(case: Case) -> dict[str, Stored]:
    """Give what earlier versions, bad disks and careless copies leave."""
    one, other = finished(case, 0), finished(case, 1)
    [json_name] = [name for name in one if name.endswith(".json")]
    [body] = [name for name in one if name.endswith((".safetensors", "images.parquet"))]
    flipped = bytearray(one[body])
    flipped[-1] ^= 1
    return {
        "the JSON of another's numbers": {**one, body: other[body]},
        "numbers that were changed": {**one, body: bytes(flipped)},
        "numbers that are cut off": {**one, body: one[body][:100]},
        "no numbers": {json_name: one[json_name]},
        "a torn JSON": {**one, json_name: one[json_name][:50]},
        "an edited JSON": {**one, json_name: one[json_name].replace(b'"nuts"', b'"bolts"')},
        "numbers that describe nothing, alone": {body: b"PAR1 or what not"},
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.kind)
@pytest.mark.parametrize("wreck", wrecks(CASES[0]))
def test_a_wreck_is_refused_named_and_made_whole_by_the_next_run(case, wreck, capsys):
    objects = wrecks(case)[wreck]
    with pytest.raises((CorruptStore, NotInStore)):
        load_artifact(as_store(objects), case.kind, case.id)

    case.write(Memory(objects), 2)

    said = capsys.readouterr().err
    assert case.id in said
    assert "again" in said
    assert load_artifact(as_store(objects), case.kind, case.id).id == case.id


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.kind)
@pytest.mark.parametrize("wreck", wrecks(CASES[0]))
def test_two_who_mend_a_wreck_at_once_leave_what_the_next_run_makes_whole(case, wreck):
    for objects, _ in every_end(case, wrecks(case)[wreck]):
        case.write(Memory(objects), 2)

        assert load_artifact(as_store(objects), case.kind, case.id)

"""Two writers of one artifact, whose numbers differ, in every order and with every crash.

Fits of one request differ in bits on a GPU, with other threads, by another path. Whatever the order
in which two of them reach the store, and wherever one dies, a reader finds a whole artifact of one
of them, or none and the next run makes it.

A writer is run again from its start for each of its steps, with the answers it had: so every order
of steps can be tried without threads.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
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


class Paused(Exception):
    """A writer would take its next step now."""


class Memory:
    """A store in memory. Answers that are known are given again; then one step is taken."""

    where = "memory"
    read_only = False

    def __init__(self, objects: Stored, answers: list[object] | None = None) -> None:
        self.objects = objects
        self.answers = answers
        self.n_asked = 0

    def _step(self, operation: Callable[[], object]) -> object:
        if self.answers is None:
            return operation()
        self.n_asked += 1
        if self.n_asked <= len(self.answers):
            answer = self.answers[self.n_asked - 1]
        elif self.n_asked == len(self.answers) + 1 and not self.stepped:
            try:
                answer = operation()
            except NotInStore as error:
                answer = error
            self.answers.append(answer)
            self.stepped = True
        else:
            raise Paused
        if isinstance(answer, NotInStore):
            raise answer
        return answer

    stepped = False

    def get(self, name, max_bytes=0):
        def read():
            if name not in self.objects:
                raise NotInStore(f"{name} is not in the store")
            return self.objects[name]

        return self._step(read)

    def size(self, name):
        return self._step(lambda: len(self.objects[name]) if name in self.objects else None)

    def walk(self, prefix):
        names = sorted(name for name in self.objects if name.startswith(f"{prefix}/"))
        return iter([ObjectInfo(name, len(self.objects[name]), 0.0) for name in names])

    def folders(self, prefix):
        return sorted({name.split("/")[0] for name in self.objects})

    def put_new(self, name, parts):
        def put():
            if name in self.objects:
                return False
            self.objects[name] = b"".join(parts)
            return True

        return self._step(put)

    def replace(self, name, parts):
        self._step(lambda: self.objects.update({name: b"".join(parts)}))


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


def take_step(case, writer, objects, answers):
    """Let a writer take one more step; give the store, its answers, and whether it is done."""
    after, known = dict(objects), list(answers)
    try:
        case.write(Memory(after, known), writer)
    except Paused:
        return after, tuple(known), False
    return after, tuple(known), True


def every_end(case, start, check=lambda _: None):
    """Try all orders of two writers' steps and crashes; give each end and how many finished."""
    ends, seen = {}, set()
    open_states = [(start, ((), ()), ("running", "running"))]
    while open_states:
        objects, answers, states = open_states.pop()
        stored = hash(tuple(sorted(objects.items())))
        key = (stored, hash(str(answers)), states)
        if key in seen:
            continue
        if stored not in {one for one, *_ in seen}:
            check(objects)
        seen.add(key)
        if "running" not in states:
            ends[stored, states.count("done")] = (objects, states.count("done"))
        for writer in (0, 1):
            if states[writer] != "running":
                continue
            dead = tuple("dead" if i == writer else state for i, state in enumerate(states))
            open_states.append((objects, answers, dead))
            after, more, done = take_step(case, writer, objects, answers[writer])
            heard = tuple(more if i == writer else old for i, old in enumerate(answers))
            now = "done" if done else "running"
            moved = tuple(now if i == writer else state for i, state in enumerate(states))
            open_states.append((after, heard, moved))
    return list(ends.values())


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

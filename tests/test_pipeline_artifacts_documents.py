"""Every field of every stored document, made wrong in every way: refused by name, or read as it is.

A document is changed in two ways: in the JSON alone, which then disagrees with the numbers' own
description, and in both alike, as a forger or another program would.
"""

import copy
import hashlib
import json
from dataclasses import replace
from functools import partial

import pytest
import torch

from cache.store import open_store
from pipeline.artifacts import load_artifact, save_artifact, to_json
from pipeline.artifacts.bodies import encode_table, encode_tensors
from pipeline.artifacts.notes import read_note, write_note
from pipeline.kinds import BODY, JSON
from spg_core.errors import CorruptStore, SpgError, StoreError
from tests.artifact_samples import (
    figure_document,
    guides_document,
    guides_tensors,
    latest_document,
    memory_document,
    memory_tensors,
    sae_document,
    sae_tensors,
    scores_document,
    scores_table,
    sweep_document,
    threshold_document,
)

MISSING = object()
WRONG = [
    *(MISSING, None, True, 0, 1, -1, 0.5, -0.5, 2, 2**31, 2**63, 2**64, 10**400, 1e308, -1e308),
    *("", "NaN", "inf", "-inf", "1", "x" * 5000, "../../etc/passwd", "a\nb", "\x1b[31m", "\x9b"),
    *("nuts-tiny-c4-k2-99999999", "0" * 16, "f" * 64, "2026-01-31T12:00:00", "paper"),
    *([], [1], [[1]], {}, {"a": 1}, {"a": {"b": [None]}}),
]
ARTIFACTS = {
    "saes": (sae_document(), sae_tensors()),
    "guides": (guides_document(), guides_tensors()),
    "memories": (memory_document(), memory_tensors()),
    "scores": (scores_document(), scores_table()),
    "sweeps": (sweep_document(), scores_table()),
    "figures": (figure_document(), scores_table()),
}
EVERY = pytest.mark.parametrize(
    "share", [pytest.param(1, marks=pytest.mark.slow, id="every"), pytest.param(6, id="some")]
)
NOTES = {"threshold.json": threshold_document(), "latest/guides.json": latest_document()}


def paths(value, at=()):
    """Give the path of every field, and of every entry of a list."""
    if not isinstance(value, dict | list):
        return [at]
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    return ([at] if at else []) + [path for name, one in inner for path in paths(one, (*at, name))]


def changed(raw, path, wrong):
    """Give a document with one field changed; None where that is no change."""
    made = copy.deepcopy(raw)
    *parents, last = path
    holder = made
    for name in parents:
        holder = holder[name]
    if wrong is MISSING:
        del holder[last]
    else:
        holder[last] = wrong
    same = json.dumps(made) == json.dumps(raw)
    return None if same else made


def changes(raw, share):
    """Yield documents with one field changed: every way, or a `share` of them a field in turn."""
    for number, path in enumerate(paths(raw)):
        for wrong in WRONG[number % share :: share]:
            made = changed(raw, path, wrong)
            if made is not None:
                yield path, made


def names_it(error: SpgError, files, path) -> bool:
    """Tell whether a message names the file, and the field or a field of which it is a part."""
    text = str(error)
    known = [part for part in path if isinstance(part, str)]
    whole = {"digest": "is not the file its JSON", "kind": "does not describe"}
    said = known[-1:] + known[-2:-1] + [whole.get(str(path[0]), known[0])]
    return any(file in text for file in files) and any(word in text for word in said)


def answer(read):
    """Give what reading gives, a document or the refusal."""
    try:
        return read()
    except CorruptStore as error:
        return error


def check_answer(found, raw, files, path) -> None:
    """See that a document is what is written, and that a refusal is by name and in one line."""
    if isinstance(found, CorruptStore):
        assert names_it(found, files, path), f"{path}: {found}"
        assert "\n" not in str(found)
        return
    told = {name: value for name, value in to_json(found).items() if name != "created"}
    expected = {name: value for name, value in raw.items() if name in told}
    assert expected.items() <= told.items(), path


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path)


def write(store, name, data: bytes) -> None:
    """Write without fsync: thousands of files."""
    store.local_path(name).write_bytes(data)


@EVERY
@pytest.mark.parametrize("kind", ARTIFACTS)
def test_a_field_changed_in_the_json_alone_is_refused_by_name(store, kind, share):
    document, numbers = ARTIFACTS[kind]
    made = save_artifact(store, document, numbers)
    name = made.place.name(JSON[kind])
    raw = json.loads(store.get(name))
    n_refused = n_tried = 0

    for path, wrong in changes(raw, share):
        write(store, name, json.dumps(wrong).encode())
        n_tried += 1
        found = answer(partial(load_artifact, store, kind, document.id))
        if isinstance(found, CorruptStore):
            check_answer(found, wrong, (JSON[kind], BODY[kind]), path)
            n_refused += 1
        else:
            # when it was made is not known to the numbers; and 1.0 is 1
            assert path == ("created",) or found.document == made.document, path

    assert n_refused > 0.9 * n_tried > 500 / share


@EVERY
@pytest.mark.parametrize("kind", ARTIFACTS)
def test_a_field_forged_in_json_and_numbers_is_refused_by_name_or_read_as_it_is(store, kind, share):
    document, numbers = ARTIFACTS[kind]
    made = save_artifact(store, document, numbers)
    raw = json.loads(store.get(made.place.name(JSON[kind])))
    carried = {k: v for k, v in raw.items() if k not in ("created", "digest")}
    encode = encode_tensors if kind in ("saes", "guides", "memories") else encode_table
    n_tried = 0

    for path, wrong in changes(carried, share):
        body = encode(numbers, json.dumps(wrong))
        forged = wrong | {"created": raw["created"], "digest": hashlib.sha256(body).hexdigest()}
        write(store, made.place.name(BODY[kind]), body)
        write(store, made.place.name(JSON[kind]), json.dumps(forged).encode())
        n_tried += 1

        found = answer(partial(load_artifact, store, kind, document.id))
        told = found if isinstance(found, CorruptStore) else found.document
        check_answer(told, wrong, (JSON[kind], BODY[kind]), path)

    assert n_tried > 500 / share


@EVERY
@pytest.mark.parametrize("name", NOTES)
def test_a_field_of_a_note_is_refused_by_name_or_read_as_it_is(store, name, share):
    note = NOTES[name]
    write_note(store, name, note)
    raw = json.loads(store.get(name))

    for path, wrong in changes(raw, share):
        write(store, name, json.dumps(wrong).encode())

        check_answer(answer(partial(read_note, store, name, type(note))), wrong, (name,), path)


HOSTILE = {
    "empty": b"",
    "a byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": "{}".encode("utf-16"),
    "Latin-1": '{"id": "Gerät"}'.encode("latin-1"),
    "NaN": b'{"a": NaN}',
    "minus infinity": b'{"a": -Infinity}',
    "a number past every range": b'{"a": 1e999}',
    "a number of 10,000 digits": b'{"a": ' + b"9" * 10_000 + b"}",
    "nested lists": b"[" * 200_000,
    "nested objects": b'{"a":' * 200_000,
    "a key twice": b'{"kind": "guides", "kind": "saes"}',
    "half a surrogate pair": b'{"a": "\\ud800"}',
    "two documents": b"{} {}",
    "a list": b"[]",
    "a word": b'"guides"',
    "cut off": b'{"a": "b',
    "zeros": bytes(1000),
    "huge": b" " * (65 << 20),
}


@pytest.mark.parametrize("kind", ARTIFACTS)
@pytest.mark.parametrize("content", HOSTILE)
def test_what_is_no_document_is_refused_by_the_name_of_its_file(store, kind, content):
    document, numbers = ARTIFACTS[kind]
    made = save_artifact(store, document, numbers)
    write(store, made.place.name(JSON[kind]), HOSTILE[content])

    with pytest.raises(StoreError, match=JSON[kind]) as caught:
        load_artifact(store, kind, document.id)

    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("content", HOSTILE)
def test_a_note_that_is_no_document_is_refused_by_the_name_of_its_file(store, content):
    write_note(store, "threshold.json", threshold_document())
    write(store, "threshold.json", HOSTILE[content])

    with pytest.raises(StoreError, match=r"threshold\.json"):
        read_note(store, "threshold.json", type(threshold_document()))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("guides_ema", torch.zeros_like, "guides_ema is 0 everywhere for the normal guide"),
        ("guides_raw", lambda t: t * torch.nan, "guides_raw holds values that are not finite"),
        ("guides_ema", lambda t: t.to(torch.int8), r"guides_ema is int8 \(2, 3\), its JSON asks"),
        ("guides_ema", lambda t: t.half(), r"guides_ema is float16 \(2, 3\), its JSON asks"),
        ("guides_ema", lambda t: t[:1], r"is float32 \(1, 3\), its JSON asks for float32 \(2, 3\)"),
        ("guides_ema", lambda t: torch.cat([t, t], 1), r"is float32 \(2, 6\), its JSON asks"),
        ("coefficients_ema", lambda t: t - 2, "coefficients_ema holds coefficients below 0"),
        ("coefficients_raw", lambda t: t[:, :2], r"is float32 \(2, 2\), its JSON asks"),
        ("coefficients_raw", None, "lacks the tensor coefficients_raw"),
    ],
)
def test_guides_that_their_json_does_not_speak_of_are_refused(store, name, change, message):
    tensors = guides_tensors()
    if change is None:
        del tensors[name]
    else:
        tensors[name] = change(tensors[name])

    with pytest.raises(CorruptStore, match=f"guides.safetensors.*{message}"):
        save_artifact(store, guides_document(), tensors)
    assert not list(store.walk("guides"))


def test_tensors_that_nothing_asks_for_are_refused(store):
    with pytest.raises(CorruptStore, match=r"holds a tensor 'more', which nothing asks for"):
        save_artifact(store, sae_document(), {**sae_tensors(), "more": torch.ones(1)})


def test_options_that_an_earlier_version_did_not_have_take_their_defaults(store):
    document = replace(guides_document(), versions={"spg-pipe": "0.0.9"})
    made = save_artifact(store, document, guides_tensors())
    raw = json.loads(store.get(made.place.name("guides.json")))
    raw = {k: v for k, v in raw.items() if k not in ("created", "digest")}
    del raw["config"]["mask_dead"]
    raw["later"] = "what a later version says"
    body = encode_tensors(guides_tensors(), json.dumps(raw))
    digest = hashlib.sha256(body).hexdigest()
    write(store, made.place.name("guides.safetensors"), body)
    stored = raw | {"created": document.created, "digest": digest}
    write(store, made.place.name("guides.json"), json.dumps(stored).encode())

    assert load_artifact(store, "guides", document.id).document == replace(document, digest=digest)


def test_an_option_of_a_later_version_is_refused(store):
    made = save_artifact(store, guides_document(), guides_tensors())
    name = made.place.name("guides.json")
    raw = json.loads(store.get(name))
    raw["config"]["border"] = "reflect"
    write(store, name, json.dumps(raw).encode())

    with pytest.raises(CorruptStore, match=r"guides\.json: config\.border is an option that this"):
        load_artifact(store, "guides", made.id)

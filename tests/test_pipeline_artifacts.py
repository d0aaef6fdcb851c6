import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cache.store import open_store
from pipeline.artifacts import (
    artifact_id,
    list_artifacts,
    load_artifact,
    make_latest,
    save_artifact,
)
from pipeline.artifacts.guides import GuidesTraining
from spg_core.errors import ArtifactError, CorruptStore, NotInStore, StoreError
from tests.artifact_samples import guides_document, guides_tensors

TENSORS = guides_tensors()


def saved(tmp_path, identifier="a-1", **changes):
    store = open_store(tmp_path)
    document = replace(guides_document(identifier), **changes)
    made = save_artifact(store, document, TENSORS)
    make_latest(made.place, made.id)
    return store, made


def test_an_artifact_comes_back_as_it_was_saved(tmp_path):
    store, artifact = saved(tmp_path)

    again = load_artifact(store, "guides", "a-1")

    assert torch.equal(again.tensors["guides_ema"], TENSORS["guides_ema"])
    assert again.document == artifact.document
    assert again.document.parents.sae == guides_document().parents.sae
    assert "torch" in again.document.versions
    assert again.path == str(tmp_path / "guides" / "a-1")


def test_the_same_request_has_the_same_id_and_another_one_another():
    assert artifact_id("x", {"b": 1, "a": 2}) == artifact_id("x", {"a": 2, "b": 1})
    assert artifact_id("x", {"a": 2}) != artifact_id("x", {"a": 3})


@pytest.mark.parametrize("reference", ["a-1", "a", "latest", "folder", "file"])
def test_an_artifact_is_found_by_id_prefix_path_and_latest(tmp_path, reference):
    store, artifact = saved(tmp_path)
    asked = {"folder": artifact.path, "file": f"{artifact.path}/guides.safetensors"}

    assert load_artifact(store, "guides", asked.get(reference, reference)).id == "a-1"


def test_a_path_may_begin_at_home(tmp_path, monkeypatch):
    store, _ = saved(tmp_path / "one")
    monkeypatch.setenv("HOME", str(tmp_path))

    assert load_artifact(store, "guides", "~/one/guides/a-1").id == "a-1"
    with pytest.raises(NotInStore, match="no guides '~nobody-of-this-name/a'"):
        load_artifact(store, "guides", "~nobody-of-this-name/a")


def test_a_path_is_found_from_another_store(tmp_path):
    _, artifact = saved(tmp_path / "one")

    assert load_artifact(open_store(tmp_path / "two"), "guides", artifact.path).id == "a-1"


def test_latest_is_the_youngest(tmp_path):
    store, _ = saved(tmp_path, "b-2")
    saved(tmp_path, "a-1")
    os.utime(tmp_path / "guides" / "b-2" / "guides.json", (0, 0))

    assert load_artifact(store, "guides", "latest").id == "a-1"


def test_a_prefix_of_several_is_refused_with_their_names(tmp_path):
    store, _ = saved(tmp_path, "run-1")
    saved(tmp_path, "run-2")

    with pytest.raises(ArtifactError, match="'run' fits several guides: run-1, run-2"):
        load_artifact(store, "guides", "run")


def test_a_missing_artifact_names_what_is_there(tmp_path):
    store, _ = saved(tmp_path)

    with pytest.raises(NotInStore, match=r"no guides 'zzz' in .*; there are: a-1"):
        load_artifact(store, "guides", "zzz")
    with pytest.raises(NotInStore, match="none yet; `spg-pipe fit-sae` makes them"):
        load_artifact(store, "saes", "latest")


def test_a_mistyped_id_is_answered_with_the_one_that_is_like_it(tmp_path):
    store, _ = saved(tmp_path, "nuts-tiny-c4-k2-0000000a")

    with pytest.raises(NotInStore, match=r"; did you mean 'nuts-tiny-c4-k2-0000000a'\?; there"):
        load_artifact(store, "guides", "nut-tiny-c4-k2-0000000a")


def test_latest_needs_no_list_of_all_artifacts(tmp_path):
    store, _ = saved(tmp_path)
    store.walk = None

    assert load_artifact(store, "guides", "latest").id == "a-1"


def test_a_large_file_of_numbers_is_read_if_its_document_asks_for_as_much(tmp_path, monkeypatch):
    store, artifact = saved(tmp_path)
    monkeypatch.setattr("pipeline.artifacts.read.SMALL_OBJECT_BYTES", 100)

    assert load_artifact(store, "guides", "a-1").document == artifact.document


@pytest.mark.parametrize("damage", ["longer", "head"])
def test_a_large_file_that_nothing_asks_for_takes_no_memory(tmp_path, damage):
    store, artifact = saved(tmp_path)
    body = Path(artifact.path) / "guides.safetensors"
    if damage == "head":
        body.write_bytes((1 << 62).to_bytes(8, "little") + body.read_bytes()[8:])
    os.truncate(body, 1 << 40)

    with pytest.raises(StoreError, match=r"guides\.safetensors"):
        load_artifact(store, "guides", "a-1")


def test_a_name_longer_than_any_is_an_error_of_ours(tmp_path):
    with pytest.raises(StoreError):
        load_artifact(open_store(tmp_path), "guides", "x" * 5000)


def test_a_second_save_changes_nothing(tmp_path):
    _, first = saved(tmp_path, training=GuidesTraining(steps=1, ema_start_share=0.5))

    _, second = saved(tmp_path, training=GuidesTraining(steps=2, ema_start_share=0.5))

    assert second.document.training.steps == first.document.training.steps == 1


def test_tensors_that_were_changed_are_noticed(tmp_path):
    store, _ = saved(tmp_path)
    path = tmp_path / "guides" / "a-1" / "guides.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)

    with pytest.raises(CorruptStore, match="is not the file its JSON was written for"):
        load_artifact(store, "guides", "a-1")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[: len(text) // 2], "is not JSON"),
        (lambda text: "[]", "does not describe guides"),
        (lambda text: text.replace('"kind": "guides"', '"kind": "saes"'), "does not describe"),
        (lambda text: text.replace('"format": 2', '"format": 9'), "has format 9; this version"),
    ],
)
def test_a_torn_or_foreign_document_is_refused_by_name(tmp_path, change, message):
    store, _ = saved(tmp_path)
    path = tmp_path / "guides" / "a-1" / "guides.json"
    path.write_text(change(path.read_text()))

    with pytest.raises(CorruptStore, match=message):
        load_artifact(store, "guides", "a-1")


def test_a_document_holds_no_nan(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        saved(tmp_path, training=GuidesTraining(steps=1, ema_start_share=float("nan")))
    assert not (tmp_path / "guides" / "a-1" / "guides.json").exists()


def test_documents_are_json_that_any_tool_reads(tmp_path):
    _, artifact = saved(tmp_path)

    assert json.loads((Path(artifact.path) / "guides.json").read_text())["id"] == "a-1"


def test_a_folder_with_a_name_of_no_artifact_is_passed_over(tmp_path):
    store, _ = saved(tmp_path)
    for name in ("\x1b[2Jevil", ".hidden", "a\nb"):
        (tmp_path / "guides" / name).mkdir()
        (tmp_path / "guides" / name / "guides.json").write_text("{}")

    assert list_artifacts(store, "guides") == ["a-1"]
    assert load_artifact(store, "guides", "a").id == "a-1"


def test_a_store_that_is_not_there_is_said_not_to_be(tmp_path):
    store = open_store(tmp_path / "mistyped")

    for reference in ("latest", "visa-gabor"):
        with pytest.raises(NotInStore, match=r"no store at .*mistyped, there is no such folder"):
            load_artifact(store, "scores", reference)
    assert not (tmp_path / "mistyped").exists()

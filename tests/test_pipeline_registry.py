"""`ls`, `show`, `rm` and `name`: what stands on what, and nothing goes that others stand on."""

import json
import os
import shutil
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cache.gc import find_garbage
from cache.store import open_store
from pipeline.artifacts import load_artifact, make_latest, save_artifact
from pipeline.artifacts.documents import DOCUMENTS, SweepDocument
from pipeline.artifacts.terms import CacheParent
from pipeline.cli import app
from pipeline.kinds import JSON
from pipeline.registry.find import find_any
from pipeline.registry.parents import parents_of
from spg_core.errors import ArtifactError, ConfigError, NotInStore, StoreError
from spg_core.fields import field_types
from tests.artifact_samples import (
    combination_document,
    combination_tensors,
    figure_document,
    guides_document,
    guides_tensors,
    memory_document,
    memory_tensors,
    sae_document,
    sae_tensors,
    scores_document,
    scores_table,
    sweep_document,
)
from tests.cache_samples import folder_digests

SAE, GUIDES = "nuts-tiny-c4-k2-00000001", "nuts-tiny-c4-k2-00000002"
SCORES = "bolts-from-nuts-00000003"
CACHE = "tokens/nuts/tiny/0123456789abcdef"


@pytest.fixture
def store(tmp_path):
    """One artifact of every kind; the guides stand on the SAE, the scores on the guides."""
    made = open_store(tmp_path / "store")
    save_artifact(made, sae_document(), sae_tensors())
    save_artifact(made, guides_document(), guides_tensors())
    save_artifact(made, memory_document(), memory_tensors())
    save_artifact(made, combination_document(), combination_tensors())
    for document in (scores_document(), sweep_document(), figure_document()):
        save_artifact(made, document, scores_table())
    return made


def run(*words, code=0):
    result = CliRunner().invoke(app, list(map(str, words)))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.stdout


def run_json(*words, code=0):
    return json.loads(run(*words, "--json", code=code))


def test_the_parents_of_every_kind_are_understood():
    for document in DOCUMENTS.values():
        if "parents" in field_types(document):
            made = _made(document)
            told = [getattr(made.parents, one.name) for one in fields(made.parents)]
            named = [
                one
                for value in told
                for one in (value if isinstance(value, list | tuple) else [value])
            ]
            understood = [one.folder for one in parents_of(made)]
            assert len(understood) == sum(one is not None for one in named), (
                f"{document.kind}: {told}"
            )


def _made(document):
    samples = (
        sae_document(),
        guides_document(),
        memory_document(),
        combination_document(),
        scores_document(),
        sweep_document(),
    )
    made = next(one for one in samples if isinstance(one, document))
    if isinstance(made, SweepDocument):
        target = replace(made.parents.target, dataset="bolts")
        return replace(made, parents=replace(made.parents, target=target))
    return made


@dataclass
class _Part:
    cache: CacheParent
    guides: str


@dataclass
class _Parts:
    parts: list[_Part]


def test_parents_are_read_from_nested_parts_whatever_they_are():
    cache = CacheParent(dataset="a", backbone="timm:x", key="0" * 16)
    made = type("Combined", (), {"parents": _Parts(parts=[_Part(cache, "g-00000001")])})()

    assert is_dataclass(made.parents)
    assert [one.folder for one in parents_of(made)] == [
        "guides/g-00000001",
        f"tokens/a/timm-x/{'0' * 16}",
    ]


def test_ls_shows_each_below_what_it_stands_on(store):
    found = run_json("ls", "--store", store.where)
    text = run("ls", "--store", store.where)

    rows = {one["artifact"]: one for one in found["artifacts"]}
    assert rows[f"scores/{SCORES}"]["stands_on"] == [f"guides/{GUIDES}", CACHE]
    assert {row["state"] for row in rows.values()} == {"finished"}
    assert len(rows) == len(JSON)
    lines = [line.split("  finished")[0].rstrip(" -") for line in text.splitlines()]
    tree = [CACHE, f"  saes/{SAE}", f"    guides/{GUIDES}", f"      scores/{SCORES}"]
    at = [next(i for i, line in enumerate(lines) if line.strip() == one.strip()) for one in tree]
    assert at == sorted(at)
    indents = [len(lines[i]) - len(lines[i].lstrip()) for i in at]
    assert [indent - indents[0] for indent in indents] == [0, 2, 4, 6]


def test_ls_takes_kinds_and_refuses_others(store):
    found = run_json("ls", "saes", "guides", "--store", store.where)

    assert len(found["artifacts"]) == 2
    with pytest.raises(ConfigError, match="KINDS is"):
        run("ls", "tokens", "--store", store.where)


def test_show_tells_parents_children_names_and_options(store):
    run("name", GUIDES, "prod-v1", "--store", store.where)

    found = run_json("show", "prod-v1", "--store", store.where)
    text = run("show", "prod-v1", "--store", store.where)

    assert (found["id"], found["kind"], found["names"]) == (GUIDES, "guides", ["prod-v1"])
    assert found["document"]["config"]["epochs"] == 15
    [sae, cache] = found["stands_on"]
    assert (sae["folder"], sae["is_here"]) == (f"saes/{SAE}", True)
    assert [one["folder"] for one in sae["stands_on"]] == [CACHE]
    assert (cache["folder"], cache["is_here"]) == (CACHE, False)
    assert found["stood_on_by"] == [f"scores/{SCORES}"]
    assert f"{CACHE} (not here)" in text
    assert "called prod-v1" in text


def test_every_command_says_what_a_reference_means(store, capsys):
    run("name", GUIDES, "prod-v1", "--store", store.where)
    capsys.readouterr()

    find_any(store, "prod-v1")
    find_any(store, "bolts")
    find_any(store, GUIDES)

    said = capsys.readouterr().err
    assert said.splitlines() == [f"prod-v1: guides/{GUIDES}", f"bolts: scores/{SCORES}"]


def test_what_fits_several_or_nothing_is_refused_with_what_there_is(store):
    with pytest.raises(ArtifactError, match=rf"means several: saes/{SAE}, guides/{GUIDES}"):
        find_any(store, "nuts-tiny")
    with pytest.raises(NotInStore, match=f"did you mean '{SCORES}'"):
        find_any(store, "bolts-from-nut-00000003")
    assert find_any(store, "guides/nuts-tiny").folder == f"guides/{GUIDES}"
    assert find_any(store, f"{store.where}/saes/{SAE}").folder == f"saes/{SAE}"


def test_rm_only_tells_until_asked_to_delete(store):
    before = folder_digests(Path(store.where))

    dry = run("rm", SCORES, "--store", store.where)
    assert "1 artifacts" in dry
    assert "would go; add --delete to remove them" in dry
    assert folder_digests(Path(store.where)) == before
    gone = run_json("rm", SCORES, "--delete", "--store", store.where)

    assert [one["artifact"] for one in gone["artifacts"]] == [f"scores/{SCORES}"]
    assert gone["deleted"]
    assert not (Path(store.where) / "scores").exists()
    left = {name: digest for name, digest in before.items() if not name.startswith("scores/")}
    assert folder_digests(Path(store.where)) == left


def test_rm_refuses_what_others_stand_on_unless_they_go_too(store):
    with pytest.raises(ArtifactError, match=f"guides/{GUIDES}.*scores/{SCORES}.*--with-children"):
        run("rm", f"saes/{SAE}", "--store", store.where)

    words = ("rm", f"saes/{SAE}", "--with-children", "--store", store.where)
    dry = run_json(*words)
    gone = run_json(*words, "--delete")

    order = [f"scores/{SCORES}", f"guides/{GUIDES}", f"saes/{SAE}"]
    assert [one["artifact"] for one in dry["artifacts"]] == order
    assert gone["artifacts"] == dry["artifacts"]
    left = {
        one["artifact"].split("/")[0] for one in run_json("ls", "--store", store.where)["artifacts"]
    }
    assert left == {"sweeps", "figures", "memories", "combinations"}


def test_rm_of_parent_and_child_together_takes_the_child_first(store):
    gone = run_json("rm", SAE, GUIDES, SCORES, "--store", store.where)

    kinds = [one["artifact"].split("/")[0] for one in gone["artifacts"]]
    assert kinds == ["scores", "guides", "saes"]


def test_rm_says_which_names_and_latest_mean_nothing_then(small_store, tmp_path):
    folder = shutil.copytree(small_store.url, tmp_path / "own")
    shutil.rmtree(folder / "scores", ignore_errors=True)  # of tests before this one
    own = open_store(folder)
    make_latest(load_artifact(own, "guides", small_store.guides.id).place, small_store.guides.id)
    run("name", f"guides/{small_store.guides.id}", "prod", "--store", own.where)

    text = run("rm", "prod", "--delete", "--store", own.where)

    assert "'latest' means nothing any more" in text
    assert "'prod' means nothing any more" in text
    with pytest.raises(NotInStore, match="the latest guides were"):
        load_artifact(own, "guides", "latest")
    with pytest.raises(NotInStore, match="the name prod means guides"):
        load_artifact(own, "guides", "prod")
    problems = {one["object"] for one in run_json("ls", "--store", own.where)["problems"]}
    assert {"latest/guides.json", "names/guides/prod.json"} <= problems


def test_a_removal_that_was_cut_off_can_be_finished(store):
    store.delete(f"guides/{GUIDES}/guides.json")

    rows = {one["artifact"]: one for one in run_json("ls", "--store", store.where)["artifacts"]}
    assert rows[f"guides/{GUIDES}"]["state"] == "unfinished"
    run("rm", f"guides/{GUIDES}", "--with-children", "--delete", "--store", store.where)

    assert not (Path(store.where) / "guides").exists()


def test_rm_reaches_nothing_behind_a_link(store, tmp_path):
    outside = tmp_path / "outside"
    shutil.move(Path(store.where) / "scores" / SCORES, outside)
    (Path(store.where) / "scores" / SCORES).symlink_to(outside)
    before = folder_digests(outside)

    found = run_json("ls", "--store", store.where)
    assert {"object": f"scores/{SCORES}", "problem": "is a link, which is not followed"} in found[
        "problems"
    ]
    with pytest.raises(StoreError, match="is a link"):
        run("rm", f"scores/{SCORES}", "--delete", "--store", store.where)
    with pytest.raises(StoreError, match="is a link"):
        run("show", f"scores/{SCORES}", "--store", store.where)

    assert folder_digests(outside) == before


def test_rm_removes_a_link_inside_and_not_what_it_leads_to(store, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"mine")
    (Path(store.where) / "scores" / SCORES / "notes.txt").symlink_to(secret)

    run("rm", SCORES, "--delete", "--store", store.where)

    assert secret.read_bytes() == b"mine"
    assert not (Path(store.where) / "scores").exists()


def test_bad_neighbours_are_named_and_cannot_command_the_terminal(store):
    root, evil = Path(store.where), "\x1b[2J\u202egnp\r\x07"
    (root / f"guides/{evil}").mkdir()
    (root / f"guides/{evil}/guides.json").write_bytes(b"{}")
    (root / "saes/torn-00000000").mkdir()
    (root / "saes/torn-00000000/sae.json").write_bytes(b'{"parents": {"ca')
    (root / "saes/deep-00000000").mkdir()
    (root / "saes/deep-00000000/sae.json").write_bytes(b'{"a":' * 100_000)
    (root / "saes/pipe-00000000").mkdir()
    os.mkfifo(root / "saes/pipe-00000000/sae.json")
    (root / "saes/.DS_Store").write_bytes(b"")
    (root / "names/guides").mkdir(parents=True)
    (root / "names/guides/torn.json").write_bytes(b"[")

    found = run_json("ls", "--store", store.where)
    text = run("ls", "--store", store.where)
    told = run("rm", SCORES, "--store", store.where)

    rows = {one["artifact"]: one for one in found["artifacts"]}
    damaged = {"saes/torn-00000000", "saes/deep-00000000"}
    assert {name for name, row in rows.items() if row["state"] == "damaged"} == damaged
    assert rows[f"guides/{GUIDES}"]["state"] == "finished"
    assert {one["object"] for one in found["problems"]} == {
        f"guides/{evil}",
        "names/guides/torn.json",
    }
    assert all(char.isprintable() or char == "\n" for char in text)
    assert "\\x1b[2J\\u202egnp\\r\\x07" in text
    assert "cannot tell of saes/torn-00000000" in told


def test_a_document_that_stands_on_itself_does_not_hang_anything(store, monkeypatch):
    monkeypatch.setattr(
        "pipeline.registry.survey.parents_of",
        lambda document: [find_parent(document)] if document.kind == "guides" else [],
    )

    assert run_json("show", GUIDES, "--store", store.where)["stood_on_by"] == []
    assert f"guides/{GUIDES}" in run("ls", "--store", store.where)
    run("rm", GUIDES, "--delete", "--store", store.where)


def find_parent(document):
    from pipeline.registry.parents import Parent

    return Parent(f"guides/{document.id}", "guides")


def test_a_name_is_given_moved_and_taken_away(store):
    run("name", GUIDES, "prod", "--store", store.where)
    save_artifact(store, guides_document("nuts-tiny-c4-k2-00000009"), guides_tensors())
    with pytest.raises(ArtifactError, match="--move"):
        run("name", "nuts-tiny-c4-k2-00000009", "prod", "--store", store.where)
    moved = run_json("name", "nuts-tiny-c4-k2-00000009", "prod", "--move", "--store", store.where)
    dropped = run("name", "prod", "--drop", "--store", store.where)

    assert moved == {"name": "prod", "artifact": "guides/nuts-tiny-c4-k2-00000009"}
    assert dropped == "prod means nothing any more\n"
    with pytest.raises(NotInStore, match="is called 'prod'"):
        find_any(store, "prod")
    with pytest.raises(ConfigError, match="give an artifact and a name for it"):
        run("name", "prod", "--store", store.where)


def test_gc_sweeps_what_a_dead_writer_left_of_a_name(store):
    folder = Path(store.where) / "names/guides"
    folder.mkdir(parents=True)
    (folder / ".tmp-0123456789abcdef").write_bytes(b"x")

    assert [one.name for one in find_garbage(store, grace_seconds=0)] == [
        "names/guides/.tmp-0123456789abcdef"
    ]


@pytest.mark.parametrize("command", ["ls", "show x", "rm x", "name x y"])
def test_a_mistyped_store_is_an_error_and_not_made(tmp_path, command):
    place = tmp_path / "mistyped"

    with pytest.raises(NotInStore, match="mistyped, there is no such folder"):
        run(*command.split(), "--store", place)

    assert not place.exists()

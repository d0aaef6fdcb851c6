"""A name means one artifact until it is told to mean another, and never quietly something else."""

import json

import pytest

from cache.store import open_store
from pipeline.artifacts import load_artifact, save_artifact
from pipeline.artifacts.names import (
    drop_name,
    give_name,
    list_names,
    read_name,
    require_free,
)
from pipeline.configs import FitGuidesConfig, FitSaeSource
from pipeline.detection.find import find_detector
from pipeline.fitting.guides import fit_guides
from pipeline.registry.find import find_any
from pipeline.registry.keep import uncall
from spg_core.errors import ArtifactError, ConfigError, CorruptStore, NotInStore
from tests.artifact_samples import (
    combination_document,
    combination_tensors,
    guides_document,
    guides_tensors,
)
from tests.small_store import GUIDES

ONE, TWO = "nuts-tiny-c4-k2-00000002", "nuts-tiny-c4-k2-00000006"
PAIR = "nuts-pair-00000007"


@pytest.fixture
def store(tmp_path):
    """A store of two pairs of guides."""
    made = open_store(tmp_path / "store")
    for identifier in (ONE, TWO):
        save_artifact(made, guides_document(identifier), guides_tensors())
    return made


def test_a_name_is_taken_where_an_id_is_and_said_to_be_it(store, capsys):
    give_name(store, "guides", TWO, "prod-v1")

    assert load_artifact(store, "guides", "prod-v1").id == TWO
    assert f"guides prod-v1: {TWO}" in capsys.readouterr().err


def test_a_name_is_moved_only_when_told_to(store):
    give_name(store, "guides", ONE, "prod")
    give_name(store, "guides", ONE, "prod")

    with pytest.raises(ArtifactError, match=f"prod means guides/{ONE}.*--move"):
        give_name(store, "guides", TWO, "prod")
    assert read_name(store, "guides", "prod") == ONE
    give_name(store, "guides", TWO, "prod", move=True)

    assert load_artifact(store, "guides", "prod").id == TWO


def test_a_name_is_of_one_kind_and_moves_to_another_only_when_told_to(store):
    save_artifact(store, combination_document(PAIR), combination_tensors())
    give_name(store, "guides", ONE, "prod")

    with pytest.raises(ArtifactError, match=f"prod means guides/{ONE}.*name combinations/{PAIR}"):
        give_name(store, "combinations", PAIR, "prod")
    with pytest.raises(ArtifactError, match=f"prod means guides/{ONE}"):
        require_free(store, "combinations", "prod", PAIR)  # before a fit
    with pytest.raises(ArtifactError, match="give another --name, or none; then `spg-pipe name g"):
        require_free(store, "guides", "prod", "aux-tiny-c4-k2-0000000f")
    with pytest.raises(ArtifactError, match=r"; `spg-pipe name combinations/.* --move` lets"):
        require_free(store, "combinations", "prod", PAIR)
    assert list_names(store, "combinations") == []
    give_name(store, "combinations", PAIR, "prod", move=True)

    assert (list_names(store, "guides"), list_names(store, "combinations")) == ([], ["prod"])
    assert find_detector(store, "prod").id == PAIR


def test_a_name_whose_artifact_is_gone_can_be_given_to_another_kind(store):
    save_artifact(store, combination_document(PAIR), combination_tensors())
    give_name(store, "combinations", PAIR, "prod")
    for entry in list(store.walk(f"combinations/{PAIR}")):
        store.delete(entry.name)
    give_name(store, "guides", ONE, "prod")

    assert list_names(store, "combinations") == []
    assert find_any(store, "prod").folder == f"guides/{ONE}"


def test_of_a_name_that_two_kinds_have_the_hint_works(store):
    save_artifact(store, combination_document(PAIR), combination_tensors())
    store.replace("names/guides/prod.json", store_note("guides", ONE))
    store.replace("names/combinations/prod.json", store_note("combinations", PAIR))

    for find in (find_detector, find_any):
        with pytest.raises(
            ArtifactError, match="'prod' means several: guides/prod, combinations/prod; type one"
        ):
            find(store, "prod")
    assert find_detector(store, "guides/prod").id == ONE
    assert find_detector(store, "combinations/prod").id == PAIR
    assert load_artifact(store, "guides", "guides/prod").id == ONE


def test_a_name_wins_over_the_start_of_an_id_of_another_kind(store):
    save_artifact(store, combination_document("nuts-tiny-pair"), combination_tensors())
    give_name(store, "guides", TWO, "nuts-tiny")
    assert find_detector(store, "nuts-tiny").id == TWO
    for entry in list(store.walk(f"guides/{TWO}")):
        store.delete(entry.name)

    for find in (find_detector, find_any):
        with pytest.raises(NotInStore, match=f"the name nuts-tiny means guides {TWO}, which are"):
            find(store, "nuts-tiny")


def test_a_name_whose_artifact_is_gone_means_nothing_though_an_id_begins_like_it(store):
    give_name(store, "guides", ONE, "nuts")
    for entry in list(store.walk(f"guides/{ONE}")):
        store.delete(entry.name)

    with pytest.raises(NotInStore, match=f"the name nuts means guides {ONE}, which are not in"):
        load_artifact(store, "guides", "nuts")
    give_name(store, "guides", TWO, "nuts")

    assert load_artifact(store, "guides", "nuts").id == TWO


def test_a_name_that_was_taken_away_is_free(store):
    give_name(store, "guides", ONE, "prod")
    drop_name(store, "guides", "prod")

    with pytest.raises(NotInStore, match="no guides 'prod'"):
        load_artifact(store, "guides", "prod")


@pytest.mark.parametrize(
    "name", ["latest", "", "a/b", "../x", ".hidden", "-x", "x" * 65, "a\x1b[2J", ONE, "über"]
)
def test_a_name_that_could_be_something_else_is_refused(name):
    with pytest.raises(ConfigError, match="--name is"):
        FitSaeSource(dataset="a", backbone="b", name=name)


def test_an_id_wins_over_a_name_and_a_name_over_the_start_of_an_id(store):
    give_name(store, "guides", TWO, "nuts-tiny")
    store.replace(f"names/guides/{ONE}.json", store_note("guides", TWO))

    assert load_artifact(store, "guides", "nuts-tiny").id == TWO
    assert load_artifact(store, "guides", ONE).id == ONE


def store_note(of, identifier):
    return [json.dumps({"format": 2, "kind": "name", "of": of, "id": identifier}).encode()]


def test_a_torn_or_foreign_note_is_named(store):
    store.replace("names/guides/torn.json", [b'{"of": "gui'])
    store.replace("names/guides/other.json", store_note("saes", ONE))

    for name in ("torn", "other"):
        with pytest.raises(
            CorruptStore,
            match=rf"names/guides/{name}\.json.*`spg-pipe name ID {name} --move` writes it anew, "
            rf"`spg-pipe name guides/{name} --drop` takes it away",
        ):
            load_artifact(store, "guides", name)
    with pytest.raises(CorruptStore, match="--move"):
        give_name(store, "guides", ONE, "torn")
    uncall(store, "guides/other")
    assert list_names(store, "guides") == ["torn"]
    give_name(store, "guides", ONE, "torn", move=True)

    assert load_artifact(store, "guides", "torn").id == ONE


def test_a_fit_gives_its_name_and_refuses_one_of_another_before_it_begins(small_store, tmp_path):
    import shutil

    store = open_store(shutil.copytree(small_store.url, tmp_path / "own"))
    other = FitGuidesConfig(epochs=1, images_per_step=4, seed=9)
    before = store.folders("guides")

    made = fit_guides(store, small_store.sae.id, GUIDES, name="prod")
    with pytest.raises(ArtifactError, match=f"prod means guides/{made.id}"):
        fit_guides(store, small_store.sae.id, other, name="prod")

    assert load_artifact(store, "guides", "prod").id == small_store.guides.id
    assert fit_guides(store, small_store.sae.id, GUIDES, name="prod").id == made.id
    assert store.folders("guides") == before

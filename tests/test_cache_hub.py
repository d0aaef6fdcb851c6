"""A detector through a hub's repository: one commit, on the commit that was looked at."""

import shutil
from pathlib import Path

import pytest

from cache.hub_objects import HubObjects
from cache.store import open_existing_store, open_store, open_to_push
from pipeline.artifacts import load_artifact, save_artifact
from pipeline.artifacts.names import give_name
from pipeline.scoring.score import score
from spg_core.errors import NotInStore, StoreError
from tests.artifact_samples import guides_document, guides_tensors, sae_document, sae_tensors
from tests.cache_samples import folder_digests
from tests.hub_repositories import hub_for_pushes
from tests.test_pipeline_registry import run, run_json

# the hub's client sends files in a way that its own HTTP library calls outdated
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
URL, NAME = "hf://user/detectors/team", "user/detectors"
SAE, GUIDES = "nuts-tiny-c4-k2-00000001", "nuts-tiny-c4-k2-00000002"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty hub on this machine, and the client's settings for it."""
    with hub_for_pushes() as made:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", made.url)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
        template = made.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield made


@pytest.fixture
def source(tmp_path):
    """A store with an SAE and guides over it, called prod-v1."""
    made = open_store(tmp_path / "source")
    save_artifact(made, sae_document(), sae_tensors())
    save_artifact(made, guides_document(), guides_tensors())
    give_name(made, "guides", GUIDES, "prod-v1")
    return made


def push(source):
    return run_json("push", "prod-v1", URL, "--store", source.where)


def test_a_detector_is_the_same_after_push_and_pull(hub, source, tmp_path):
    push(source)
    pulled = run_json("pull", "prod-v1", URL, "--store", tmp_path / "pulled")

    assert folder_digests(tmp_path / "pulled") == folder_digests(Path(source.where))
    assert pulled["names"] == ["prod-v1"]
    assert len(hub.repositories[NAME].commits) == 2  # the hub's own first, and ours
    assert all(name.startswith(("team/", ".git")) for name in hub.files(NAME))
    assert load_artifact(open_store(URL), "guides", "prod-v1").id == GUIDES


def test_pushed_again_nothing_is_uploaded_or_committed(hub, source):
    push(source)
    before = hub.n_uploads, dict(hub.repositories[NAME].commits)
    again = push(source)

    assert (hub.n_uploads, hub.repositories[NAME].commits) == before
    assert [one["bytes"] for one in again["artifacts"]] == [0, 0]


def test_a_commit_that_comes_between_is_kept_and_ours_made_on_it(hub, source):
    def another():
        repository = hub.repositories[NAME]
        repository.commit({**hub.files(NAME), "README.md": b"theirs"})

    hub.before_commit.append(another)
    push(source)

    assert hub.files(NAME)["README.md"] == b"theirs"
    assert f"team/guides/{GUIDES}/guides.json" in hub.files(NAME)


def test_a_name_that_was_taken_meanwhile_is_not_replaced(hub, source):
    taken = f"team/saes/{SAE}/sae.safetensors"

    def another():
        hub.repositories[NAME].commit({**hub.files(NAME), taken: b"theirs"})

    hub.before_commit.append(another)
    with pytest.raises(StoreError, match=r"sae\.safetensors was written by another run"):
        push(source)

    assert hub.files(NAME)[taken] == b"theirs"
    assert f"team/guides/{GUIDES}/guides.json" not in hub.files(NAME)


def test_a_push_that_is_cut_off_shows_nothing_and_sends_nothing_twice(hub, source):
    hub.before_commit.append(lambda: 403)
    with pytest.raises(StoreError, match="cannot write to hf://user/detectors/team"):
        push(source)
    assert list(hub.files(NAME)) == [".gitattributes"]
    sent = hub.n_uploads
    push(source)

    assert sent > 0
    assert hub.n_uploads == sent
    assert f"team/guides/{GUIDES}/guides.json" in hub.files(NAME)


def test_tokens_go_to_the_hub_and_come_back(hub, small_store, tmp_path):
    from pipeline.configs import ScoreConfig

    store = open_store(shutil.copytree(small_store.url, tmp_path / "own"))
    made = score(store, small_store.guides.id, "target", ScoreConfig())

    run("push", made.id, URL, "--with-tokens", "--store", store.where)
    run("pull", made.id, URL, "--with-tokens", "--store", tmp_path / "pulled")

    assert run_json("cache", "verify", "--store", tmp_path / "pulled")["sound"]
    pulled, ours = folder_digests(tmp_path / "pulled/tokens"), Path(store.where) / "tokens"
    assert pulled == folder_digests(ours)
    assert len(hub.repositories[NAME].commits) == 2


def test_only_push_writes_to_a_hub(hub, source):
    push(source)
    read = open_store(URL)

    for write in (
        lambda: save_artifact(read, guides_document("nuts-tiny-c4-k2-00000009"), guides_tensors()),
        lambda: run("name", GUIDES, "other", "--store", URL),
    ):
        with pytest.raises(StoreError, match="is written by `spg-pipe push` alone"):
            write()
    with pytest.raises(StoreError, match="removed on the hub's page"):
        run("rm", GUIDES, "--delete", "--store", URL)


def test_a_repository_that_is_not_there_is_said_not_to_be(hub, tmp_path):
    with pytest.raises(NotInStore, match="nothing is there; a private one needs `hf auth login`"):
        open_existing_store("hf://user/other")
    with pytest.raises(StoreError, match="names no repository"):
        open_store("hf://user")
    assert isinstance(open_to_push(URL), HubObjects)


def test_a_hub_that_is_not_there_is_one_line(source, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")

    with pytest.raises(StoreError, match="cannot read hf://user/detectors/team"):
        push(source)

"""A detector pushed from one store and pulled into an empty one is the same, to the last bit."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from cache.find import find_caches
from cache.store import open_store
from cache.verify import verify_cache
from pipeline.artifacts import load_artifact, save_artifact
from pipeline.artifacts.names import give_name
from pipeline.configs import (
    ExtractConfig,
    FitGuidesConfig,
    FitSaeConfig,
    PredictConfig,
    ScoreConfig,
)
from pipeline.extraction.extract import extract
from pipeline.fitting.guides import fit_guides
from pipeline.fitting.sae import fit_sae
from pipeline.inputs import open_dataset
from pipeline.prediction.inputs import find_images
from pipeline.prediction.predict import predict
from pipeline.registry.find import find_any
from pipeline.registry.transfer import transfer
from pipeline.registry.verify import verify_artifacts
from pipeline.scoring.score import score
from spg_core.errors import CorruptStore, NotInStore, StoreError
from tests.artifact_samples import (
    forge_tensors,
    guides_document,
    guides_tensors,
    sae_document,
    sae_tensors,
)
from tests.cache_samples import flip_byte, folder_digests
from tests.crashing_writer import push_all, start
from tests.s3_server import s3_url  # noqa: F401
from tests.test_pipeline_registry import run, run_json

SAE, GUIDES = "nuts-tiny-c4-k2-00000001", "nuts-tiny-c4-k2-00000002"
VIT_TINY = Path(__file__).parents[2] / "shared" / "weights" / "vit_tiny_patch16_224.safetensors"


@pytest.fixture
def source(tmp_path):
    """A store with an SAE, guides over it, a threshold and a name."""
    made = open_store(tmp_path / "source")
    save_artifact(made, sae_document(), sae_tensors())
    save_artifact(made, guides_document(), guides_tensors())
    made.replace(f"guides/{GUIDES}/thresholds/default.json", [b'{"a": 1}'])
    give_name(made, "guides", GUIDES, "prod-v1")
    return made


@pytest.fixture
def target(tmp_path):
    """A store that is not there yet."""
    return open_store(tmp_path / "target")


def send(source, target, reference="prod-v1", **more):
    return transfer(source, target, reference, **{"with_tokens": False, "threads": 2, **more})


def judged(store, reference, images, weights=None):
    """Predict images with a detector; the bits of the scores."""
    guides = load_artifact(store, "guides", reference)
    config = PredictConfig(weights=() if weights is None else (str(weights),))
    found = list(predict(guides, find_images(images), ScoreConfig(device="cpu"), config))
    assert [one.error for one in found] == [None] * len(found)
    return [one.score for one in found]


def some_images(folder):
    return [str(path) for path in sorted(folder.rglob("*.png"))[:5]]


def test_a_detector_predicts_the_same_bits_after_push_and_pull(small_store, tmp_path):
    images = some_images(small_store.images)
    team, empty = tmp_path / "team", tmp_path / "empty"

    reference = f"guides/{small_store.guides.id}"
    run("push", reference, team, "--store", small_store.url)
    run("pull", reference, team, "--store", empty)

    ours = judged(open_store(small_store.url), small_store.guides.id, images)
    assert judged(open_store(empty), small_store.guides.id, images) == ours
    assert len(set(ours)) > 1
    pulled, made = empty / reference, Path(small_store.url) / reference
    assert folder_digests(pulled) == folder_digests(made)


@pytest.mark.skipif(not VIT_TINY.exists(), reason="no weights at ../shared/weights")
def test_a_threshold_comes_along_under_its_name_and_the_verdicts_are_the_same(
    small_store, tmp_path
):
    own, team = shutil.copytree(small_store.url, tmp_path / "own"), tmp_path / "team"
    guides = f"guides/{small_store.guides.id}"
    run("calibrate", "--guides", guides, "--name", "line-3", "--store", own)
    run("push", guides, team, "--store", own)
    run("pull", guides, team, "--store", tmp_path / "empty")

    images = some_images(small_store.images)
    words = ("predict", *images, "--guides", guides, "--threshold-name", "line-3", "--json")
    told = [run(*words, "--store", store) for store in (own, tmp_path / "empty")]
    assert told[0] == told[1]
    assert told[0].count('"threshold_source": "line-3, ') == len(images)
    run("rm", guides, "--with-children", "--delete", "--store", own)
    assert not (own / guides).exists()


def test_a_detector_of_a_vision_transformer_does_so_too(small_store, tmp_path):
    store, empty = open_store(tmp_path / "store"), tmp_path / "empty"
    backbone = "timm:vit_tiny_patch16_224"
    config = ExtractConfig(
        backbone=backbone, dataset="visa", name="aux", root=str(small_store.images / "auxiliary"),
        image_size=64, weights=str(VIT_TINY), decoders=0, limit=2,
    )  # fmt: skip
    extract(store, config)
    sae = FitSaeConfig(width=64, k=8, epochs=1, images_per_step=4)
    made = fit_sae(store, open_dataset(store, "aux", backbone), sae)
    guides = fit_guides(store, made.id, FitGuidesConfig(epochs=1, images_per_step=4))
    images = some_images(small_store.images)

    run("push", guides.id, tmp_path / "team", "--store", store.where)
    run("pull", guides.id, tmp_path / "team", "--store", empty)

    ours = judged(store, guides.id, images, VIT_TINY)
    assert judged(open_store(empty), guides.id, images, VIT_TINY) == ours
    assert len(set(ours)) > 1


def test_scores_go_with_guides_and_sae_and_with_tokens_if_asked(small_store, tmp_path):
    store = open_store(shutil.copytree(small_store.url, tmp_path / "own"))
    made = score(store, small_store.guides.id, "target", ScoreConfig(), save_maps=True)
    bare, full = open_store(tmp_path / "bare"), open_store(tmp_path / "full")

    send(store, bare, made.id)
    done = send(store, full, made.id, with_tokens=True)

    assert load_artifact(bare, "scores", made.id).document == made.document
    assert load_artifact(bare, "saes", small_store.sae.id)
    assert not find_caches(bare)
    assert [one.dataset for one in find_caches(full)] == ["aux", "target"]
    assert len(done.caches) == 2
    assert all(verify_cache(full, one.folder).is_sound for one in find_caches(full))
    assert fit_guides(full, small_store.sae.id, FitGuidesConfig(epochs=1, images_per_step=4))
    with pytest.raises(NotInStore, match=r"are not in .*bare; leave --with-tokens out"):
        send(bare, open_store(tmp_path / "other"), made.id, with_tokens=True)
    assert not list(bare.walk(f"scores/{made.id}/maps.zarr"))


def test_push_and_pull_go_through_s3(source, tmp_path, s3_url):  # noqa: F811
    pushed = run_json("push", "prod-v1", s3_url, "--store", source.where)
    pulled = run_json("pull", "prod-v1", s3_url, "--store", tmp_path / "pulled")
    again = run_json("push", "prod-v1", s3_url, "--store", source.where)

    assert [one["artifact"] for one in pushed["artifacts"]] == [f"saes/{SAE}", f"guides/{GUIDES}"]
    assert pulled["names"] == ["prod-v1"]
    assert [one["bytes"] for one in again["artifacts"]] == [0, 0]
    assert folder_digests(tmp_path / "pulled") == folder_digests(Path(source.where))


def test_a_push_to_s3_that_is_killed_shows_nothing_false_and_goes_on(
    small_store,
    tmp_path,
    s3_url,  # noqa: F811
):
    environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    guides, team = f"guides/{small_store.guides.id}", open_store(s3_url)
    n_there = []
    for killed_at in (3, 4, 6):
        writer = start(push_all, small_store.url, s3_url, guides, killed_at, environment)
        writer.join(60)
        assert writer.exitcode == -signal.SIGKILL
        n_there.append(len(list(team.walk(""))))
        with pytest.raises(NotInStore):
            find_any(team, guides)

    send(open_store(small_store.url), team, guides, with_tokens=True)
    send(team, open_store(tmp_path / "empty"), guides, with_tokens=True)

    assert sorted(set(n_there)) == n_there, "each goes on where the one before it ended"
    for folder in (guides, f"saes/{small_store.sae.id}", "tokens/aux"):
        assert folder_digests(tmp_path / "empty" / folder) == folder_digests(
            Path(small_store.url) / folder
        )
    assert all(one.problems == [] for one in verify_artifacts(open_store(tmp_path / "empty")))


class CutOff:
    """A store whose n-th write fails, as a full disk or a killed process would have it."""

    def __init__(self, store, n_left):
        self._store, self._left = store, n_left

    def __getattr__(self, name):
        return getattr(self._store, name)

    def _count(self):
        self._left -= 1
        if self._left < 0:
            raise StoreError("cut off")

    def put_new(self, *arguments):
        self._count()
        return self._store.put_new(*arguments)

    def replace(self, *arguments):
        self._count()
        self._store.replace(*arguments)

    def check_writable(self):
        pass


def test_a_push_that_is_cut_off_anywhere_goes_on_and_never_shows_a_false_artifact(source, tmp_path):
    for n_left in range(20):
        target = open_store(tmp_path / f"target{n_left}")
        try:
            send(source, CutOff(target, n_left))
        except StoreError:
            for place in ("saes/" + SAE, "guides/" + GUIDES):
                kind, identifier = place.split("/")
                if target.size(f"{place}/{'sae' if kind == 'saes' else 'guides'}.json") is not None:
                    load_artifact(target, kind, identifier)
            send(source, target)
            assert folder_digests(tmp_path / f"target{n_left}") == folder_digests(
                Path(source.where)
            )
        else:
            break
    assert n_left > 4


def test_other_numbers_of_one_id_are_refused_and_nothing_is_copied(source, target):
    save_artifact(target, guides_document(), guides_tensors(seed=7))
    before = folder_digests(Path(target.where))

    with pytest.raises(StoreError, match=r"has other numbers than.*nothing is copied"):
        send(source, target)

    assert folder_digests(Path(target.where)) == before


def test_a_damaged_artifact_is_not_pushed_and_a_damaged_one_there_is_mended(source, target):
    send(source, target)
    flip_byte(Path(target.where) / f"guides/{GUIDES}/guides.safetensors", 900)
    (Path(target.where) / f"saes/{SAE}/sae.json").write_text("{}")

    send(source, target)

    assert folder_digests(Path(target.where)) == folder_digests(Path(source.where))
    flip_byte(Path(source.where) / f"saes/{SAE}/sae.safetensors", 900)
    with pytest.raises(CorruptStore, match=f"saes/{SAE}/sae.safetensors"):
        send(source, target)


def test_guides_without_their_sae_are_refused_by_its_name(source, target):
    shutil.rmtree(Path(source.where) / "saes")

    with pytest.raises(NotInStore, match=f"guides/{GUIDES} stands on saes/{SAE}"):
        send(source, target)

    assert not Path(target.where).exists()


def test_a_threshold_and_a_name_that_are_there_are_kept_and_said(source, target):
    save_artifact(target, guides_document("nuts-tiny-c4-k2-00000009"), guides_tensors())
    give_name(target, "guides", "nuts-tiny-c4-k2-00000009", "prod-v1")
    target.replace(f"guides/{GUIDES}/thresholds/default.json", [b'{"a": 2}'])

    text = run("push", "prod-v1", target.where, "--store", source.where)

    assert target.get(f"guides/{GUIDES}/thresholds/default.json") == b'{"a": 2}'
    assert "thresholds/default.json is another there, and was kept" in text
    assert "the name prod-v1 means guides/nuts-tiny-c4-k2-00000009" in text


def test_only_what_is_written_beside_an_artifact_goes_along(source, target, tmp_path):
    folder = Path(source.where) / f"guides/{GUIDES}"
    secret = tmp_path / "secret.json"
    secret.write_text("mine")
    (folder / "notes.json").symlink_to(secret)
    (folder / "id_rsa").write_text("mine")
    (folder / "checkpoint.safetensors").write_text("large")
    (folder / "maps.zarr").mkdir()
    (folder / "maps.zarr/zarr.json").write_text("{}")
    (folder / "atoms").mkdir()
    (folder / "atoms/anomaly.png").write_bytes(b"png")

    send(source, target)

    assert sorted(folder_digests(Path(target.where) / f"guides/{GUIDES}")) == [
        "atoms/anomaly.png",
        "guides.json",
        "guides.safetensors",
        "thresholds/default.json",
    ]


def test_numbers_behind_a_link_are_not_pushed(source, target, tmp_path):
    body = Path(source.where) / f"saes/{SAE}/sae.safetensors"
    shutil.move(body, tmp_path / "elsewhere")
    body.symlink_to(tmp_path / "elsewhere")

    with pytest.raises(StoreError, match="through a link"):
        send(source, target)


def test_a_forged_digest_is_found(source, target):
    forge_tensors(source, "saes", SAE, lambda tensor: tensor * 2)
    name = f"saes/{SAE}/sae.json"
    document = json.loads(source.get(name))
    source.replace(name, [json.dumps({**document, "digest": "0" * 64}).encode()])

    with pytest.raises(CorruptStore, match="is not the file its JSON was written for"):
        send(source, target)


@pytest.mark.parametrize("inner", ["guides/inside", "tokens", "names/x/y"])
def test_a_store_among_the_folders_of_the_other_is_refused(small_store, tmp_path, inner):
    reference = f"guides/{small_store.guides.id}"
    run("push", reference, tmp_path / "team", "--store", small_store.url)
    outer, inside = open_store(tmp_path / "team"), open_store(tmp_path / "team" / inner)

    for source, target in ((outer, inside), (inside, outer)):
        with pytest.raises(StoreError, match="lies inside the store"):
            transfer(source, target, reference, with_tokens=False, threads=1)
    run("push", reference, tmp_path / "team" / "colleagues", "--store", tmp_path / "team")

"""Memories: which images they hold, what is stored of them, and what is refused."""

import json
import shutil
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

import spg_pipe
from cache.find import find_caches
from cache.store import open_store
from manifests.table import Manifest
from pipeline.artifacts import load_artifact, save_artifact
from pipeline.artifacts.memory import CategoryMemory
from pipeline.cli import app
from pipeline.configs import FitMemoryConfig, FitMemorySource, ScoreConfig
from pipeline.detection.load import load_detector
from pipeline.detection.memory_part import memory_part
from pipeline.extraction.extract import extract
from pipeline.fitting.memory import choose_shots, fit_memory
from pipeline.fitting.normal_images import open_normal_images
from pipeline.inputs import CachedDataset, open_dataset
from pipeline.kinds import BODY
from pipeline.sample.shot import SampleConfig
from pipeline.sample.write import write_sample
from pipeline.scoring.score import score
from pipeline.scoring.unseen import remembered_rows, require_unseen
from spg_core.errors import (
    ArtifactError,
    ConfigError,
    CorruptStore,
    FitError,
    NotInStore,
    StoreError,
)
from spg_core.guides import unit
from spg_core.memory import coreset
from tests.artifact_samples import forge_tensors, memory_document, memory_tensors
from tests.small_store import extract_config

SHOTS = 3


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the target's test and train images, and the images."""
    place = tmp_path_factory.mktemp("memory")
    size = SampleConfig(image_size=96, images_per_category=2, train_images_per_category=SHOTS)
    write_sample(place / "images", size)
    for split in ("test", "train"):
        config = extract_config(place / "images", "target")
        extract(open_store(place / "store"), replace(config, split=split))
    return place


@pytest.fixture
def store(place):
    return open_store(place / "store")


@pytest.fixture
def data(store) -> CachedDataset:
    return open_normal_images(store, FitMemorySource(dataset="target"))


def with_rows(data: CachedDataset, rows) -> CachedDataset:
    """Give the same with another order of images: only the manifest says so."""
    return replace(data, manifest=Manifest(data.manifest.table.take(rows)))


def test_of_two_caches_the_one_with_normal_train_images_is_opened(store, data) -> None:
    assert set(data.manifest.column("split")) == {"train"}
    assert data.backbone == "gabor"
    with pytest.raises(StoreError, match="several caches, choose a key"):
        open_dataset(store, "target", "gabor")


def test_caches_that_all_have_train_images_are_told_apart_in_words(place, tmp_path) -> None:
    shutil.copytree(place / "store", tmp_path / "store")
    store = open_store(tmp_path / "store")
    config = replace(extract_config(place / "images", "target"), split="train", image_size=64)
    extract(store, config)

    with pytest.raises(StoreError, match=r"choose a --key: [0-9a-f]{16} \(.*64.*\), [0-9a-f]{16}"):
        open_normal_images(store, FitMemorySource(dataset="target"))


def test_all_tokens_of_the_shots_are_kept_as_the_cache_has_them(store, data) -> None:
    made = fit_memory(store, data, FitMemoryConfig(shots=2))

    origins = made.tensors["origins"].numpy()
    stored = data.cache.tokens(np.arange(data.cache.n_images))
    expected = stored[origins[:, 0], origins[:, 1]]
    np.testing.assert_array_equal(made.tensors["tokens"].numpy(), expected)
    labels = np.array(data.manifest.column("category"))
    for name, span in made.document.spans:
        kept = made.document.categories[name]
        assert kept.tokens == 2 * data.cache.tokens_per_image
        assert set(origins[span, 0]) == set(kept.rows)
        assert set(labels[kept.rows]) == {name}
        assert kept.images == [data.manifest.column("image_id")[row] for row in kept.rows]


def test_fewer_shots_are_part_of_more_and_another_seed_takes_others(data) -> None:
    def chosen(shots: int, seed: int = 1) -> list[list[int]]:
        config = FitMemoryConfig(shots=shots, seed=seed)
        return [choose_shots(data, name, config).tolist() for name in data.manifest.categories]

    for one, two, every in zip(chosen(1), chosen(2), chosen(0), strict=True):
        assert one == two[:1]
        assert two == every[:2]
        assert len(every) == SHOTS
    assert len({str(chosen(1, seed)) for seed in range(8)}) > 1


def test_what_is_chosen_does_not_depend_on_the_order_of_the_rows(data) -> None:
    name, config = data.manifest.categories[0], FitMemoryConfig(shots=2)
    order = np.random.default_rng(0).permutation(data.cache.n_images)
    other = with_rows(data, order)

    ids = [
        [one.manifest.column("image_id")[row] for row in choose_shots(one, name, config)]
        for one in (data, other)
    ]

    assert ids[0] == ids[1]


@pytest.mark.parametrize(("share", "kept"), [(0.3, 10), (20, 20), (1, 36), (1e6, 36)])
def test_a_coreset_is_the_greedy_choice_of_each_category(store, data, share, kept) -> None:
    whole = fit_memory(store, data, FitMemoryConfig(shots=1))
    made = fit_memory(store, data, FitMemoryConfig(shots=1, coreset=share))

    for (name, span), (_, own) in zip(whole.document.spans, made.document.spans, strict=True):
        tokens = whole.tensors["tokens"][span]
        expected = coreset(unit(tokens.float()), kept) if kept < 36 else torch.arange(36)
        assert made.document.categories[name].tokens == kept
        assert torch.equal(made.tensors["tokens"][own], tokens[expected])


def test_the_same_request_is_found_and_latest_is_the_last(store, data) -> None:
    config = FitMemoryConfig(shots=1, seed=5)
    made, again = fit_memory(store, data, config), fit_memory(store, data, config)

    assert again.document == made.document
    assert load_artifact(store, "memories", "latest").id == made.id
    assert made.id.startswith("target-gabor-1-shot-")
    fit_memory(store, data, FitMemoryConfig(shots=2, seed=5), direct=False)
    assert load_artifact(store, "memories", "latest").id == made.id


def test_too_few_images_of_a_category_are_refused_by_its_name(store, data) -> None:
    with pytest.raises(FitError, match=r"has 3 normal images of .* --shots asks for 4; take fewer"):
        fit_memory(store, data, FitMemoryConfig(shots=4))


def test_test_images_are_never_remembered(store) -> None:
    keys = [one.key for one in find_caches(store, "target")]
    caches = [open_dataset(store, "target", "gabor", key) for key in keys]
    (test,) = [one for one in caches if set(one.manifest.column("split")) == {"test"}]

    with pytest.raises(FitError, match=r"has 0 normal images of .* extract them with --split"):
        fit_memory(store, test, FitMemoryConfig(shots=1))


def test_a_dataset_that_is_not_there_is_said_not_to_be(store) -> None:
    with pytest.raises(NotInStore, match="no complete cache of 'bolts'"):
        open_normal_images(store, FitMemorySource(dataset="bolts"))
    with pytest.raises(NotInStore, match="no tokens of 'target' by 'dinov3'"):
        open_normal_images(store, FitMemorySource(dataset="target", backbone="dinov3"))


def test_more_tokens_than_can_be_searched_ask_for_fewer_shots_or_a_coreset(
    store, data, monkeypatch
) -> None:
    monkeypatch.setattr("pipeline.fitting.memory.MOST_TOKENS", 50)
    words = r"would have 72 tokens .* give --shots 1, or a small --coreset .* pass over all 72"

    with pytest.raises(FitError, match=words):
        fit_memory(store, data, FitMemoryConfig(shots=2, seed=9))

    made = [fit_memory(store, data, FitMemoryConfig(shots=n, seed=9, coreset=share)).document
            for n, share in ((1, None), (2, 0.69))]  # fmt: skip
    kept = [{each.tokens for each in one.categories.values()} for one in made]
    assert kept == [{36}, {49}]


@pytest.mark.parametrize("value", [0.0, -1.0, 1.5, 2e6])
def test_a_coreset_is_a_share_or_a_whole_number(value) -> None:
    with pytest.raises(ConfigError, match="--coreset is"):
        FitMemoryConfig(coreset=value)


def test_the_command_and_the_notebook_say_what_is_remembered(place) -> None:
    made = spg_pipe.fit_memory(place / "store", dataset="target", shots=1, coreset=30)
    words = ["fit-memory", "--dataset", "target", "--shots", "1", "--coreset", "30", "--json"]
    done = CliRunner().invoke(app, [*words, "--store", str(place / "store")])
    said = json.loads(done.stdout)

    n = len(made.document.categories)
    assert f"  {30 * n} tokens of {n} normal images of " in repr(made)
    assert (said["id"], said["path"]) == (made.id, made.path)
    assert {name: one["tokens"] for name, one in said["categories"].items()} == dict.fromkeys(
        made.document.categories, 30
    )


def changed(document, **of_hex):
    hex_nut = replace(document.categories["hex"], **of_hex)
    return replace(document, categories=document.categories | {"hex": hex_nut})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda one: replace(one, categories={}), "categories is empty"),
        (lambda one: changed(one, rows=[5, 6]), "names 1 images, categories.hex.rows 2 rows"),
        (lambda one: changed(one, tokens=3), "categories.hex.tokens is 3; config.coreset keeps 2"),
        (
            lambda one: replace(one, config=FitMemoryConfig(shots=2, coreset=0.35)),
            "categories.hex.images has 1 images, config.shots is 2",
        ),
    ],
)
def test_a_document_that_contradicts_itself_is_refused(change, message) -> None:
    with pytest.raises(ArtifactError, match=message):
        change(memory_document()).check()


@pytest.mark.parametrize(
    ("origins", "message"),
    [
        ([[5, 0], [6, 4], [7, 1], [7, 3]], "image row 6, which is not in categories.hex.rows"),
        ([[5, 0], [5, 6], [7, 1], [7, 3]], "patches 0 to 6; backbone.covers.grid has 6"),
        ([[5, 0], [5, 4], [7, 3], [7, 3]], "names a token of categories.wing twice"),
    ],
)
def test_tokens_from_elsewhere_are_refused(tmp_path, origins, message) -> None:
    tensors = memory_tensors() | {"origins": torch.tensor(origins, dtype=torch.int32)}

    with pytest.raises(CorruptStore, match=message):
        save_artifact(open_store(tmp_path), memory_document(), tensors)


def test_a_token_that_is_not_finite_is_refused(tmp_path) -> None:
    store = open_store(tmp_path)
    made = save_artifact(store, memory_document(), memory_tensors())
    forge_tensors(store, "memories", made.id, lambda tokens: tokens * torch.inf)

    with pytest.raises(CorruptStore, match=f"{BODY['memories']}: tokens holds values that are not"):
        load_artifact(store, "memories", made.id)


def test_a_document_says_the_images_of_every_category() -> None:
    document = memory_document()

    assert len(document.image_ids) == 2
    assert list(document.spans) == [("hex", slice(0, 2)), ("wing", slice(2, 4))]
    assert isinstance(document.categories["hex"], CategoryMemory)
    assert json.dumps(sorted(document.image_ids))


def test_a_part_asks_the_memory_of_the_images_own_category(store, data) -> None:
    made = fit_memory(store, data, FitMemoryConfig(shots=2))
    part = memory_part(made)

    for name, span in made.document.spans:
        rows = data.manifest.rows_of(name)
        tokens = unit(torch.from_numpy(data.cache.tokens(rows)).float())
        own = unit(made.tensors["tokens"][span].float())

        found = part.values(tokens, name)

        expected = (1 - (tokens @ own.T).amax(-1)) / 2
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
        kept = [rows.tolist().index(row) for row in made.document.categories[name].rows]
        assert found[kept].max() < 1e-6  # an image that is remembered is at distance 0
        assert found.max() > 1e-3


def test_a_category_that_is_not_remembered_or_not_named_is_refused(store, data) -> None:
    part = memory_part(fit_memory(store, data, FitMemoryConfig(shots=1)))
    tokens = torch.zeros(1, 2, part.spec.d_model)

    with pytest.raises(ArtifactError, match=r"is of .*leather; it has none of screw"):
        part.values(tokens, "screw")
    with pytest.raises(ArtifactError, match="say of which the images are"):
        part.values(tokens)

    tokens = unit(torch.randn(2, 5, part.spec.d_model))
    only = part.of("leather")
    assert torch.equal(only.values(tokens), part.values(tokens, "leather"))
    assert torch.equal(only.of(None).values(tokens), only.values(tokens))
    assert only.key != part.key
    with pytest.raises(ArtifactError, match="is of leather; it has none of granite"):
        only.values(tokens, "granite")


def test_an_image_that_is_remembered_is_not_scored_by_itself(store, data) -> None:
    made = fit_memory(store, data, FitMemoryConfig(shots=1))
    rows = sorted(row for one in made.document.categories.values() for row in one.rows)

    assert remembered_rows(data, [made]).tolist() == rows
    with pytest.raises(ArtifactError, match=rf"{len(rows)} of 15 images of .* are in the memory"):
        require_unseen(data, [made])
    require_unseen(with_rows(data, np.setdiff1d(np.arange(15), rows)), [made])
    require_unseen(data, [])


def test_a_memory_scores_the_cache_with_test_images_like_guides_do(store, data) -> None:
    memory = fit_memory(store, data, FitMemoryConfig(shots=2))

    made = score(store, memory.id, "target", ScoreConfig(sigma=0, pool="max"))

    parent = made.document.parents
    target = open_dataset(store, "target", "gabor", parent.cache.key)
    assert set(target.manifest.column("split")) == {"test"}
    assert (parent.memory, parent.guides) == (memory.id, None)
    images = pq.read_table(BytesIO(store.get(made.place.name("images.parquet"))))
    detector = load_detector(store, memory.id, ScoreConfig(sigma=0, pool="max"))
    for name in target.manifest.categories:
        rows = target.manifest.rows_of(name)
        maps = detector.maps(torch.from_numpy(target.cache.tokens(rows)), category=name)
        expected = maps.flatten(1).amax(1).numpy()
        np.testing.assert_array_equal(images["score"].to_numpy()[rows], expected)


def test_anomaly_dinos_image_score_is_the_mean_of_the_farthest_patches(store, data) -> None:
    memory = fit_memory(store, data, FitMemoryConfig(shots=2))

    usual = score(store, memory.id, "target", ScoreConfig())
    made = score(store, memory.id, "target", ScoreConfig(pool="patches:0.1"))

    target = open_dataset(store, "target", "gabor", made.document.parents.cache.key)
    scores = pq.read_table(BytesIO(store.get(made.place.name("images.parquet"))))["score"]
    for name, span in memory.document.spans:
        rows = target.manifest.rows_of(name)
        asked = unit(torch.from_numpy(target.cache.tokens(rows)).double())
        distances = 1 - (asked @ unit(memory.tensors["tokens"][span].double()).T).amax(-1)
        farthest = distances.sort(descending=True).values[:, : int(0.1 * 36)]
        # a value is half of the distance
        np.testing.assert_allclose(scores.to_numpy()[rows], farthest.mean(1) / 2, atol=1e-6)
    assert made.document.mean.pixel_aupro == usual.document.mean.pixel_aupro


def test_no_command_scores_the_images_that_a_memory_holds(store, data) -> None:
    memory = fit_memory(store, data, FitMemoryConfig(shots=1))

    with pytest.raises(ArtifactError, match=r"5 of 15 images of .* are in the memory"):
        score(store, memory.id, "target", ScoreConfig(), key=data.cache.key)


def test_predict_asks_the_memory_of_the_category_that_is_named(store, data, place) -> None:
    memory = fit_memory(store, data, FitMemoryConfig(shots=2))
    scored = score(store, memory.id, "target", ScoreConfig())
    images = pq.read_table(BytesIO(store.get(scored.place.name("images.parquet")))).to_pylist()
    wanted = [one for one in images if one["category"] == "leather"]
    paths = [str(place / "images" / "target" / one["image_path"]) for one in wanted]

    found = spg_pipe.predict(store.where, guides=memory.id, images=paths, category="leather")

    assert [one.score for one in found] == pytest.approx([one["score"] for one in wanted], abs=1e-5)
    for category, reason in ((None, "say of which"), ("screw", "it has none of screw")):
        with pytest.raises(ArtifactError, match=reason):
            spg_pipe.predict(store.where, guides=memory.id, images=paths, category=category)


def test_a_memory_is_not_exported(store, data, tmp_path) -> None:
    memory = fit_memory(store, data, FitMemoryConfig(shots=1))

    with pytest.raises(ArtifactError, match="is a memory, which an ONNX file cannot search"):
        spg_pipe.export(store.where, guides=memory.id, out=str(tmp_path / "m.onnx"))
    assert not list(tmp_path.iterdir())

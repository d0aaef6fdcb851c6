"""`reproduce references`: the method beside simpler ones, on what is cached; what is missing."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from cache.find import find_caches
from cache.store import open_store
from pipeline.artifacts import load_artifact
from pipeline.configs import FigureConfig, ReproduceConfig
from pipeline.extraction.extract import extract
from pipeline.reproduce.cached_layers import cached_layers
from pipeline.reproduce.references import references
from pipeline.tables.metrics import PUBLISHED
from spg_core.errors import NotInStore, StoreError
from tests.small_store import extract_config

SMALL = ReproduceConfig(
    aux="aux", target="target", backbone="gabor", width=32, k=4, sae_epochs=1, guide_epochs=1,
    directions="one",
)  # fmt: skip


@pytest.fixture(scope="module")
def place(small_store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the small store with the target's train images as well."""
    copy = shutil.copytree(small_store.url, tmp_path_factory.mktemp("references") / "store")
    train = replace(extract_config(small_store.images, "target"), split="train")
    extract(open_store(copy), train)
    return Path(copy)


def test_every_reference_has_a_row_of_the_scores_it_names(place) -> None:
    varied = FigureConfig(shots=(1, 2), seeds=(1, 2))

    made = references(open_store(place), SMALL, varied)

    names = ["SPG", "free guides", "PCA", "random atoms", "memory"]
    assert [row.name for row in made.table.rows] == names
    assert {row.section for row in made.table.rows} == {"aux -> target"}
    assert list(made.table.metrics) == list(PUBLISHED)
    by_row = {row.name: row for row in made.table.rows}
    memory = [one for one in made.scores if one.document.parents.memory is not None]
    assert len(made.scores) == 2 * 5
    assert by_row["memory"].values["pixel_auroc"] == pytest.approx(
        sum(one.document.mean.pixel_auroc or 0 for one in memory) / 2
    )
    assert all(set(row.spread) for row in made.table.rows)
    assert any("left out: " in note and "--shots asks for 2" in note for note in made.table.notes)
    assert {metric for row in made.table.rows for metric in row.best} >= set(PUBLISHED)


def test_without_train_images_the_memory_is_left_out_and_says_how_to_have_it(small_store) -> None:
    made = references(open_store(small_store.url), SMALL, FigureConfig(shots=(1,)))

    assert [row.name for row in made.table.rows] == ["SPG", "free guides", "PCA", "random atoms"]
    assert any("extract it with --split train" in note for note in made.table.notes)


def test_the_layers_are_those_that_both_datasets_have(place) -> None:
    [layer] = cached_layers(open_store(place), SMALL)

    assert layer.aux.dataset == "aux"
    assert set(layer.target.manifest.column("split")) == {"test"}
    assert layer.train is not None
    assert set(layer.train.manifest.column("split")) == {"train"}
    with pytest.raises(NotInStore, match=r"no layer of dinov3 .* cached both of aux"):
        cached_layers(open_store(place), replace(SMALL, backbone="dinov3"))


def test_two_caches_of_one_layer_ask_for_a_key(place, small_store, tmp_path) -> None:
    copy = open_store(shutil.copytree(place, tmp_path / "store"))
    before = {one.key for one in find_caches(copy, "target")}
    extract(copy, replace(extract_config(small_store.images, "target"), limit=1))
    (key,) = {one.key for one in find_caches(copy, "target")} - before

    with pytest.raises(StoreError, match=r"several caches of the same layer, .* --target-key"):
        cached_layers(copy, SMALL)

    [layer] = cached_layers(copy, replace(SMALL, target_key=key))
    assert layer.target.cache.key == key


def test_nothing_of_it_becomes_latest(place) -> None:
    store = open_store(place)
    references(store, SMALL, FigureConfig(shots=(1,)))

    with pytest.raises(NotInStore):
        load_artifact(store, "memories", "latest")

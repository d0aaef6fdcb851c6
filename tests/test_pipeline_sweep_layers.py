"""Layers in a sweep: the artifacts of single commands at each layer, and a figure by layer."""

import io
from dataclasses import replace

import pyarrow.parquet
import pytest
from PIL import Image

from cache.store import open_store
from pipeline.chosen import chosen_key
from pipeline.configs import CacheWords, ClusterConfig, CombineConfig, SweepConfig
from pipeline.detection.combine import find_or_combine
from pipeline.extraction.extract import extract
from pipeline.fitting.sae import fit_sae
from pipeline.inputs import open_dataset
from pipeline.scoring.score import score
from pipeline.sweep.grid import read_grid
from pipeline.sweep.layers import open_layers, over_layers
from pipeline.sweep.run import share_out, sweep
from pipeline.sweep.together import score_together
from spg_core.errors import ConfigError, NotInStore, OptionsDisagree
from tests.random_weights import random_timm_weights
from tests.tiny_images import config_of, write_images

NAME = "timm:test_vit"
SMALL = SweepConfig(
    aux="aux",
    target="target",
    backbone=NAME,
    layer=("1", "-1"),
    width=(32,),
    k=(4, 8),
    vary=("sae.epochs=1", "guides.epochs=1", "guides.images_per_step=4"),
    device="cpu",
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Blocks 1, 3 and 5, the last, of a small transformer, of two datasets."""
    place = tmp_path_factory.mktemp("layers")
    weights = str(random_timm_weights(place, "test_vit"))
    store = open_store(place / "store")
    for name, n_good in (("aux", 6), ("target", 5)):
        write_images(place / name, n_good=n_good, n_bad=4)
        config = replace(config_of(place / name), backbone=(NAME,), weights=(weights,), name=name)
        extract(store, replace(config, layer=("every:2",)))
    return store


@pytest.fixture(scope="module")
def made(store):
    return sweep(store, SMALL)


def test_each_layer_has_the_artifacts_that_single_commands_make(store, made):
    assert [(row["layer"], row["k"]) for row in made.rows] == [
        ("1", 4),
        ("1", 8),
        ("5", 4),
        ("5", 8),
    ]
    for layer, row in (("1", made.rows[0]), ("-1", made.rows[3])):
        words = CacheWords(layer=layer)
        key, target_key = (chosen_key(store, name, NAME, words) for name in ("aux", "target"))
        k = int(str(row["k"]))
        [point] = read_grid(replace(SMALL, k=(k,))).points
        sae = fit_sae(store, open_dataset(store, "aux", NAME, key), point.sae)
        scores = score(store, str(row["guides"]), "target", point.score, key=target_key)
        assert (row["sae"], row["scores"]) == (sae.id, scores.id)
        assert row["pixel_auroc"] == scores.document.mean.values["pixel_auroc"]


def test_table_figure_and_parents_are_of_all_layers(store, made):
    folder = f"sweeps/{made.id}"
    table = pyarrow.parquet.read_table(io.BytesIO(store.get(f"{folder}/sweep.parquet")))
    document = store.get(f"{folder}/sweep.json").decode()

    assert table["layer"].to_pylist() == ["1", "1", "5", "5"]
    assert made.figures == ["heatmaps.png", "heatmaps-2.png", "layers.png"]
    assert Image.open(io.BytesIO(store.get(f"{folder}/layers.png"))).width > 100
    for layer in ("1", "-1"):
        for name in ("aux", "target"):
            assert f"{chosen_key(store, name, NAME, CacheWords(layer=layer))}" in document
    assert "layer " in repr(made)


def test_words_mean_layers_and_what_is_not_cached_is_named(store):
    opened = open_layers(store, replace(SMALL, layer=("every:2",)))

    assert list(opened) == [1, 3, 5]
    with pytest.raises(NotInStore, match=r"no cache aux/timm:test_vit .* with --layer 2; there is"):
        open_layers(store, replace(SMALL, layer=("2",)))
    with pytest.raises(ConfigError, match="--layer every:9"):
        open_layers(store, replace(SMALL, layer=("every:9",)))


def test_workers_share_the_points_of_all_layers(store):
    opened = open_layers(store, SMALL)
    points = over_layers(read_grid(SMALL).points, opened)

    parts = share_out(points, 3, opened)

    assert sorted(i for part in parts for i in part) == [0, 1, 2, 3]
    assert [len(part) for part in parts] == [2, 1, 1]


def test_layers_together_are_scored_as_the_commands_do(store):
    config = replace(SMALL, layer=("every:2",), k=(4,), together=("pairs", "all"))

    together = sweep(store, config)

    rows = {str(row["layer"]): row for row in together.rows}
    assert list(rows) == ["1", "3", "5", "1+3", "1+5", "3+5", "1+3+5"]
    guides = [str(rows[layer]["guides"]) for layer in ("1", "5")]
    detector = find_or_combine(store, guides, CombineConfig(device="cpu"))
    target_key = chosen_key(store, "target", NAME, CacheWords(layer="1"))
    [point] = read_grid(config).points
    scores = score(store, detector, "target", point.score, key=target_key)
    assert rows["1+5"]["combination"] == detector.id
    assert rows["1+5"]["scores"] == scores.id
    assert rows["1+5"]["pixel_auroc"] == scores.document.mean.values["pixel_auroc"]
    assert "layers.png" in together.figures


def test_one_layer_is_not_put_together_and_a_failed_one_costs_its_sets(store):
    with pytest.raises(OptionsDisagree, match="--together is for several layers"):
        sweep(store, replace(SMALL, layer=("1",), together=("all",)))
    config = replace(SMALL, k=(4,), together=("pairs",))
    opened = open_layers(store, config)
    points = over_layers(read_grid(config).points, opened)
    rows = [{"state": "failed", "failed_at": "fit-sae", "guides": "x"}, {"state": "done"}]

    [row] = score_together(opened, config, list(zip(points, rows, strict=True)))

    assert (row["layer"], row["failed_at"]) == ("1+5", "combine")
    assert row["reason"] == "layer 1 failed at fit-sae"


@pytest.mark.slow
def test_workers_give_the_rows_of_one_process(store, made):
    assert sweep(store, SMALL, ClusterConfig(workers=2)).rows == made.rows

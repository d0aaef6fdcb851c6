"""A cache is named by its layer and input; where that is not enough, the answer is in words."""

import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from cache.find import choose_cache
from cache.store import open_store
from pipeline.api import fit_sae, open_cache
from pipeline.chosen import chosen_key
from pipeline.commands.app import app
from pipeline.configs import CacheWords
from pipeline.extraction.extract import extract
from spg_core.errors import ConfigError, NotInStore, StoreError
from tests.random_weights import random_timm_weights
from tests.tiny_images import config_of, write_images

NAME = "timm:test_vit"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Give a store with blocks 1, 3, 5 of six, and 5 at another input; and the keys."""
    place = tmp_path_factory.mktemp("made")
    write_images(place / "images", n_good=4, n_bad=3)
    weights = str(random_timm_weights(place, "test_vit"))
    store = open_store(place / "store")
    config = replace(
        config_of(place / "images"), backbone=(NAME,), weights=(weights,), layer=("every:2",)
    )
    three = extract(store, config)
    other = extract(store, replace(config, layer=(), image_size=64, final_norm=False))
    return store, [one.key for one in (*three.caches, *other.caches)]


def test_a_layer_is_found_by_its_number_also_the_last_and_from_the_end(made):
    store, keys = made

    def key(layer, **more):
        return chosen_key(store, "mvtec", NAME, CacheWords(layer=layer, **more))

    assert [key("1"), key("3"), key("-3")] == [keys[0], keys[1], keys[1]]
    assert key("5", image_size=32) == key("-1", image_size=32) == keys[2]
    assert key("-1", final_norm=False) == key(None, image_size=64) == keys[3]
    assert chosen_key(store, "mvtec", NAME, CacheWords(), keys[0][:5]) == keys[0][:5]


def test_what_is_not_there_or_means_several_is_told_in_words(made):
    store, keys = made

    def told(**words):
        return chosen_key(store, "mvtec", NAME, CacheWords(**words))

    with pytest.raises(NotInStore, match=r"with --layer 2; there is .*final_norm true.*layer 3"):
        told(layer="2")
    with pytest.raises(ConfigError, match="--layer 6: mvtec/timm:test_vit has 6 blocks"):
        told(layer="6")
    with pytest.raises(StoreError, match=rf"several caches, choose a key: .*{keys[2]} \(.*t 32"):
        told(layer="5")
    with pytest.raises(StoreError, match=rf"{keys[1]} \([^)]*layer 3.*; --layer, --image-size"):
        choose_cache(store, "mvtec", "timm-test_vit")


def test_stages_and_notebooks_take_the_words(made):
    store, keys = made

    assert open_cache(store, "mvtec", NAME, layer=3).key == keys[1]
    sae = fit_sae(store, dataset="mvtec", backbone=NAME, layer=1, width=32, k=4, epochs=1)
    assert sae.document.parents.cache.key == keys[0]


def test_cache_commands_take_the_words_and_list_them(made):
    store, keys = made

    def run(*words):
        return CliRunner().invoke(app, ["cache", *words, "--store", store.where, "--json"])

    found = json.loads(run("ls").stdout)["caches"]
    assert {one["key"]: one["tokens"] for one in found} == dict(
        zip(
            keys,
            ["layer 1, 32 px", "layer 3, 32 px", "the last layer, 32 px", "the last layer, 64 px"],
            strict=True,
        )
    )
    name = "mvtec/timm-test_vit"
    assert json.loads(run("info", name, "--layer", "3").stdout)["key"] == keys[1]
    verified = json.loads(run("verify", name, "--layer", "1").stdout)
    assert [one["key"] for one in verified["caches"]] == [keys[0]]
    assert isinstance(run("verify", "--layer", "1").exception, ConfigError)

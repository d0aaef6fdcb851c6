"""Several layers and backbones of one pass over the images: caches as runs of their own make."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from cache.find import find_caches
from cache.layout import cache_folder
from cache.store import open_store
from cache.verify import verify_cache
from cache.writer import CacheWriter
from pipeline.commands import shown
from pipeline.configs import ClusterConfig, ExtractConfig
from pipeline.extraction import fill, model_inputs
from pipeline.extraction import shards as heavy
from pipeline.extraction.extract import Extraction, extract
from spg_core.errors import ConfigError, StoreError
from tests.cache_samples import folder_digests
from tests.random_weights import random_timm_weights
from tests.s3_server import s3_url  # noqa: F401 - the fixture
from tests.tiny_images import PatchColours, config_of, tiny_backbone, write_images

REAL_BACKBONE = heavy.open_backbone
NAMES, LAYERS = ("tiny", "wide"), ("0", "2", "-1")


@pytest.fixture(autouse=True)
def quick_backbone(monkeypatch):
    monkeypatch.setattr(heavy, "open_backbone", tiny_backbone)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """70 images: a whole shard and a short one."""
    root = tmp_path_factory.mktemp("images")
    write_images(root, n_good=60, n_bad=10)
    return root


def config_for(images, backbone=NAMES, layer=LAYERS) -> ExtractConfig:
    return replace(config_of(images), backbone=backbone, layer=layer)


@pytest.fixture(scope="module")
def alone(images, tmp_path_factory):
    """A store in which each cache was made by a run of its own, and what these runs gave."""
    store = open_store(tmp_path_factory.mktemp("alone"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heavy, "open_backbone", tiny_backbone)
        made = [
            extract(store, config_for(images, (name,), (layer,)))
            for name in NAMES
            for layer in LAYERS
        ]
    return store, [one.caches[0] for one in made]


def digests(store):
    return folder_digests(Path(store.where) / "tokens")


def counted(monkeypatch):
    """Count images decoded, forward passes by their number of layers, and shards written."""
    seen = Counter()
    decode, forward, write = (
        model_inputs.decode_image,
        PatchColours.forward,
        CacheWriter.write_shard,
    )

    def counting_decode(*given, **more):
        seen["decoded"] += 1
        return decode(*given, **more)

    def counting_forward(self, pixels):
        seen[f"forward of {len(self.layers)}"] += len(pixels)
        return forward(self, pixels)

    def counting_write(self, *given):
        seen["written"] += 1
        write(self, *given)

    monkeypatch.setattr(model_inputs, "decode_image", counting_decode)
    monkeypatch.setattr(PatchColours, "forward", counting_forward)
    monkeypatch.setattr(CacheWriter, "write_shard", counting_write)
    monkeypatch.setattr("pipeline.extraction.announce.seconds_an_image", lambda *_, **__: 1.0)
    return seen


def test_one_pass_writes_what_a_run_for_each_layer_and_backbone_writes(
    images, alone, tmp_path, monkeypatch
):
    seen = counted(monkeypatch)

    made = extract(open_store(tmp_path), config_for(images))

    assert [(one.backbone, one.layer, one.key) for one in made.caches] == [
        (one.backbone, one.layer, one.key) for one in alone[1]
    ]
    assert digests(open_store(tmp_path)) == digests(alone[0])
    assert seen == {"decoded": 70, "forward of 3": 2 * 70, "written": 2 * 6}


def test_what_is_there_is_neither_computed_nor_written_again(images, alone, tmp_path, monkeypatch):
    store = open_store(tmp_path)
    extract(store, config_for(images, ("tiny",), ("2",)))
    seen = counted(monkeypatch)

    made = extract(store, config_for(images))

    assert [one.state for one in made.caches] == ["extracted", "found", *["extracted"] * 4]
    assert seen == {"decoded": 70, "forward of 2": 70, "forward of 3": 70, "written": 2 * 5}
    assert digests(store) == digests(alone[0])
    assert extract(store, config_for(images)).state == "found"


@pytest.mark.parametrize("whole_shards", [1, 3, 8])
def test_cut_between_two_layers_of_a_shard_it_goes_on_and_equals_one_go(
    images, alone, tmp_path, monkeypatch, whole_shards
):
    store, config, seen = open_store(tmp_path), config_for(images), Counter()
    real = CacheWriter.write_shard

    def stop(self, shard, *arrays):
        if seen.total() == whole_shards:
            raise KeyboardInterrupt
        seen[shard] += 1
        real(self, shard, *arrays)

    monkeypatch.setattr(CacheWriter, "write_shard", stop)
    monkeypatch.setattr(fill, "AT_ONCE", 1)
    with pytest.raises(KeyboardInterrupt):
        extract(store, config)
    monkeypatch.setattr(CacheWriter, "write_shard", real)
    before = counted(monkeypatch)

    made = extract(store, config)

    assert made.state == "extracted"
    assert before["written"] == 12 - whole_shards
    assert digests(store) == digests(alone[0])
    assert all(verify_cache(store, info.folder).is_sound for info in find_caches(store))


def test_a_layer_that_another_run_writes_meanwhile_is_not_written_again(
    images, alone, tmp_path, monkeypatch
):
    store, real = open_store(tmp_path), heavy.compute_shard
    begun: list[bool] = []
    theirs: list[Extraction] = []

    def overtaken(backbones, *more):
        if not begun:
            begun.append(True)
            theirs.append(extract(store, config_for(images, ("tiny",), ("0",))))
        return real(backbones, *more)

    monkeypatch.setattr(heavy, "compute_shard", overtaken)
    monkeypatch.setattr(fill, "AT_ONCE", 1)

    made = extract(store, config_for(images))

    assert made.caches[0].key == theirs[0].key
    assert digests(store) == digests(alone[0])


def test_the_estimate_of_bytes_and_images_is_of_all_caches(images, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("cache.local_objects.LocalObjects.free_bytes", lambda self: 9000)

    with pytest.raises(StoreError, match=r"needs about \d{5} more bytes"):
        extract(open_store(tmp_path), config_for(images))

    assert capsys.readouterr().err.count("70 images of") == 6
    assert find_caches(open_store(tmp_path)) == []


def test_one_cache_is_one_object_and_several_are_a_list(images, alone, capsys):
    store, told = alone

    shown.extract(extract(store, config_for(images, ("tiny",), ("0",))), as_json=True)
    one = json.loads(capsys.readouterr().out)
    shown.extract(extract(store, config_for(images)), as_json=True)
    several = json.loads(capsys.readouterr().out)

    assert {name: one[name] for name in ("key", "path", "images", "state")} == {
        "key": told[0].key,
        "path": told[0].path,
        "images": 70,
        "state": "found",
    }
    assert "key" not in several
    assert [cache["key"] for cache in several["caches"]] == [cache.key for cache in told]
    assert [cache["layer"] for cache in several["caches"]] == [0, 2, None] * 2
    with pytest.raises(ConfigError, match="6 caches were extracted; each is one of `caches`"):
        _ = extract(store, config_for(images)).key


def test_words_of_a_notebook_are_those_of_the_command():
    config = ExtractConfig(backbone="a,b", dataset="mvtec", root="x", layer=(5, "last:2,-1"))  # type: ignore[arg-type]

    assert (config.backbone, config.layer) == (("a", "b"), ("5", "last:2", "-1"))


@pytest.mark.parametrize(
    ("weights", "reason"),
    [(("x.pth",), "give NAME=FILE"), (("c=x",), "give NAME=FILE"), (("a=x", "a=y"), "once for")],
)
def test_weights_of_several_backbones_are_named(weights, reason):
    several = {"backbone": ("a", "b"), "dataset": "mvtec", "root": "x"}

    with pytest.raises(ConfigError, match=reason):
        ExtractConfig(**several, weights=weights)
    good = ExtractConfig(**several, weights=("b=dir/x=1.pth",))
    assert (good.weights_of("a"), good.weights_of("b")) == (None, Path("dir/x=1.pth"))


@pytest.fixture(scope="module")
def learned(tmp_path_factory, images):
    """Several layers of a real transformer beside the descriptor, and what one process makes."""
    place = tmp_path_factory.mktemp("learned")
    weights = random_timm_weights(place, "test_vit")
    config = replace(
        config_of(images), backbone=("timm:test_vit",), layer=("every:2",), weights=(str(weights),)
    )
    store = open_store(place / "store")
    return config, store, extract(store, config)


def test_layers_on_s3_are_those_on_disk(learned, s3_url, monkeypatch):  # noqa: F811
    monkeypatch.setattr(heavy, "open_backbone", REAL_BACKBONE)
    config, local, expected = learned
    remote = open_store(s3_url)

    made = extract(remote, config)

    assert [one.key for one in made.caches] == [one.key for one in expected.caches]
    for one in made.caches:
        folder = cache_folder("mvtec", "timm-test_vit", one.key)
        assert verify_cache(remote, folder).is_sound
        for name in ("manifest.parquet", "tokens.zarr/tokens/c/0/0/0", "tokens.zarr/cls/c/1/0"):
            assert remote.get(f"{folder}/{name}") == local.get(f"{folder}/{name}")


@pytest.mark.slow
def test_dask_workers_write_the_layers_that_one_process_writes(learned, tmp_path, monkeypatch):
    monkeypatch.setattr(heavy, "open_backbone", REAL_BACKBONE)
    config, local, expected = learned

    made = extract(open_store(tmp_path), config, ClusterConfig(workers=2))

    assert [one.key for one in made.caches] == [one.key for one in expected.caches]
    assert digests(open_store(tmp_path)) == digests(local)

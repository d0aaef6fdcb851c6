"""What an extraction answers from memory: found, unless the weights or the store say otherwise."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from cache.find import find_caches
from cache.gc import find_garbage, remove_garbage
from cache.objects import Objects
from cache.store import open_store
from pipeline.configs import ClusterConfig, ExtractConfig
from pipeline.extraction import shards
from pipeline.extraction.extract import extract
from spg_core.errors import ClusterError, ManifestDiffers
from tests.hub_server import COMMIT, hub_of
from tests.random_weights import random_timm_weights
from tests.tiny_images import config_of, tiny_backbone, write_images, write_mask

OWNER, MODEL = "timm", "test_vit.r160_in1k"


@pytest.fixture(autouse=True)
def memos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the folder of memos, empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "memos"))
    return tmp_path / "memos" / "spg-pipe"


@pytest.fixture
def config(tmp_path: Path) -> ExtractConfig:
    """The extraction of five images by a small transformer of the hub."""
    write_images(tmp_path / "images", n_good=3, n_bad=2)
    return replace(config_of(tmp_path / "images"), backbone=(f"timm:{MODEL}",), image_size=64)


@pytest.fixture
def store(tmp_path: Path) -> Objects:
    """An empty store."""
    return open_store(tmp_path / "store")


def other_weights(path: Path) -> None:
    """Change a weight in a file in place, and set the file's times back."""
    times = path.stat()
    state = {name: value.clone() for name, value in load_file(path).items()}
    state["norm.weight"] += 1
    save_file(state, path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_a_hub_cache_that_moved_to_another_revision_is_asked_and_not_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: ExtractConfig, store: Objects
) -> None:
    from huggingface_hub import hf_hub_download

    cache, served = tmp_path / "hub", tmp_path / "served"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    (served / OWNER / MODEL).mkdir(parents=True)
    weights = served / OWNER / MODEL / "model.safetensors"
    random_timm_weights(tmp_path, "test_vit").rename(weights)

    def fetch(commit: str) -> None:
        with hub_of(served, commit=commit) as address:
            hf_hub_download(
                f"{OWNER}/{MODEL}", "model.safetensors", cache_dir=cache, endpoint=address
            )

    fetch(COMMIT)
    first = extract(store, config)
    again = extract(store, config)
    other_weights(weights)
    fetch("d" * 40)
    moved = extract(store, config)
    fetch(COMMIT)  # what `refs/main` of the cache says is the old one again
    back = extract(store, config)
    shutil.rmtree(cache)
    gone = extract(store, config)

    assert [one.state for one in (first, again, moved)] == ["extracted", "found", "extracted"]
    assert moved.key != first.key == again.key == back.key
    assert (back.state, gone.state, gone.key) == ("found", "found", first.key)


def test_a_weights_file_changed_in_place_with_its_times_set_back_is_seen(
    tmp_path: Path, config: ExtractConfig, store: Objects
) -> None:
    weights = random_timm_weights(tmp_path, "test_vit")
    config = replace(config, weights=(str(weights),))
    first = extract(store, config)
    assert extract(store, config).state == "found"

    other_weights(weights)

    assert extract(store, config).key != first.key


@pytest.mark.slow
def test_the_workers_of_a_scheduler_are_asked_for_they_have_the_weights(
    monkeypatch: pytest.MonkeyPatch, config: ExtractConfig, store: Objects
) -> None:
    monkeypatch.setattr(shards, "open_backbone", tiny_backbone)
    extract(store, config)

    with pytest.raises(ClusterError, match=r"127\.0\.0\.1:9"):
        extract(store, config, ClusterConfig(scheduler="tcp://127.0.0.1:9"))


@pytest.mark.parametrize("damage", [b"", b"\xff", b"../../x", b"{}", b'{"key": 3}', b"0" * 16])
def test_a_damaged_memory_is_as_good_as_none(
    memos: Path,
    monkeypatch: pytest.MonkeyPatch,
    config: ExtractConfig,
    store: Objects,
    damage: bytes,
) -> None:
    monkeypatch.setattr(shards, "open_backbone", tiny_backbone)
    first = extract(store, config)
    remembered = [path for path in memos.rglob("*") if path.is_file()]
    assert remembered

    for path in remembered:
        path.write_bytes(damage)

    assert extract(store, config).caches == (replace(first.caches[0], state="found"),)


def test_a_cache_that_others_made_anew_with_other_masks_is_not_taken_for_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: ExtractConfig, store: Objects
) -> None:
    monkeypatch.setattr(shards, "open_backbone", tiny_backbone)
    mine = extract(store, config)
    theirs = shutil.copytree(config.root, tmp_path / "theirs")
    remove_garbage(store, find_garbage(store, remove=find_caches(store)))
    mask = np.zeros((40, 40), np.uint8)
    mask[2:9] = 255
    write_mask(theirs, "nut", 0, mask)
    assert extract(store, replace(config, root=str(theirs))).key == mine.key

    with pytest.raises(ManifestDiffers, match="mask_id is another one"):
        extract(store, config)

"""Maps that are kept: whole or not there, whatever kills the run that writes them."""

import json

import numpy as np
import pytest
import zarr

from cache.store import open_store
from pipeline.configs import ScoreConfig
from pipeline.detection.load import load_detector
from pipeline.detection.values import compute_maps
from pipeline.inputs import open_dataset
from pipeline.scoring import categories
from pipeline.scoring.score import score
from spg_core.errors import StoreError


def scored(small_store, config, **extras):
    store = open_store(small_store.url)
    return score(store, small_store.guides.id, "target", config, **extras)


def expected_maps(small_store, config):
    store = open_store(small_store.url)
    data = open_dataset(store, "target", "gabor")
    detector = load_detector(store, small_store.guides.id, config)
    return compute_maps(detector, data, np.arange(data.cache.n_images))


def kill_after_one_block(monkeypatch, small_store, config):
    kept, done = categories.block_maps, []

    def dying(*arguments):
        if done:
            raise KeyboardInterrupt
        done.append(arguments)
        return kept(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(categories, "block_maps", dying)
        with pytest.raises(KeyboardInterrupt):
            scored(small_store, config, save_maps=True)


def test_maps_of_a_killed_run_are_made_again(small_store, monkeypatch):
    config = ScoreConfig(sigma=1.5)
    path = scored(small_store, config).path
    kill_after_one_block(monkeypatch, small_store, config)

    scored(small_store, config, save_maps=True)

    maps = zarr.open_array(f"{path}/maps.zarr", mode="r")[:]
    np.testing.assert_array_equal(maps, expected_maps(small_store, config))


def test_maps_of_a_killed_run_cannot_be_opened(small_store, monkeypatch):
    config = ScoreConfig(sigma=1.25)
    path = scored(small_store, config).path

    kill_after_one_block(monkeypatch, small_store, config)

    with pytest.raises(FileNotFoundError):
        zarr.open_array(f"{path}/maps.zarr", mode="r")


def test_maps_of_a_version_that_described_them_first_are_made_again(small_store):
    config = ScoreConfig(sigma=1.75)
    path = scored(small_store, config).path
    shape = expected_maps(small_store, config).shape
    zarr.create_array(f"{path}/maps.zarr", shape=shape, chunks=(1, *shape[1:]), dtype="float32")

    scored(small_store, config, save_maps=True)

    maps = zarr.open_array(f"{path}/maps.zarr", mode="r")[:]
    np.testing.assert_array_equal(maps, expected_maps(small_store, config))


def test_a_map_that_was_lost_reads_as_nan_and_not_as_zero(small_store, tmp_path):
    config = ScoreConfig(sigma=2.25)
    done = scored(small_store, config, save_maps=True)
    done_maps = open_store(done.path).local_path("maps.zarr")
    (done_maps / "c" / "3" / "0" / "0").unlink()

    maps = zarr.open_array(done_maps, mode="r")[:]

    assert np.isnan(maps[3]).all()
    assert np.isfinite(np.delete(maps, 3, 0)).all()


def test_maps_that_are_whole_stay_as_they_are(small_store):
    config = ScoreConfig(sigma=2.75)
    done = scored(small_store, config, save_maps=True)
    description = open_store(done.path).local_path("maps.zarr/zarr.json")
    before = description.stat().st_mtime_ns

    scored(small_store, config, save_maps=True, report=True)

    assert description.stat().st_mtime_ns == before
    assert json.loads(description.read_text())["fill_value"] == "NaN"


def test_maps_that_cannot_be_written_are_an_error_of_ours(small_store):
    config = ScoreConfig(sigma=3.25)
    place = open_store(scored(small_store, config).path)
    place.local_path("maps.zarr").write_text("a file where a folder should be")

    with pytest.raises(StoreError, match=r"cannot write .*maps\.zarr: .*score again"):
        scored(small_store, config, save_maps=True)

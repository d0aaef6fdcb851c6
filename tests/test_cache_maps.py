"""Anomaly maps in a store, by zarr-python: written only where the store may be written."""

from pathlib import Path

import numpy as np
import pytest

from cache.maps import finish_maps, has_maps, open_maps, write_maps
from cache.store import open_store
from spg_core.errors import NotInStore, StoreError
from tests.cache_samples import folder_digests

NAME = "scores/a/maps.zarr"
SHAPE = (3, 2, 5)


def test_maps_come_back_once_they_are_finished(tmp_path: Path) -> None:
    objects = open_store(tmp_path)
    maps = np.random.default_rng(0).random(SHAPE, np.float32)

    write_maps(objects, NAME, SHAPE, np.array([2, 0]), maps[[2, 0]])
    write_maps(objects, NAME, SHAPE, np.array([1]), maps[[1]])
    assert not has_maps(objects, NAME, SHAPE)
    with pytest.raises(NotInStore, match="no maps at"):
        open_maps(objects, NAME)
    finish_maps(objects, NAME, SHAPE)

    np.testing.assert_array_equal(open_maps(objects, NAME)[:], maps)


def test_a_store_opened_read_only_stays_as_it_is(tmp_path: Path) -> None:
    write_maps(open_store(tmp_path), NAME, SHAPE, np.arange(3), np.zeros(SHAPE, np.float32))
    finish_maps(open_store(tmp_path), NAME, SHAPE)
    before = folder_digests(tmp_path)
    objects = open_store(tmp_path, read_only=True)

    with pytest.raises(StoreError, match="was opened read-only"):
        write_maps(objects, NAME, SHAPE, np.arange(1), np.ones((1, 2, 5), np.float32))
    with pytest.raises(StoreError, match="was opened read-only"):
        finish_maps(objects, NAME, SHAPE)
    with pytest.raises(ValueError, match="read-only"):
        open_maps(objects, NAME)[0] = 1

    assert folder_digests(tmp_path) == before


@pytest.mark.parametrize("torn", [b"{", b"null", b"[" * 100_000], ids=["torn", "null", "deep"])
def test_maps_of_a_description_that_cannot_be_read_are_made_again(
    tmp_path: Path, torn: bytes
) -> None:
    objects = open_store(tmp_path)
    objects.replace(f"{NAME}/zarr.json", [torn])

    assert not has_maps(objects, NAME, SHAPE)

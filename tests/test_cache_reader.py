"""Reading: right numbers, or an error that names the file and its images."""

import hashlib
import json
import os
import pickle
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.find import choose_cache, find_caches
from cache.key import cache_key, canonical_json
from cache.reader import TokenCache, open_cache
from cache.shard import crc32c
from cache.store import open_store
from cache.zarr_access import as_dask_array, open_zarr
from spg_core.errors import CorruptStore, IncompleteCache, NotInStore, StoreError
from tests.cache_samples import (
    COVERS,
    MANIFEST_BYTES,
    Sample,
    flip_byte,
    make_sample,
    new_writer,
    write_cache,
    write_pending,
)

SAMPLE = make_sample()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> TokenCache:
    objects = open_store(tmp_path_factory.mktemp("shared"))
    write_cache(objects, SAMPLE)
    return open_cache(objects, "visa", "gabor")


def fresh(folder: Path, sample: Sample = SAMPLE) -> tuple[TokenCache, Path]:
    writer = write_cache(open_store(folder), sample)
    return open_cache(open_store(folder), "visa", "gabor"), folder / writer.folder


def test_an_open_cache_says_what_it_is(shared: TokenCache) -> None:
    assert (shared.n_images, shared.tokens_per_image, shared.d_model) == (150, 6, 5)
    assert (shared.has_cls, shared.mask_size, shared.n_tokens) == (True, (7, 9), 900)
    assert (shared.key, shared.covers) == (cache_key(COVERS), COVERS)
    assert shared.manifest_bytes() == MANIFEST_BYTES


@settings(deadline=None)
@given(st.lists(st.integers(0, 149), max_size=20))
def test_rows_come_back_in_the_order_asked_for(shared: TokenCache, rows: list[int]) -> None:
    assert SAMPLE.cls is not None
    assert SAMPLE.masks is not None
    np.testing.assert_array_equal(shared.tokens(rows), SAMPLE.tokens[rows])
    np.testing.assert_array_equal(shared.cls(rows), SAMPLE.cls[rows])
    np.testing.assert_array_equal(shared.masks(rows), SAMPLE.masks[rows])


@settings(deadline=None)
@given(st.lists(st.integers(0, 899), max_size=40))
def test_single_tokens_are_gathered_by_index(shared: TokenCache, indices: list[int]) -> None:
    tokens = SAMPLE.tokens.reshape(-1, 5)

    ascending = np.unique(indices).astype(np.int64)
    out = np.empty((len(ascending), 5), np.float16)
    if len(ascending):
        shared.gather_sorted(ascending, out)
    np.testing.assert_array_equal(out, tokens[ascending])


def test_slices_ranges_and_a_copy_in_another_process_read_the_same(shared: TokenCache) -> None:
    there = pickle.loads(pickle.dumps(shared))

    np.testing.assert_array_equal(shared.tokens(slice(60, None, 7)), SAMPLE.tokens[60::7])
    np.testing.assert_array_equal(there.tokens(range(60, 70)), SAMPLE.tokens[60:70])
    np.testing.assert_array_equal(shared.resident_tokens(), SAMPLE.tokens.reshape(-1, 5))


def test_what_is_returned_is_the_callers_own(shared: TokenCache) -> None:
    shared.tokens([3])[:] = 0

    np.testing.assert_array_equal(shared.tokens([3]), SAMPLE.tokens[[3]])


def test_dask_and_zarr_see_the_same_arrays(shared: TokenCache) -> None:
    lazy = as_dask_array(shared)

    assert lazy.chunks == ((64, 64, 22), (6,), (5,))
    np.testing.assert_array_equal(lazy[50:140:3, 2].compute(), SAMPLE.tokens[50:140:3, 2])
    np.testing.assert_array_equal(as_dask_array(shared, "masks").compute(), SAMPLE.masks)
    np.testing.assert_array_equal(open_zarr(shared)["tokens"][:], SAMPLE.tokens)
    with pytest.raises(StoreError, match="has no depth, it has masks, cls, tokens"):
        as_dask_array(shared, "depth")


@pytest.mark.parametrize(
    "index",
    [
        np.s_[5],
        np.s_[-1],
        np.s_[5, 2],
        np.s_[-150, -1, -1],
        np.s_[64, :, 1],
        np.s_[::-1],
        np.s_[149:20:-40, 1:3],
        np.s_[10:10],
        np.s_[[3, 149, 64], 2],
        np.s_[:, [4, 0]],
        np.s_[..., 3],
        np.s_[None, 7],
        np.arange(150) % 70 == 3,
    ],
)
@pytest.mark.parametrize("array", ["tokens", "masks"])
def test_dask_indexes_as_numpy_does(shared: TokenCache, array: str, index: Any) -> None:
    expected = getattr(SAMPLE, array)[index]

    found = as_dask_array(shared, array)[index].compute()

    np.testing.assert_array_equal(found, expected)
    assert (np.asarray(found).dtype, np.shape(found)) == (expected.dtype, expected.shape)


@pytest.mark.parametrize(
    "index", [True, np.s_[:, True], 5.0, "a", [[1, 2], [3, 4]], np.s_[[1, 2], [0, 1]]], ids=str
)
def test_what_dask_does_not_index_as_numpy_is_as_in_any_dask_array(
    shared: TokenCache, index: Any
) -> None:
    def outcome(lazy: Any) -> Any:
        try:
            return lazy[index].compute().tolist()
        except (IndexError, KeyError, TypeError, NotImplementedError) as error:
            return type(error), str(error)

    plain = dask.array.from_array(SAMPLE.tokens, chunks=(64, 6, 5))

    assert outcome(as_dask_array(shared)) == outcome(plain)


def test_dask_slices_of_slices_read_the_right_images(shared: TokenCache) -> None:
    lazy = as_dask_array(shared)

    np.testing.assert_array_equal(lazy[60:140][10].compute(), SAMPLE.tokens[70])
    np.testing.assert_array_equal(lazy[60:140][::-1][3, 1].compute(), SAMPLE.tokens[136, 1])
    with pytest.raises(IndexError):
        lazy[150]


def test_means_of_large_float16_are_finite_as_float32(tmp_path: Path) -> None:
    sample = make_sample(extras=False)
    sample.tokens[:] = 60_000
    cache, _ = fresh(tmp_path, sample)

    lazy = as_dask_array(cache, as_float32=True)

    assert lazy.dtype == lazy[:3].compute().dtype == np.float32
    assert as_dask_array(cache).dtype == np.float16
    assert lazy.name != as_dask_array(cache).name
    assert float(lazy.mean().compute()) == np.float16(60_000)


@pytest.mark.parametrize("rows", [[150], [-1], [0.5], [[0]]])
def test_rows_that_are_not_there_are_refused(shared: TokenCache, rows: Any) -> None:
    with pytest.raises(StoreError, match="image row"):
        shared.tokens(rows)


def test_an_array_the_cache_lacks_is_refused(tmp_path: Path) -> None:
    cache, _ = fresh(tmp_path, make_sample(extras=False))

    with pytest.raises(StoreError, match="has no masks"):
        cache.masks([0])


@pytest.mark.parametrize("array", ["tokens", "cls", "masks"])
def test_a_flipped_bit_stops_with_the_image_and_spares_the_others(
    tmp_path: Path, array: str
) -> None:
    cache, folder = fresh(tmp_path)
    chunks = folder / "tokens.zarr" / array / "c" / "1"
    (path,) = [path for path in chunks.rglob("*") if path.is_file()]
    flip_byte(path, 2)  # in the first chunk, of image 64

    with pytest.raises(CorruptStore, match=rf"{array}/c/1/0.*images 64 to 127.*image row 64 do"):
        cache.read_rows(array, [63, 64])
    np.testing.assert_array_equal(
        cache.read_rows(array, [63, 65]), getattr(SAMPLE, array)[[63, 65]]
    )


def test_a_flipped_bit_stops_gathering_and_loading_too(tmp_path: Path) -> None:
    cache, folder = fresh(tmp_path)
    flip_byte(folder / "tokens.zarr/tokens/c/2/0/0", 60 * 21)  # of image 149

    out = np.empty((1, 5), np.float16)
    cache.gather_sorted(np.array([893]), out)
    np.testing.assert_array_equal(out, SAMPLE.tokens[148, [5]])
    with pytest.raises(CorruptStore, match="image row 149"):
        cache.gather_sorted(np.array([0, 894]), np.empty((2, 5), np.float16))
    with pytest.raises(CorruptStore, match="image row 149"):
        cache.resident_tokens()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("missing", "the file is missing"),
        ("short", r"it has \d+ bytes, \d+ were written"),
        ("long", r"it has \d+ bytes, \d+ were written"),
        ("index", "its shard index does not match its checksum"),
        ("forged index", "its shard index does not cover"),
    ],
)
def test_a_shard_that_is_not_whole_is_named(tmp_path: Path, damage: str, message: str) -> None:
    cache, folder = fresh(tmp_path)
    path = folder / "tokens.zarr/tokens/c/1/0/0"
    data = path.read_bytes()
    path.unlink()
    match damage:
        case "missing":
            pass
        case "short":
            path.write_bytes(data[:-1])
        case "long":
            path.write_bytes(data + b"x")
        case "index":
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        case _:
            index = bytearray(data[-1028:-4])
            index[8:16] = (2**63).to_bytes(8, "little")
            path.write_bytes(data[:-1028] + index + crc32c(bytes(index)).to_bytes(4, "little"))

    with pytest.raises(CorruptStore, match=rf"tokens/c/1/0/0 \(images 64 to 127\): {message}"):
        cache.tokens([100])


def test_a_pipe_in_place_of_a_shard_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    cache, folder = fresh(tmp_path)
    path = folder / "tokens.zarr/tokens/c/1/0/0"
    path.unlink()
    os.mkfifo(path)

    with pytest.raises(StoreError, match="tokens/c/1/0/0: it is not a regular file"):
        cache.tokens([100])


def test_an_edited_or_missing_manifest_is_named(tmp_path: Path) -> None:
    cache, folder = fresh(tmp_path)
    path = folder / "manifest.parquet"

    flip_byte(path, 5)
    with pytest.raises(CorruptStore, match=r"manifest\.parquet was edited or torn"):
        cache.manifest_bytes()
    path.write_bytes(bytes(10**6))
    with pytest.raises(CorruptStore, match=r"manifest\.parquet has 1000000 bytes"):
        cache.manifest_bytes()
    path.unlink()
    with pytest.raises(CorruptStore, match=r"manifest\.parquet is missing"):
        cache.manifest_bytes()


def forge(path: Path, change: dict[str, Any]) -> None:
    """Edit cache.json as someone would who also makes the digest right."""
    body = {**json.loads(path.read_bytes()), **change}
    del body["digest"]
    body["digest"] = hashlib.sha256(canonical_json(body)).hexdigest()
    path.write_text(json.dumps(body))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format 2, this version reads 1"),
        ({"covers": {}}, "is not that of its folder and of what it covers"),
        ({"shards": []}, "3 shards expected"),
        ({"shards": [{}, {}, {}]}, "no receipt of shard 0"),
        ({"arrays": {"tokens": {"shape": [2**40, 1, 1], "dtype": "float16"}}}, "has shape"),
        ({"arrays": {"tokens": {"shape": [150, 6, 5], "dtype": "float64"}}}, "shapes and dtypes"),
        ({"arrays": {"tokens": {"shape": [150, 2**31, 2**31], "dtype": "float16"}}}, "as large as"),
        ({"arrays": {"tokens": {"shape": [150, -6, 5], "dtype": "float16"}}}, "whole number"),
        ({"arrays": []}, "arrays should be a JSON object"),
        ({"manifest": {"bytes": 1, "sha256": "x"}}, "manifest sha256 should be 64 hex digits"),
        ({"images_per_shard": 1}, "shapes and dtypes"),
    ],
)
def test_a_forged_record_is_refused_before_memory_is_taken(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    cache, folder = fresh(tmp_path)
    forge(folder / "cache.json", change)

    with pytest.raises(CorruptStore, match=rf"cache\.json: .*{message}"):
        open_cache(cache.objects, "visa", "gabor")


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "tokens.zarr/tokens/c/1/0/0"])
def test_a_record_cannot_point_elsewhere(tmp_path: Path, name: str) -> None:
    cache, folder = fresh(tmp_path)
    body = json.loads((folder / "cache.json").read_bytes())
    body["shards"][0]["objects"]["tokens"]["name"] = name
    forge(folder / "cache.json", body)

    with pytest.raises(CorruptStore, match="shard 0 of tokens has a wrong name or size"):
        open_cache(cache.objects, "visa", "gabor")


def test_caches_are_found_by_name_and_by_the_start_of_a_key(tmp_path: Path) -> None:
    objects = open_store(tmp_path)
    sample = make_sample(extras=False)
    for foreign in [".sync", "visa/.sync", "visa/gabor/not-a-key"]:
        objects.put_new(f"tokens/{foreign}/file", [b"x"])
    assert find_caches(objects) == []
    with pytest.raises(NotInStore, match=r"no cache visa/gabor in .*; it holds no cache"):
        choose_cache(objects, "visa", "gabor")

    write_pending(new_writer(objects, sample), sample)
    with pytest.raises(IncompleteCache, match=r"visa/gabor in .* is only partly written; run"):
        choose_cache(objects, "visa", "gabor")

    first, second = write_cache(objects, sample), write_cache(objects, sample, {"other": 1})
    with pytest.raises(StoreError, match=rf"choose a key: .*{second.key} \("):
        choose_cache(objects, "visa", "gabor")
    assert choose_cache(objects, "visa", "gabor", second.key[:6]).key == second.key
    assert {info.key for info in find_caches(objects, "visa")} == {first.key, second.key}
    with pytest.raises(NotInStore, match=f"it holds .*visa/gabor/{first.key}"):
        choose_cache(objects, "mvtec", "gabor")
    with pytest.raises(StoreError, match="cannot be part of a cache's path"):
        choose_cache(objects, "..", "gabor")

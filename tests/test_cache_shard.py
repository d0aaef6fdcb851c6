"""Bytes of a shard: against hand-worked ones, zarr-python's own, and what others read."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore
import zarr
from hypothesis import given
from hypothesis import strategies as st
from zarr.codecs import ZstdCodec
from zarr.storage import MemoryStore

from cache.layout import ARRAYS, INDEX_BYTES, Geometry, cache_folder, shard_name
from cache.shard import (
    crc32c,
    decode_index,
    decode_mask,
    encode_chunks,
    encode_index,
    is_storable,
    zstd_content_bytes,
)
from cache.store import open_store
from cache.zarr_group import DIMENSIONS, zarr_metadata
from spg_core.errors import StoreError
from tests.cache_samples import Sample, make_sample, write_cache


def test_crc32c_of_the_standard_check_string() -> None:
    # RFC 3720, B.4 and every CRC catalogue: "123456789" gives E3069283.
    assert crc32c(b"123456789") == 0xE3069283


def test_an_index_is_offsets_and_lengths_then_its_checksum() -> None:
    index = encode_index([12, 3])

    assert len(index) == INDEX_BYTES == 1028
    assert index[:16] == bytes([0] * 8 + [12] + [0] * 7)
    assert index[16:32] == bytes([12] + [0] * 7 + [3] + [0] * 7)
    assert index[32:-4] == b"\xff" * (62 * 16)
    assert index[-4:] == crc32c(index[:-4]).to_bytes(4, "little")


def test_two_tokens_of_two_images_as_bytes() -> None:
    tokens = np.array([[[1.0, -2.0]], [[0.5, 0.0]]], np.float16)

    chunks = encode_chunks("tokens", tokens)

    assert b"".join(np.asarray(chunk).tobytes() for chunk in chunks).hex() == "003c00c000380000"


def zarr_pythons_own(sample: Sample) -> dict[str, bytes]:
    """All objects that zarr-python writes for a sample, by name inside the group."""
    contents: dict[str, Any] = {}
    group = zarr.create_group(MemoryStore(contents), zarr_format=3)
    for array in sample.geometry.arrays:
        item = sample.geometry.item_shape(array)
        created = group.create_array(
            array,
            shape=(sample.geometry.n_images, *item),
            shards=(64, *item),
            chunks=(1, *item),
            dtype="u1" if array == "masks" else "<f2",
            filters=None,
            compressors=ZstdCodec(level=3) if array == "masks" else None,
            fill_value=0,
            dimension_names=DIMENSIONS[array],
            config={"write_empty_chunks": True},
        )
        created[:] = getattr(sample, array)
    return {name: data.to_bytes() for name, data in contents.items()}


def test_our_metadata_says_what_that_of_zarr_python_says() -> None:
    sample = make_sample()
    theirs = zarr_pythons_own(sample)

    for name, ours in zarr_metadata(sample.geometry).items():
        assert json.loads(ours) == json.loads(theirs[name.removeprefix("tokens.zarr/")])


@pytest.mark.parametrize("array", ARRAYS)
def test_our_shards_are_byte_for_byte_those_of_zarr_python(tmp_path: Path, array: str) -> None:
    sample = make_sample()
    writer = write_cache(open_store(tmp_path), sample)
    theirs = zarr_pythons_own(sample)

    for shard in range(3):
        name = shard_name(array, shard)
        ours = (tmp_path / writer.folder / name).read_bytes()

        assert ours == theirs[name.removeprefix("tokens.zarr/")]


def test_zarr_python_and_tensorstore_read_what_was_written(tmp_path: Path) -> None:
    sample = make_sample()
    folder = tmp_path / write_cache(open_store(tmp_path), sample).folder / "tokens.zarr"

    group = zarr.open_group(folder, mode="r")
    for array in ARRAYS:
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(folder / array)}}
        stored = tensorstore.open(spec, read=True).result().read().result()

        np.testing.assert_array_equal(np.asarray(group[array]), getattr(sample, array))
        np.testing.assert_array_equal(stored, getattr(sample, array))


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=64))
def test_an_index_round_trips(lengths: list[int]) -> None:
    index = decode_index(encode_index(lengths), len(lengths), sum(lengths) + INDEX_BYTES)

    assert index[:, 1].tolist() == lengths
    assert index[:, 0].tolist() == [sum(lengths[:i]) for i in range(len(lengths))]


@given(st.binary(min_size=INDEX_BYTES, max_size=INDEX_BYTES), st.integers(1, 64), st.booleans())
def test_no_index_points_outside_its_shard(data: bytes, n_rows: int, repaired: bool) -> None:
    if repaired:
        data = data[:-4] + crc32c(data[:-4]).to_bytes(4, "little")

    with pytest.raises(StoreError, match="shard index"):
        decode_index(data, n_rows, 5000)


def test_lengths_that_wrap_round_are_refused() -> None:
    index = np.full((64, 2), 2**64 - 1, "<u8")
    index[:4, 1] = 2**62
    index[:4, 0] = np.arange(4, dtype=np.uint64) * np.uint64(2**62)
    data = index.tobytes() + crc32c(index).to_bytes(4, "little")

    with pytest.raises(StoreError, match="does not cover its 0 bytes"):
        decode_index(data, 4, INDEX_BYTES)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32))
def test_masks_round_trip_and_state_their_size(height: int, width: int, seed: int) -> None:
    mask = np.random.default_rng(seed).integers(0, 2, (1, height, width)).astype(np.uint8)

    (frame,) = encode_chunks("masks", mask)

    assert zstd_content_bytes(bytes(frame[:18])) == height * width
    np.testing.assert_array_equal(decode_mask(frame, (height, width)), mask[0])


def test_a_mask_that_would_unpack_to_more_is_not_unpacked() -> None:
    (bomb,) = encode_chunks("masks", np.zeros((1, 4096, 4096), np.uint8))

    with pytest.raises(StoreError, match="16777216 bytes where 7 x 9 are expected"):
        decode_mask(bomb, (7, 9))
    with pytest.raises(StoreError, match="a mask of None bytes"):
        decode_mask(b"not a zstd frame", (7, 9))
    with pytest.raises(StoreError, match="does not decompress"):
        decode_mask(bytes(bomb[:-1]), (4096, 4096))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 65504.0, -65504.0])
def test_values_float16_cannot_hold_are_found(value: float) -> None:
    tokens = np.full((3, 2, 2), 65472.0, np.float16)
    assert is_storable(tokens)

    tokens[1, 1, 0] = value

    assert not is_storable(tokens)


def test_a_cache_of_130_images_has_three_shards_of_known_names() -> None:
    geometry = Geometry(n_images=130, tokens_per_image=784, d_model=1024, mask_size=(448, 448))

    assert [geometry.shard_rows(shard) for shard in range(3)] == [
        range(64),
        range(64, 128),
        range(128, 130),
    ]
    assert geometry.raw_shard_bytes("tokens", 2) == 2 * 784 * 1024 * 2 + 1028
    assert shard_name("tokens", 2) == "tokens.zarr/tokens/c/2/0/0"
    assert shard_name("cls", 2) == "tokens.zarr/cls/c/2/0"


@pytest.mark.parametrize("part", ["", "..", "a/b", ".hidden", "a\\b", "a:b"])
def test_names_that_leave_the_store_are_refused(part: str) -> None:
    with pytest.raises(StoreError, match="cannot be part of a cache's path"):
        cache_folder(part, "gabor", "00")


@pytest.mark.parametrize("n_images", [0, -1, 2**40, True])
def test_impossible_sizes_are_refused(n_images: int) -> None:
    with pytest.raises(StoreError, match="sizes of 1 to"):
        Geometry(n_images=n_images, tokens_per_image=1, d_model=1)


def test_no_mask_takes_more_memory_than_its_frame_can_hold() -> None:
    # The header of a frame may state anything; this one is of 16384 x 16384 bytes and ends there.
    claim = b"\x28\xb5\x2f\xfd\xa0" + (16384 * 16384).to_bytes(4, "little") + bytes(9)

    with pytest.raises(StoreError, match="268435456 bytes, which 18 bytes of zstd cannot hold"):
        decode_mask(claim, (16384, 16384))
    with pytest.raises(StoreError, match="no cache has images as large"):
        Geometry(n_images=1, tokens_per_image=1, d_model=1, mask_size=(16384, 16385))


def test_the_emptiest_masks_are_decoded() -> None:
    for side in (1, 7, 448, 4096):
        frame = encode_chunks("masks", np.zeros((1, side, side), np.uint8))[0]

        assert not decode_mask(frame, (side, side)).any()

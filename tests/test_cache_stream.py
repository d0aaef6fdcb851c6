"""Streaming: the stated order, every token once, resumable anywhere, in the memory stated."""

import subprocess
import sys
import threading
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cache.layout import Geometry
from cache.reader import TokenCache, open_cache
from cache.store import open_store
from cache.stream import Order, fits_in_memory, steps_per_epoch, token_batches
from cache.writer import CacheWriter
from spg_core.errors import ConfigError, CorruptStore
from tests.cache_samples import Sample, flip_byte, make_sample, write_cache

ORDERS = get_args(Order)
PLENTY = 10**9
TIGHT = 4 * 50 * 8 * 2 + 4 * 8 * 400
"""Four batches of 50 tokens and two windows of 400 of the 900."""


def numbered() -> Sample:
    """Token i of 900 holds the digits of i, so that it can be told apart (float16 ends at 2048)."""
    sample = make_sample(dim=8, extras=False)
    sample.tokens[:] = np.arange(900).reshape(150, 6, 1)
    return sample


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> TokenCache:
    objects = open_store(tmp_path_factory.mktemp("stream"))
    write_cache(objects, numbered())
    return open_cache(objects, "visa", "gabor")


def ids(
    cache: TokenCache, order: Order, start_step: int = 0, memory: int = PLENTY, threads: int = 2
) -> list[list[int]]:
    batches = token_batches(
        cache,
        order=order,
        batch=16 if order == "images" else 50,
        seed=1,
        epoch=2,
        start_step=start_step,
        memory_bytes=memory,
        threads=threads,
    )
    return [as_ids(batch) for batch in batches]


def as_ids(batch: NDArray[np.float16]) -> list[int]:
    assert batch.dtype == np.float16
    assert (batch == batch[:, :1]).all()
    return [int(value) for value in batch[:, 0]]


def joined(batches: list[list[int]]) -> list[int]:
    return [token for batch in batches for token in batch]


def test_sequential_is_as_stored(cache: TokenCache) -> None:
    batches = ids(cache, "sequential")

    assert batches[0] == list(range(50))
    assert joined(batches) == list(range(900))


def test_images_come_whole_sixteen_a_step(cache: TokenCache) -> None:
    batches = ids(cache, "images")

    assert [len(batch) for batch in batches] == [96] * 9 + [36]
    for batch in batches:
        starts = batch[::6]
        assert all(start % 6 == 0 for start in starts)
        assert batch == [start + i for start in starts for i in range(6)]
    assert batches[0] != sorted(batches[0])


@pytest.mark.parametrize("memory", [PLENTY, TIGHT])
@pytest.mark.parametrize("order", ORDERS)
def test_every_token_comes_once_an_epoch(cache: TokenCache, order: Order, memory: int) -> None:
    batches = ids(cache, order, memory=memory)

    assert len(batches) == steps_per_epoch(cache, order, 16 if order == "images" else 50)
    assert sorted(joined(batches)) == list(range(900))


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(ORDERS), st.integers(0, 18), st.sampled_from([PLENTY, TIGHT]))
def test_a_resumed_epoch_goes_on_exactly(
    cache: TokenCache, order: Order, start: int, memory: int
) -> None:
    whole = ids(cache, order, memory=memory)
    start = min(start, len(whole))

    assert ids(cache, order, start_step=start, memory=memory) == whole[start:]


@pytest.mark.parametrize("memory", [PLENTY, TIGHT])
@pytest.mark.parametrize("order", ORDERS)
def test_threads_change_nothing(cache: TokenCache, order: Order, memory: int) -> None:
    assert ids(cache, order, memory=memory, threads=1) == ids(
        cache, order, memory=memory, threads=5
    )


def test_epochs_and_seeds_give_other_orders(cache: TokenCache) -> None:
    def first(seed: int, epoch: int) -> list[int]:
        batches = token_batches(cache, order="tokens", batch=50, seed=seed, epoch=epoch)
        return as_ids(next(iter(batches)))

    assert first(0, 0) == first(0, 0)
    assert len({tuple(first(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


def test_memory_too_small_for_all_tokens_still_mixes_images(cache: TokenCache) -> None:
    assert not fits_in_memory(cache, 50, TIGHT)
    assert fits_in_memory(cache, 50, PLENTY)

    images = {token // 6 for token in ids(cache, "tokens", memory=TIGHT)[0]}

    assert len(images) > 20


def test_a_batch_is_the_callers_own(cache: TokenCache) -> None:
    for batch in token_batches(cache, order="tokens", batch=50, seed=1, epoch=2):
        batch[:] = 0

    assert sorted(joined(ids(cache, "tokens"))) == list(range(900))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("memory", [PLENTY, TIGHT])
def test_a_corrupt_shard_stops_the_stream_with_its_name(
    tmp_path: Path, order: Order, memory: int
) -> None:
    objects = open_store(tmp_path)
    writer = write_cache(objects, numbered())
    flip_byte(tmp_path / writer.folder / "tokens.zarr/tokens/c/1/0/0", 0)
    seen: list[int] = []

    stream = token_batches(
        open_cache(objects, "visa", "gabor"),
        order=order,
        batch=16 if order == "images" else 50,
        seed=0,
        epoch=0,
        memory_bytes=memory,
    )

    with pytest.raises(CorruptStore, match=r"tokens/c/1/0/0 \(images 64 to 127\).*image row 64"):
        seen.extend(token for batch in stream for token in as_ids(batch))
    assert not set(seen) & set(range(384, 390))


def test_a_stream_left_early_leaves_no_thread(cache: TokenCache) -> None:
    before = threading.active_count()
    stream = token_batches(cache, order="tokens", batch=5, seed=0, epoch=0, memory_bytes=TIGHT)
    next(stream)

    stream.close()  # type: ignore[attr-defined]

    assert threading.active_count() == before


def test_what_cannot_be_streamed_is_refused(cache: TokenCache) -> None:
    def stream(order: str = "tokens", batch: int = 50, memory: int = PLENTY, step: int = 0) -> None:
        list(
            token_batches(
                cache,
                order=order,  # type: ignore[arg-type]
                batch=batch,
                seed=0,
                epoch=0,
                start_step=step,
                memory_bytes=memory,
            )
        )

    with pytest.raises(ConfigError, match="order 'random' is none of tokens, images, sequential"):
        stream(order="random")
    with pytest.raises(ConfigError, match="a batch needs at least one item, got 0"):
        stream(batch=0)
    with pytest.raises(ConfigError, match="step 19 of 18"):
        stream(step=19)
    with pytest.raises(ConfigError, match="does not hold a batch of 50; allow more memory"):
        stream(memory=4000)


EPOCH_OF_MANY_SHARDS = """
import sys
from cache.reader import open_cache
from cache.store import open_store
from cache.stream import token_batches

cache = open_cache(open_store(sys.argv[1], read_only=True), "made", "up")
batches = token_batches(
    cache, order="tokens", batch=200, seed=0, epoch=0, memory_bytes=4 * 200 * 4 + 4 * 2 * 2000
)
seen = sorted(int(token[0]) * 64 + int(token[1]) for batch in batches for token in batch)
assert seen == list(range(cache.n_tokens)), len(seen)
"""


@pytest.mark.parametrize("limit", ["-Sn", "-n"])
def test_an_epoch_of_more_shards_than_the_process_may_open_files(
    tmp_path: Path, limit: str
) -> None:
    n_images = 100 * 64  # 100 shards, of a token an image
    geometry = Geometry(
        n_images=n_images, tokens_per_image=1, d_model=2, has_cls=False, mask_size=None
    )
    tokens = np.stack(np.divmod(np.arange(n_images), 64), 1).astype(np.float16)[:, None]
    writer = CacheWriter(open_store(tmp_path), "made", "up", {"format": 1}, geometry)
    for shard in range(geometry.n_shards):
        rows = writer.shard_rows(shard)
        writer.write_shard(shard, tokens[rows.start : rows.stop])
    writer.finish(b"no manifest is read here")

    script = f'ulimit {limit} 64 && exec "$0" -c "$1" "$2"'
    ran = subprocess.run(
        ["bash", "-c", script, sys.executable, EPOCH_OF_MANY_SHARDS, tmp_path],
        capture_output=True,
        text=True,
    )

    assert ran.returncode == 0, ran.stderr


def test_batches_of_a_cache_larger_than_memory_are_read_in_its_order(cache: TokenCache) -> None:
    for batch in ids(cache, "tokens", memory=TIGHT):
        assert batch == sorted(batch)

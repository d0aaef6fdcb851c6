"""Batches of tokens from an open cache, in a stated order and in bounded memory.

Orders:
    tokens      near-iid: all tokens permuted when they fit in memory, else `order.WindowPlan`,
                each batch in the order of the cache
    images      whole images, permuted (the paper's training uses 16 a step)
    sequential  as stored

A batch depends on (seed, epoch, step), the batch size and, for `tokens`, the memory allowed (which
decides the plan), never on the number of threads. So an iterator's state is (epoch, step).

The memory stated holds all tokens, or two windows. A window is not copied: its pages are brought
into the system's file cache, in one sweep and while the one before is used, and batches are copied
from there, sorted, so that both go through the files once. That was 1.9 times as fast as reading
windows into memory of our own and shuffling them there, and faster than a gather in random order.
Pages of mapped files are the system's, which it takes back when memory is short.
"""

import queue
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Thread
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cache.buffers import Buffers
from cache.layout import IMAGES_PER_SHARD
from cache.order import EpochOrder, WindowPlan, n_steps, plan_windows
from cache.reader import TokenCache
from cache.windows import Windows
from spg_core.errors import ConfigError

Order = Literal["tokens", "images", "sequential"]
Batch = NDArray[np.float16]

_BATCHES_HELD = 4
"""Batches alive at a time: one used, one waiting, one being made, one on its way between them."""


def steps_per_epoch(cache: TokenCache, order: Order, batch: int) -> int:
    """Return the steps of an epoch; `batch` counts images for order `images`, else tokens."""
    return n_steps(cache.n_images if order == "images" else cache.n_tokens, batch)


def fits_in_memory(cache: TokenCache, batch: int, memory_bytes: int) -> bool:
    """Tell whether order `tokens` will hold all tokens of the cache in memory."""
    return cache.tokens_bytes + _BATCHES_HELD * batch * cache.d_model * 2 <= memory_bytes


def token_batches(
    cache: TokenCache,
    *,
    order: Order,
    batch: int,
    seed: int,
    epoch: int,
    start_step: int = 0,
    memory_bytes: int | None = None,
    threads: int = 2,
) -> Iterator[Batch]:
    """Yield the batches `(n, dim)` float16 of an epoch from `start_step` on; the last may be short.

    One thread works ahead of the caller; `threads` threads copy. Every array is the caller's own.

    Args:
        cache: an open cache.
        order: `tokens`, `images` or `sequential`.
        batch: tokens a step; images a step for order `images`.
        seed: selects the permutations, with `epoch`.
        epoch: from 0.
        start_step: where to begin, for resuming.
        memory_bytes: bound on what this takes, the cache's own by default.
        threads: how many copy at a time; no influence on what comes out.

    Raises:
        ConfigError: sizes or order are impossible, or the memory does not hold a few batches.
        CorruptStore: a shard is missing or wrong; no batch with its bytes is yielded.
    """
    allowed = cache.memory_bytes if memory_bytes is None else memory_bytes
    total = steps_per_epoch(cache, order, batch)
    if not 0 <= start_step <= total or epoch < 0 or threads < 1:
        raise ConfigError(
            f"step {start_step} of {total}, epoch {epoch}, {threads} threads: cannot start there"
        )
    steps = range(start_step, total)
    match order:
        case "tokens" if fits_in_memory(cache, batch, allowed):
            return _ahead(lambda: _resident(cache, batch, seed, epoch, steps, threads))
        case "tokens":
            plan = _plan(cache, batch, allowed)
            return _ahead(lambda: _windowed(cache, plan, batch, seed, epoch, steps, threads))
        case "images":
            return _ahead(lambda: _images(cache, batch, seed, epoch, steps))
        case "sequential":
            return _ahead(lambda: _sequential(cache, batch, steps))
        case _:
            raise ConfigError(f"order {order!r} is none of tokens, images, sequential")


def token_order(
    cache: TokenCache, batch: int, seed: int, epoch: int, start_step: int
) -> Iterator[NDArray[np.int64]]:
    """Yield which tokens are in each batch of order `tokens`, `(n,)`, as `token_batches` has them.

    For who holds all of them elsewhere: nothing is read.
    """
    steps = range(start_step, steps_per_epoch(cache, "tokens", batch))
    if fits_in_memory(cache, batch, cache.memory_bytes):
        yield from map(EpochOrder(cache.n_tokens, seed, epoch, "tokens", batch).step, steps)
        return
    plan = _plan(cache, batch, cache.memory_bytes)
    with ThreadPoolExecutor(1) as planner:
        windows = Windows(None, plan, seed, epoch, planner)
        for step in steps:
            yield windows.between(step * batch, min((step + 1) * batch, plan.n_tokens))


def _plan(cache: TokenCache, batch: int, allowed: int) -> WindowPlan:
    room = allowed - _BATCHES_HELD * batch * cache.d_model * 2
    # Two windows: one is being fetched while the other is used.
    return plan_windows(cache.n_tokens, batch, max(0, room) // (4 * cache.d_model))


def _resident(
    cache: TokenCache, batch: int, seed: int, epoch: int, steps: range, threads: int
) -> Iterator[Batch]:
    tokens = cache.resident_tokens()
    buffers = Buffers(batch, cache.d_model, _BATCHES_HELD)
    order = EpochOrder(cache.n_tokens, seed, epoch, "tokens", batch)
    with ThreadPoolExecutor(threads) as pool:
        for indices in map(order.step, steps):
            out = buffers.take(len(indices))
            _take(pool, threads, tokens, indices, out)
            yield out


def _windowed(
    cache: TokenCache,
    plan: WindowPlan,
    batch: int,
    seed: int,
    epoch: int,
    steps: range,
    threads: int,
) -> Iterator[Batch]:
    cache.read_ahead(range(cache.geometry.n_shards))
    with ThreadPoolExecutor(threads) as pool, ThreadPoolExecutor(1) as reader:
        windows = Windows(cache, plan, seed, epoch, reader)
        buffers = Buffers(batch, cache.d_model, _BATCHES_HELD)
        for step in steps:
            indices = windows.between(step * batch, min((step + 1) * batch, plan.n_tokens))
            out = buffers.take(len(indices))
            _gather(pool, threads, cache, indices, out)
            yield out


def _images(cache: TokenCache, batch: int, seed: int, epoch: int, steps: range) -> Iterator[Batch]:
    order = EpochOrder(cache.n_images, seed, epoch, "images")
    rows = order.between(steps.start * batch, cache.n_images)
    # dict.fromkeys keeps the order of first use, np.unique would not.
    cache.read_ahead(list(dict.fromkeys((rows // IMAGES_PER_SHARD).tolist())))
    for start in range(0, len(rows), batch):
        yield cache.tokens(rows[start : start + batch]).reshape(-1, cache.d_model)


def _sequential(cache: TokenCache, batch: int, steps: range) -> Iterator[Batch]:
    first = steps.start * batch // (IMAGES_PER_SHARD * cache.tokens_per_image)
    cache.read_ahead(range(first, cache.geometry.n_shards))
    buffers = Buffers(batch, cache.d_model, _BATCHES_HELD)
    for step in steps:
        indices = np.arange(step * batch, min((step + 1) * batch, cache.n_tokens))
        out = buffers.take(len(indices))
        cache.gather_sorted(indices, out)
        yield out


def _take(
    pool: ThreadPoolExecutor, threads: int, tokens: Batch, indices: NDArray[np.int64], out: Batch
) -> None:
    """Copy `tokens[indices]` to `out`."""

    def copy(start: int, stop: int) -> None:
        # "clip" because "raise" would copy through a buffer; nothing is out of bounds.
        np.take(tokens, indices[start:stop], axis=0, out=out[start:stop], mode="clip")

    _share_out(pool, threads, copy, len(indices))


def _gather(
    pool: ThreadPoolExecutor,
    threads: int,
    cache: TokenCache,
    indices: NDArray[np.int64],
    out: Batch,
) -> None:
    """Copy ascending tokens from the shards to `out`."""

    def copy(start: int, stop: int) -> None:
        cache.gather_sorted(indices[start:stop], out[start:stop])

    _share_out(pool, threads, copy, len(indices))


def _share_out(
    pool: ThreadPoolExecutor, threads: int, copy: Callable[[int, int], None], n: int
) -> None:
    """Copy n items, a share a thread; NumPy lets others run meanwhile."""
    borders = np.unique(np.linspace(0, n, threads + 1).astype(int)).tolist()
    list(pool.map(copy, borders[:-1], borders[1:]))


def _ahead(make: Callable[[], Iterator[Batch]]) -> Iterator[Batch]:
    """Run an iterator in a thread, one item ahead of its consumer; its errors are raised there."""
    items: queue.Queue[Batch | BaseException | None] = queue.Queue(maxsize=1)
    stopped = Event()

    def put(item: Batch | BaseException | None) -> bool:
        while not stopped.is_set():
            try:
                items.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for item in make():
                if not put(item):
                    return
        except BaseException as error:  # noqa: BLE001 - handed over, raised by the consumer
            put(error)
        else:
            put(None)

    def consume() -> Iterator[Batch]:
        thread = Thread(target=work, name="token-batches", daemon=True)
        thread.start()
        try:
            while (item := items.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            stopped.set()
            thread.join()

    return consume()

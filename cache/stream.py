"""Batches of tokens from an open cache, in a stated order and in bounded memory.

Orders:
    tokens      near-iid: all tokens permuted when they fit in memory, else `order.WindowPlan`
    images      whole images, permuted (the paper's training uses 16 a step)
    sequential  as stored

A batch depends on (seed, epoch, step), the batch size and, for `tokens`, the memory allowed (which
decides the plan), never on the number of threads. So an iterator's state is (epoch, step).

The memory stated is the process's own (batches, windows or all tokens). Shards are mapped files
besides: pages of the system's file cache, which it takes back when memory is short. Mapping them
anew for each window halved the speed (1.3 to 1.9 against 2.6 to 4.0 million tokens a second).
"""

import queue
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event, Thread
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cache.buffers import Buffers
from cache.layout import IMAGES_PER_SHARD
from cache.order import EpochOrder, WindowPlan, n_steps, plan_windows
from cache.reader import TokenCache
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
            room = allowed - _BATCHES_HELD * batch * cache.d_model * 2
            # Two windows: one is being read while the other is used.
            plan = plan_windows(cache.n_tokens, batch, max(0, room) // (4 * cache.d_model))
            return _ahead(lambda: _windowed(cache, plan, batch, seed, epoch, steps, threads))
        case "images":
            return _ahead(lambda: _images(cache, batch, seed, epoch, steps))
        case "sequential":
            return _ahead(lambda: _sequential(cache, batch, steps))
        case _:
            raise ConfigError(f"order {order!r} is none of tokens, images, sequential")


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
        windows = _Windows(cache, plan, seed, epoch, reader)
        buffers = Buffers(batch, cache.d_model, _BATCHES_HELD)
        for step in steps:
            start, stop = step * batch, min((step + 1) * batch, plan.n_tokens)
            out = buffers.take(stop - start)
            while start < stop:
                first, tokens, slots = windows.at(start)
                end = min(stop, first + len(tokens))
                target = out[start - step * batch : end - step * batch]
                _take(pool, threads, tokens, slots[start - first : end - first], target)
                start = end
            yield out


class _Windows:
    """The window in use and the next one, read in the background into two buffers that swap."""

    def __init__(
        self,
        cache: TokenCache,
        plan: WindowPlan,
        seed: int,
        epoch: int,
        reader: ThreadPoolExecutor,
    ) -> None:
        self._cache, self._plan, self._seed, self._epoch = cache, plan, seed, epoch
        self._reader = reader
        largest = max(stop - start for start, stop in map(plan.bounds, range(plan.n_windows)))
        self._buffers = [np.empty((largest, cache.d_model), np.float16) for _ in range(2)]
        self._number = -1
        self._current: tuple[int, Batch, NDArray[np.int64]] | None = None
        self._next: Future[tuple[int, Batch, NDArray[np.int64]]] | None = None

    def at(self, position: int) -> tuple[int, Batch, NDArray[np.int64]]:
        """Return the window of a position: its first position, its tokens, and their order."""
        if self._current is not None and position < self._plan.bounds(self._number)[1]:
            return self._current
        number = self._number + 1
        if self._current is None:
            while position >= self._plan.bounds(number)[1]:
                number += 1
        ahead, self._next = self._next, None
        self._current = ahead.result() if ahead is not None else self._read(number)
        self._number = number
        if number + 1 < self._plan.n_windows:
            self._next = self._reader.submit(self._read, number + 1)
        return self._current

    def _read(self, number: int) -> tuple[int, Batch, NDArray[np.int64]]:
        indices = self._plan.window_tokens(number, self._seed, self._epoch)
        buffer = self._buffers[number % 2][: len(indices)]
        self._cache.gather_sorted(indices, buffer)
        order = EpochOrder(len(indices), self._seed, self._epoch, f"window {number}")
        return self._plan.bounds(number)[0], buffer, order.between(0, order.n)


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
    """Copy `tokens[indices]` to `out`, a share a thread; NumPy lets others run meanwhile."""

    def copy(start: int, stop: int) -> None:
        # "clip" because "raise" would copy through a buffer; nothing is out of bounds.
        np.take(tokens, indices[start:stop], axis=0, out=out[start:stop], mode="clip")

    borders = np.linspace(0, len(indices), threads + 1).astype(int).tolist()
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

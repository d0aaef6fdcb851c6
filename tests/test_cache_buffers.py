"""Buffers are used again only when nobody holds them."""

import numpy as np
import torch

from cache.buffers import Buffers


def address(array: np.ndarray) -> int:
    return int(array.ctypes.data)


def test_a_batch_that_was_dropped_gives_its_memory_to_the_next() -> None:
    buffers = Buffers(10, 4, n_kept=2)
    first = buffers.take(10)
    place = address(first)

    del first
    second = buffers.take(7)

    assert address(second) == place
    assert second.shape == (7, 4)
    assert second.dtype == np.float16


def test_a_batch_that_is_kept_stays_as_it_is() -> None:
    buffers = Buffers(10, 4, n_kept=2)
    kept = []
    for step in range(5):
        batch = buffers.take(10)
        batch[:] = step
        kept.append(batch)

    assert len({address(batch) for batch in kept}) == 5
    assert [batch[0, 0] for batch in kept] == [0, 1, 2, 3, 4]


def test_views_of_a_batch_keep_it_too() -> None:
    for view_of in (
        lambda batch: batch[3:5, 1:],
        lambda batch: batch.reshape(-1)[5:],
        lambda batch: batch.view(np.uint16).T,
        lambda batch: torch.from_numpy(batch)[2:].view(-1),
        lambda batch: memoryview(batch),
    ):
        buffers = Buffers(10, 4, n_kept=2)
        batch = buffers.take(9)
        batch[:] = 1
        view = view_of(batch)
        del batch

        buffers.take(9)[:] = 2

        assert np.asarray(view).view(np.float16).min() == 1

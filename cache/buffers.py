"""Memory for batches that is used again as soon as nobody holds the batch any more."""

import weakref
from collections import deque

import numpy as np
from numpy.typing import NDArray


class Buffers:
    """Arrays `(n, dim)` float16 for one thread to fill and others to keep as long as they like.

    Asking the system for fresh memory each step costs as much as filling it: the pages have to be
    made first. Each batch is a view of a root array of its own, and so is every view of the batch,
    NumPy's or PyTorch's. When the last of them is gone the root is finalised, which returns its
    memory; so a caller who keeps a batch keeps it unchanged, and the next one gets new memory.
    Counting references would not do: what a count means differs between versions of Python.
    """

    def __init__(self, max_rows: int, dim: int, n_kept: int) -> None:
        self._shape = (max_rows, dim)
        # Appending and popping are atomic: batches may be dropped in any thread, at any moment.
        self._free: deque[NDArray[np.float16]] = deque(maxlen=n_kept)

    def take(self, n_rows: int) -> NDArray[np.float16]:
        """Give `n_rows`, at most `max_rows`, that nobody else holds; with old values in it."""
        try:
            memory = self._free.pop()
        except IndexError:
            memory = np.empty(self._shape, np.float16)
        # Through a memoryview, or NumPy would base the views of `root` on `memory` itself.
        root = np.asarray(memory.data)
        weakref.finalize(root, self._free.append, memory).atexit = False
        return root[:n_rows]

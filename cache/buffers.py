"""Memory for batches that is used again as soon as nobody holds the batch any more."""

import sys

import numpy as np
from numpy.typing import NDArray

# The list of buffers, the loop's variable and getrefcount's own argument.
_REFERENCES_OF_A_FREE_ONE = 3


class Buffers:
    """Arrays `(n, dim)` float16 for one thread to fill and others to keep as long as they like.

    Asking the system for fresh memory each step costs as much as filling it: the pages have to be
    made first. Whether a batch is still held is read off the reference count of the array that
    owns its memory, which every view of it raises, NumPy's or PyTorch's; so a caller who keeps a
    batch keeps it unchanged, and the next one gets new memory.
    """

    def __init__(self, max_rows: int, dim: int, n_kept: int) -> None:
        self._shape = (max_rows, dim)
        self._n_kept = n_kept
        self._owners: list[NDArray[np.float16]] = []

    def take(self, n_rows: int) -> NDArray[np.float16]:
        """Give `n_rows`, at most `max_rows`, that nobody else holds; with old values in it."""
        for owner in self._owners:
            if sys.getrefcount(owner) == _REFERENCES_OF_A_FREE_ONE:
                return owner[:n_rows]
        fresh = np.empty(self._shape, np.float16)
        if len(self._owners) < self._n_kept:
            self._owners.append(fresh)
        return fresh[:n_rows]

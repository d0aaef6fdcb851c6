"""The windows of a shuffled epoch that is larger than memory: which tokens, and fetched in time."""

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from cache.order import EpochOrder, WindowPlan
from cache.reader import TokenCache


class Windows:
    """The tokens of the window in use, and the next one, which is fetched in the background."""

    def __init__(
        self,
        cache: TokenCache | None,
        plan: WindowPlan,
        seed: int,
        epoch: int,
        reader: ThreadPoolExecutor,
    ) -> None:
        """Open an epoch; without a cache, of which nothing is then fetched, its order alone."""
        self._cache, self._plan, self._seed, self._epoch = cache, plan, seed, epoch
        self._reader = reader
        self._number = -1
        self._tokens: NDArray[np.int64]
        self._next: Future[NDArray[np.int64]] | None = None

    def between(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return the tokens at positions start to stop - 1 of the epoch, ascending."""
        parts = []
        while start < stop:
            first, end = self._open(start)
            end = min(end, stop)
            parts.append(self._tokens[start - first : end - first])
            start = end
        return np.sort(np.concatenate(parts))

    def _open(self, position: int) -> tuple[int, int]:
        """Make the window of a position the current one, and give its bounds."""
        number = max(self._number, 0)
        while position >= self._plan.bounds(number)[1]:
            number += 1
        if number != self._number:
            ahead, self._next = self._next, None
            self._tokens = ahead.result() if ahead is not None else self._fetch(number)
            self._number = number
            if number + 1 < self._plan.n_windows:
                self._next = self._reader.submit(self._fetch, number + 1)
        return self._plan.bounds(number)

    def _fetch(self, number: int) -> NDArray[np.int64]:
        """Verify a window's tokens, bring them from the disk, and give them in their order."""
        tokens = self._plan.window_tokens(number, self._seed, self._epoch)
        if self._cache is not None:
            self._cache.touch_sorted(tokens)
        order = EpochOrder(len(tokens), self._seed, self._epoch, f"window {number}")
        return tokens[order.between(0, order.n)]

"""Orders in which tokens and images are visited: pure functions of (seed, epoch, step).

A permutation is computed, not stored: a Feistel network on the index (Black and Rogaway 2002,
"Ciphers with arbitrary finite domains", the generalised network with cycle walking). So any step
can be reached without those before it, whatever the number of readers. Rounds are integer
arithmetic of our own, because NumPy does not promise its random streams between versions.
"""

import hashlib
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spg_core.errors import ConfigError

_ROUNDS = 6
_MULTIPLIERS = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9))
_HALF = np.uint64(32)

MAX_VIF = 1.2
"""Bound on the variance of batch means against iid batches that `plan_windows` keeps.

It is reached only if neighbouring tokens are equal. Longer segments were no faster from warm files
(`benchmarks/reading.py`: 0.29 s an epoch with a bound of 2.0, 0.30 s with this one), and on a cold
disk the segments are long where it matters, since they grow with the memory allowed: 16 GB give
runs of 130 kB.
"""


def n_steps(n_items: int, batch: int) -> int:
    """Return the steps of an epoch; the last batch may be short. Raises: ConfigError."""
    if batch < 1:
        raise ConfigError(f"a batch needs at least one item, got {batch}")
    return -(-n_items // batch)


def permute(
    positions: NDArray[np.int64], n: int, seed: int, epoch: int, label: str
) -> NDArray[np.int64]:
    """Return where a permutation of 0..n-1 sends each position.

    Args:
        positions: any shape, each in 0..n-1.
        n: size of the permutation.
        seed, epoch, label: what selects it; `label` keeps uses of one seed apart.

    Raises:
        ConfigError: `n` is 0 or beyond 2**62.
    """
    if not 1 <= n <= 2**62:
        raise ConfigError(f"a permutation has 1 to 2**62 items, got {n}")
    keys = _round_keys(seed, epoch, label)
    left_size = math.isqrt(n - 1) + 1
    right_size = -(-n // left_size)
    flat = np.asarray(positions, np.int64).reshape(-1).astype(np.uint64)
    result = _feistel(flat, left_size, right_size, keys)
    # The network permutes left_size * right_size >= n numbers; those past the end go round again.
    outside = np.flatnonzero(result >= n)
    while len(outside):
        result[outside] = _feistel(result[outside], left_size, right_size, keys)
        outside = outside[result[outside] >= n]
    return result.astype(np.int64).reshape(np.shape(positions))


@dataclass(frozen=True)
class EpochOrder:
    """The order in which an epoch visits n items, cut into steps; nothing is stored.

    `seed`, `epoch` and `label` select the permutation, as in `permute`. A step is `batch` items,
    fewer in the last one.
    """

    n: int
    seed: int
    epoch: int
    label: str
    batch: int = 1

    @property
    def n_steps(self) -> int:
        """Steps of the epoch. Raises: ConfigError."""
        return n_steps(self.n, self.batch)

    def step(self, i: int) -> NDArray[np.int64]:
        """Return the items of step i, `(batch,)` or fewer."""
        return self.between(i * self.batch, min((i + 1) * self.batch, self.n))

    def between(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return the items at positions start to stop - 1 of the epoch."""
        return permute(np.arange(start, stop), self.n, self.seed, self.epoch, self.label)


@dataclass(frozen=True)
class WindowPlan:
    """How to shuffle more tokens than fit in memory.

    All whole segments (runs of neighbouring tokens) are permuted and cut into windows; a window is
    read into memory and its tokens are permuted again. With batches of b tokens and windows of w,
    a token meets (L - 1) b / w others of its own segment of L in its batch, so the variance of a
    batch's mean is at most 1 + (L - 1) b / w times that of an iid batch, which it would be if all
    tokens of a segment were equal.
    """

    n_tokens: int
    segment_tokens: int
    n_windows: int

    @property
    def n_segments(self) -> int:
        """Whole segments; the tokens left over join the last window."""
        return self.n_tokens // self.segment_tokens

    def bounds(self, window: int) -> tuple[int, int]:
        """Return the first and one past the last token position of a window in the epoch."""
        stop = self.n_tokens
        if window + 1 < self.n_windows:
            stop = self._first_segment(window + 1) * self.segment_tokens
        return self._first_segment(window) * self.segment_tokens, stop

    def window_tokens(self, window: int, seed: int, epoch: int) -> NDArray[np.int64]:
        """Return a window's token indices, ascending, the order in which they are read."""
        order = EpochOrder(self.n_segments, seed, epoch, "segments")
        first, stop = self._first_segment(window), self._first_segment(window + 1)
        segments = np.sort(order.between(first, stop))
        inside = np.arange(self.segment_tokens)
        tokens = (segments[:, None] * self.segment_tokens + inside).reshape(-1)
        if window + 1 == self.n_windows:
            rest = np.arange(self.n_segments * self.segment_tokens, self.n_tokens)
            tokens = np.concatenate([tokens, rest])
        return tokens

    def _first_segment(self, window: int) -> int:
        return window * self.n_segments // self.n_windows


def plan_windows(n_tokens: int, batch: int, max_window_tokens: int) -> WindowPlan:
    """Return the plan with the longest segments that keep `MAX_VIF`.

    Raises:
        ConfigError: a window would not even hold one batch.
    """
    if max_window_tokens < batch:
        raise ConfigError(
            f"memory for {max_window_tokens} tokens does not hold a batch of {batch}; allow more "
            "memory or make the batch smaller"
        )
    # Windows are of equal size up to a segment, so the smallest is more than half the largest.
    n_windows = -(-n_tokens // max_window_tokens)
    window = n_tokens // n_windows
    segment = min(1 + int((MAX_VIF - 1) * window / batch), window)
    # Rounding to whole segments may make a window larger than allowed by one segment.
    while n_windows * (max_window_tokens - 2 * segment) < n_tokens and segment > 1:
        n_windows += 1
        segment = min(1 + int((MAX_VIF - 1) * (n_tokens // n_windows) / batch), segment)
    return WindowPlan(n_tokens, segment, n_windows)


def _round_keys(seed: int, epoch: int, label: str) -> NDArray[np.uint64]:
    text = f"{seed}:{epoch}:{label}".encode()
    return np.frombuffer(hashlib.sha512(text).digest(), "<u8")[:_ROUNDS].astype(np.uint64)


def _feistel(
    values: NDArray[np.uint64], left_size: int, right_size: int, keys: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    left, right = np.divmod(values, np.uint64(right_size))
    for number, key in enumerate(keys):
        if number % 2 == 0:
            left = _add(left, right, np.uint64(left_size), key)
        else:
            right = _add(right, left, np.uint64(right_size), key)
    return left * np.uint64(right_size) + right


def _add(
    value: NDArray[np.uint64], other: NDArray[np.uint64], size: np.uint64, key: np.uint64
) -> NDArray[np.uint64]:
    """Return (value + hash of other) modulo size; products wrap modulo 2**64 on purpose."""
    mixed = other ^ key
    mixed *= _MULTIPLIERS[0]
    mixed ^= mixed >> _HALF
    mixed *= _MULTIPLIERS[1]
    # The high 32 bits times size, over 2**32: uniform below size and far cheaper than a division.
    mixed >>= _HALF
    mixed *= size
    mixed >>= _HALF
    mixed += value
    # Where it is below size, the difference wraps to something huge.
    np.minimum(mixed, mixed - size, out=mixed)
    return mixed

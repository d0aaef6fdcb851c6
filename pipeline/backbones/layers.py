"""Which blocks of a backbone are meant: `11`, `-1` from the end, `every:6`, `last:4`, or a list."""

from collections.abc import Sequence

from spg_core.errors import ConfigError

Block = int | str
"""A block's index from 0, from the end where negative; `every:N` or `last:N`."""
Layers = Block | Sequence[Block] | None
"""What may be asked for; None is the last block."""


def choose_layers(asked: Layers, depth: int, name: str) -> tuple[int, ...]:
    """Give the blocks that are meant, from 0, each once, in the order in which they are named.

    `every:6` counts from the last block back, so that of 24 it means 5, 11, 17 and 23.

    Raises:
        ConfigError: the model has no such block.
    """
    if asked is None:
        return (depth - 1,)
    words = [asked] if isinstance(asked, int | str) else list(asked)
    chosen = [index for word in words for index in _indices(word, depth, name)]
    return tuple(dict.fromkeys(chosen))


def _indices(word: Block, depth: int, name: str) -> list[int]:
    kind, _, number = str(word).rpartition(":")
    try:
        n = int(number)
    except ValueError:
        n, kind = 0, "neither"
    match kind:
        case "" if -depth <= n < depth:
            return [n % depth]
        case "every" if 1 <= n <= depth:
            return list(range(depth - 1, -1, -n))[::-1]
        case "last" if 1 <= n <= depth:
            return list(range(depth - n, depth))
    raise ConfigError(
        f"--layer {word}: {name} has {depth} blocks, counted from 0; use 0 to {depth - 1}, -1 for "
        f"the last, every:N or last:N with N of 1 to {depth}"
    )

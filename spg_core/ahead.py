"""Work done by threads a little ahead of who takes it, and no further."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Found = TypeVar("Found")


def in_order(
    pool: ThreadPoolExecutor,
    function: Callable[[Item], Found],
    items: Iterable[Item],
    at_once: int,
) -> Generator[Found, None, None]:
    """Yield `function(item)` for each item, in order, `at_once` of them under way or waiting.

    `pool.map` begins with all of them: a future is a kilobyte, so ten million items are 10 GB.
    """
    coming = iter(items)
    under_way: deque[Future[Found]] = deque()
    try:
        for item in islice(coming, at_once):
            under_way.append(pool.submit(function, item))
        while under_way:
            found = under_way.popleft().result()
            for item in islice(coming, 1):
                under_way.append(pool.submit(function, item))
            yield found
    finally:
        for future in under_way:
            future.cancel()

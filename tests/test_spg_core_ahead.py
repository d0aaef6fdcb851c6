"""Work ahead keeps the order, stays bounded, and ends when nobody takes it."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from spg_core.ahead import in_order


@pytest.mark.parametrize("n", [0, 1, 3, 100])
def test_results_come_in_the_order_of_the_items(n: int) -> None:
    with ThreadPoolExecutor(4) as pool:
        assert list(in_order(pool, lambda item: item * item, range(n), 3)) == [
            item * item for item in range(n)
        ]


def test_no_more_items_are_taken_than_may_be_under_way() -> None:
    taken = []

    def items():
        for item in range(1000):
            taken.append(item)
            yield item

    with ThreadPoolExecutor(2) as pool:
        found = in_order(pool, str, items(), 5)
        assert [next(found) for _ in range(10)] == [str(item) for item in range(10)]
        assert len(taken) == 15
        found.close()


def test_an_error_arrives_in_its_turn_and_drops_the_rest() -> None:
    begun = []
    release = threading.Event()

    def work(item: int) -> int:
        begun.append(item)
        if item == 1:
            raise ValueError("the second")
        if item > 1:
            release.wait(5)
        return item

    with ThreadPoolExecutor(1) as pool:
        found = in_order(pool, work, range(100), 50)
        assert next(found) == 0
        with pytest.raises(ValueError, match="the second"):
            next(found)
        release.set()
    assert len(begun) <= 4

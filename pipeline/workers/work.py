"""How the functions of a job are run: one protocol, and this process, at once or in threads.

`pipeline.workers.open` opens a job here or elsewhere; `pipeline.workers.cluster` is Dask's side of
the protocol.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Generic, Protocol, Self, TypeVar, TypeVarTuple, cast

Opened = TypeVar("Opened")
Told = TypeVar("Told")
Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")


class Workers(Protocol[Opened]):
    """Who runs functions of an opened job.

    To the types a handle is the result it stands for, since both may be an argument; only `results`
    and `gather` make it so.
    """

    addresses: Sequence[str]
    in_flight: int
    """How many pieces of work should be under way at a time; 0 where each is done at once."""
    opened: Opened | None
    """What this process opened; None where others did."""

    def submit(
        self,
        function: Callable[[Opened, *Arguments], Result],
        *arguments: *Arguments,
        then: Callable[[], None] | None = None,
    ) -> Result:
        """Have `function(opened, *arguments)` run; give a handle, which may be an argument too.

        `then` is called, in any thread, when it ended.
        """
        ...

    def ask_all(self, function: Callable[[Opened], Result]) -> dict[str, Result]:
        """Give what `function(opened)` says in every worker, by its address.

        Asked before any work starts, so that what a worker lacks is told at once.

        Raises: ClusterError naming each worker that cannot do this job, and why.
        """
        ...

    def results(self, handles: Iterable[Result]) -> Iterator[Result]:
        """Yield what came of the handles, in the order in which it is ready.

        A few are taken at a time, so a generator that submits keeps only those under way.

        Raises: whatever a function raised; ClusterError where workers keep dying.
        """
        ...

    def gather(self, handles: Sequence[Result]) -> list[Result]:
        """Give what came of the handles, in their order. Raises: as `results`."""
        ...


class Here(Generic[Opened]):
    """This process: submitting is running."""

    addresses: Sequence[str] = ("here",)
    in_flight = 0

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self.opened: Opened | None = opened

    def ask_all(self, function: Callable[[Opened], Result]) -> dict[str, Result]:
        """Ask this process."""
        return {"here": function(self._opened)}

    def submit(
        self,
        function: Callable[[Opened, *Arguments], Result],
        *arguments: *Arguments,
        then: Callable[[], None] | None = None,
    ) -> Result:
        """Run the function; the handle is its result."""
        result = function(self._opened, *arguments)
        if then is not None:
            then()
        return result

    def results(self, handles: Iterable[Result]) -> Iterator[Result]:
        """Yield the results."""
        yield from handles

    def gather(self, handles: Sequence[Result]) -> list[Result]:
        """Give the results."""
        return list(handles)


class Threads(Here[Opened]):
    """This process with pieces of work side by side: one is read while another is computed.

    A handle is a future, and no argument. What the functions share must bear several threads.
    """

    def __init__(self, opened: Opened, at_once: int) -> None:
        super().__init__(opened)
        self.in_flight = at_once
        self._pool = ThreadPoolExecutor(at_once)

    def submit(
        self,
        function: Callable[[Opened, *Arguments], Result],
        *arguments: *Arguments,
        then: Callable[[], None] | None = None,
    ) -> Result:
        """Have a thread run the function."""
        future = self._pool.submit(function, self._opened, *arguments)
        if then is not None:
            future.add_done_callback(lambda _: then())
        return cast(Result, future)

    def results(self, handles: Iterable[Result]) -> Iterator[Result]:
        """Yield results as threads finish them."""
        futures = cast("Iterable[Future[Result]]", handles)
        for future in as_ready(futures, self.in_flight, lambda ready: ready.get()):
            yield future.result()

    def gather(self, handles: Sequence[Result]) -> list[Result]:
        """Wait for each in turn."""
        return [future.result() for future in cast("Sequence[Future[Result]]", handles)]

    def close(self) -> None:
        """Drop what has not begun, wait for what has."""
        self._pool.shutdown(cancel_futures=True)


class Ending(Protocol):
    """A future, of a thread or of Dask."""

    def add_done_callback(self, fn: Callable[[Self], object], /) -> object:
        """Have `fn` called with this future when it ended."""
        ...


Ended = TypeVar("Ended", bound=Ending)


def as_ready(
    futures: Iterable[Ended], at_once: int, first_of: "Callable[[SimpleQueue[Ended]], Ended]"
) -> Iterator[Ended]:
    """Yield futures as they end, `at_once` of them under way; `first_of` waits for the next."""
    ready: SimpleQueue[Ended] = SimpleQueue()
    under_way: dict[int, Ended] = {}  # Dask forgets the work of a future nobody holds
    coming = iter(futures)
    while True:
        while len(under_way) < at_once and (future := next(coming, None)) is not None:
            under_way[id(future)] = future
            future.add_done_callback(ready.put)
        if not under_way:
            return
        done = first_of(ready)
        del under_way[id(done)]
        yield done

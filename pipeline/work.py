"""Where the work of a job is done: in this process, in N processes here, or by a Dask cluster.

    with open_workers(store, cluster, open_job, job) as workers:
        handles = (workers.submit(function, argument) for argument in arguments)
        for result in workers.results(handles):
            ...

runs `function(opened, argument)` here and there alike. A job is plain data that travels;
`open_job(store, job)` turns it into what the functions need (a model, an open cache), once in every
process. Dask gives a dead worker's tasks to the others, so a function must not mind being run
twice.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from queue import SimpleQueue
from typing import Generic, Protocol, Self, TypeVar, TypeVarTuple, cast

from cache.objects import Objects
from pipeline.configs import ClusterConfig

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


class Closes(Protocol):
    """What ends early."""

    def close(self) -> None:
        """End."""
        ...


@contextmanager
def open_workers(
    store: Objects,
    cluster: ClusterConfig,
    open_job: Callable[[Objects, Told], Opened],
    job: Told,
    *,
    here: Callable[[], Opened] | None = None,
    at_once: int = 0,
) -> Iterator[Workers[Opened]]:
    """Open a job where the cluster says; nothing of it is run yet.

    Args:
        store: what the job reads and writes; workers open it anew and prove that it is the same.
        cluster: where.
        open_job: a function of a module, run once in each process.
        job: what it is given: plain data.
        here: gives the same in this process, where it is open already.
        at_once: pieces of work that one process may have under way; what `open_job` gives then
            has a `close`, which ends them early. 0 does each when it is submitted.

    Raises: ConfigError, ClusterError, and what `open_job` raises.
    """
    if not cluster.is_here:
        # distributed takes half a second to import
        from pipeline.cluster import open_dask_workers

        with open_dask_workers(store, cluster, open_job, job, max(1, at_once)) as workers:
            yield workers
        return
    opened = open_job(store, job) if here is None else here()
    if not at_once:
        yield Here(opened)
        return
    with closing(Threads(opened, at_once)) as threads, closing(cast(Closes, opened)):
        yield threads


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

"""Dask workers: functions of a job in processes of this machine, or of a scheduler's machines.

No wait here lasts for ever: while one waits for workers, it is looked whether any are left.
"""

import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from time import monotonic, sleep
from typing import TYPE_CHECKING, Generic, TypedDict, cast

from cache.objects import Objects
from pipeline.configs import ClusterConfig
from pipeline.machine.device import Place
from pipeline.terminal.stopping import stop_job
from pipeline.workers.client import open_client, torch_threads
from pipeline.workers.ticket import store_ticket
from pipeline.workers.work import Arguments, Opened, Result, Told, as_ready
from pipeline.workers.worker import Job, gpus_seen, run
from spg_core.errors import ClusterError, SpgError

if TYPE_CHECKING:
    from distributed import Client, Future

_LOOK_SECONDS = 5.0
"""How often it is looked whether the workers one waits for are alive."""
_ALONE_SECONDS = 60.0
"""How long there may be no worker at all: a killed one is started again within seconds."""

_LEAVING_SECONDS = 8.0
"""How long workers may take to leave what they do: systems kill what lives 10 s after SIGTERM."""
_LEAVING_LOOK_SECONDS = 0.1


class KnownWorker(TypedDict):
    """What is used of all that a scheduler knows of a worker."""

    nthreads: int
    host: str


class DaskWorkers(Generic[Opened]):
    """The workers of a Dask scheduler."""

    def __init__(self, client: "Client", job: "Job[Told, Opened]") -> None:
        self.opened: Opened | None = None
        self._address = getattr(client.scheduler, "address", "?")
        self._client, self._job = client, job
        known = self._known()
        self.addresses: Sequence[str] = sorted(known)
        self.in_flight = len(self.addresses) + 1
        self._queue_length = 2 * sum(one["nthreads"] for one in known.values())
        self._alone_since: float | None = None

    def submit(
        self,
        function: Callable[[Opened, *Arguments], Result],
        *arguments: *Arguments,
        then: Callable[[], None] | None = None,
    ) -> Result:
        """Send the function to a worker; the handle is a Dask future."""
        future = self._client.submit(run, self._job, function, *arguments, pure=False)
        if then is not None:
            future.add_done_callback(lambda _: then())
        return cast(Result, future)

    def results(self, handles: Iterable[Result]) -> Iterator[Result]:
        """Yield results as workers finish them."""
        futures = cast("Iterable[Future[Result]]", handles)
        for future in as_ready(futures, self._queue_length, self._first):
            yield self._result(future)

    def gather(self, handles: Sequence[Result]) -> list[Result]:
        """Wait for each in turn."""
        return [self._result(future) for future in cast("Sequence[Future[Result]]", handles)]

    def ask_all(self, function: Callable[[Opened], Result]) -> dict[str, Result]:
        """Ask every worker, and tell the problems of all of them at once."""
        futures = {
            address: self._client.submit(run, self._job, function, workers=[address], pure=False)
            for address in self.addresses
        }
        for address, future in futures.items():
            self._wait(future, address)
        errors = {address: future.exception() for address, future in futures.items()}
        problems = [_problem(address, error) for address, error in errors.items() if error]
        if problems:
            raise ClusterError(
                f"{len(problems)} of {len(futures)} workers cannot do this, so nothing was "
                f"started: {'; '.join(problems)}"
            )
        return {address: future.result() for address, future in futures.items()}

    def _result(self, future: "Future[Result]") -> Result:
        from distributed import KilledWorker

        self._wait(future)
        try:
            return future.result()
        except KilledWorker as error:
            raise ClusterError(
                f"several workers died one after the other doing the same piece of work ({error});"
                f" {_TOO_LITTLE_MEMORY}"
            ) from error
        except CancelledError as error:
            raise self._gone() from error

    def _first(self, ready: "SimpleQueue[Future[Result]]") -> "Future[Result]":
        while True:
            try:
                return ready.get(timeout=_LOOK_SECONDS)
            except Empty:
                self._check()

    def _wait(self, future: "Future[Result]", address: str | None = None) -> None:
        """Wait until a future ended, of any worker or of the one that alone may run it."""
        ended: SimpleQueue[object] = SimpleQueue()
        future.add_done_callback(ended.put)
        while True:
            try:
                ended.get(timeout=_LOOK_SECONDS)
                return
            except Empty:
                self._check(address)

    def _check(self, address: str | None = None) -> None:
        """Raises: ClusterError where nobody is left to do what is waited for."""
        known = self._known()
        if address is not None and address not in known:
            raise ClusterError(f"worker {address} died before it began; {_TOO_LITTLE_MEMORY}")
        if known:
            self._alone_since = None
            return
        self._alone_since = self._alone_since or monotonic()
        if monotonic() - self._alone_since >= _ALONE_SECONDS:
            raise ClusterError(
                f"the scheduler at {self._address} has had no worker for "
                f"{_ALONE_SECONDS:.0f} s; what was written is kept, start workers and run again"
            )

    def _known(self) -> "dict[str, KnownWorker]":
        """Give what the scheduler knows of each worker, by address."""
        try:
            return dict(self._client.scheduler_info(n_workers=-1)["workers"])
        except (OSError, RuntimeError, TimeoutError) as error:
            raise self._gone() from error

    def _gone(self) -> ClusterError:
        return ClusterError(
            f"the scheduler at {self._address} went away; what was written is "
            "kept, run again to go on"
        )


_TOO_LITTLE_MEMORY = "the usual cause is too little memory for each: use fewer workers"


def _problem(address: str, error: BaseException) -> str:
    """Say what a worker lacks; an error that no user can cause is raised as it is."""
    from distributed import KilledWorker

    match error:
        case SpgError():
            return f"worker {address}: {error}"
        case KilledWorker():
            return f"worker {address} died as it began; {_TOO_LITTLE_MEMORY}"
        case ImportError():
            return f"worker {address} lacks this program or a library: {error}"
        case _:
            raise error


@contextmanager
def open_dask_workers(
    store: Objects,
    cluster: ClusterConfig,
    open_job: Callable[[Objects, Told], Opened],
    job: Told,
    threads: int,
) -> Iterator[DaskWorkers[Opened]]:
    """Open a cluster for one job, as `pipeline.workers.work.open_workers`.

    `threads` pieces of work are under way in each process that is started here.
    """
    with store_ticket(store) as ticket, open_client(cluster, threads) as client:
        known = client.scheduler_info(n_workers=-1)["workers"]
        seen: dict[str, str] = {}
        with suppress(OSError, RuntimeError, TimeoutError):  # what ails the workers is told later
            seen = client.run(gpus_seen, on_error="ignore")
        places = _places(known, seen)
        name = secrets.token_hex(8)
        told = Job(name, ticket, open_job, job, torch_threads(cluster), places)
        try:
            yield DaskWorkers(client, told)
        except KeyboardInterrupt:
            _stop(client, name)
            raise


def _stop(client: "Client", job: str) -> None:
    """Have workers leave a job in order, with a checkpoint where there is one, within seconds."""
    until = monotonic() + _LEAVING_SECONDS
    with suppress(OSError, RuntimeError, TimeoutError):
        client.run(stop_job, job, on_error="ignore")
        while any(client.processing().values()) and monotonic() < until:
            sleep(_LEAVING_LOOK_SECONDS)


def _places(known: Mapping[str, KnownWorker], seen: Mapping[str, str]) -> dict[str, Place]:
    """Number the workers of each machine; those that were given other GPUs share none with them."""
    groups = {one: (known[one]["host"], seen.get(one, "")) for one in sorted(known)}
    n_workers = Counter(groups.values())
    numbers: Counter[tuple[str, str]] = Counter()
    places: dict[str, Place] = {}
    for address, group in groups.items():
        places[address] = Place(numbers[group], n_workers[group])
        numbers[group] += 1
    return places

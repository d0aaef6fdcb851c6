"""Where work is done: in this process, in N processes of this machine, or by a Dask cluster.

    with open_workers(cluster, open_job, job) as workers:      # or workers = Here(opened)
        handles = [workers.submit(function, argument) for argument in arguments]
        results = list(workers.results(handles))

runs `function(opened, argument)` here and there alike. A job is plain data that travels; `open_job`
turns it into what the functions need (a model, an open cache), once in every worker process. Dask
gives a dead worker's tasks to the others, so a function must not mind being run twice.
"""

import secrets
import signal
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from logging import CRITICAL
from threading import Lock, current_thread, main_thread
from typing import Any, Protocol

from pipeline.configs import ClusterConfig
from spg_core.errors import ClusterError, ConfigError, SpgError

_JOBS_KEPT = 2
"""Jobs that stay open in a worker process: two people's may alternate on one scheduler."""
_CONNECT_SECONDS = 10
_WORKERS_SECONDS = 30


class Workers(Protocol):
    """Who runs functions of an opened job."""

    addresses: Sequence[str]
    in_flight: int
    """How many pieces of work should be under way at a time; 0 where each is done at once."""

    def submit(
        self, function: Callable[..., Any], *arguments: Any, then: Callable[[], None] | None = None
    ) -> Any:
        """Have `function(opened, *arguments)` run; give a handle, which may be an argument too.

        `then` is called, in any thread, when it ended.
        """
        ...

    def ask_all(self, function: Callable[[Any], Any]) -> dict[str, Any]:
        """Give what `function(opened)` says in every worker, by its address.

        Asked before any work starts, so that what a worker lacks is told at once.

        Raises: ClusterError naming each worker that cannot do this job, and why.
        """
        ...

    def results(self, handles: Sequence[Any]) -> Iterator[Any]:
        """Yield what came of the handles, in the order in which it is ready.

        Raises: whatever a function raised; ClusterError where workers keep dying.
        """
        ...

    def gather(self, handles: Sequence[Any]) -> list[Any]:
        """Give what came of the handles, in their order. Raises: as `results`."""
        ...


class Here:
    """This process: submitting is running."""

    addresses: Sequence[str] = ("here",)
    in_flight = 0

    def __init__(self, opened: Any) -> None:
        self._opened = opened

    def ask_all(self, function: Callable[[Any], Any]) -> dict[str, Any]:
        """Ask this process."""
        return {"here": function(self._opened)}

    def submit(
        self, function: Callable[..., Any], *arguments: Any, then: Callable[[], None] | None = None
    ) -> Any:
        """Run the function; the handle is its result."""
        result = function(self._opened, *arguments)
        if then is not None:
            then()
        return result

    def results(self, handles: Sequence[Any]) -> Iterator[Any]:
        """Yield the results."""
        yield from handles

    def gather(self, handles: Sequence[Any]) -> list[Any]:
        """Give the results."""
        return list(handles)


@dataclass(frozen=True)
class Job:
    """What a worker process must know before it can run functions."""

    name: str
    """Unique to a run: a later run opens everything anew, files may have changed."""
    open_job: Callable[[Any], Any]
    job: Any
    torch_threads: int | None
    """Threads of a worker's maths; None leaves the worker as it was started."""


class DaskWorkers:
    """The workers of a Dask scheduler."""

    def __init__(self, client: Any, job: Job) -> None:
        self._client, self._job = client, job
        self.addresses: Sequence[str] = sorted(client.scheduler_info(n_workers=-1)["workers"])
        self.in_flight = len(self.addresses) + 1

    def submit(
        self, function: Callable[..., Any], *arguments: Any, then: Callable[[], None] | None = None
    ) -> Any:
        """Send the function to a worker; the handle is a Dask future."""
        future = self._client.submit(_run, self._job, function, *arguments, pure=False)
        if then is not None:
            future.add_done_callback(lambda _: then())
        return future

    def results(self, handles: Sequence[Any]) -> Iterator[Any]:
        """Yield results as workers finish them."""
        from distributed import as_completed

        for future in as_completed(handles):  # type: ignore[no-untyped-call]
            yield self._result(future)

    def gather(self, handles: Sequence[Any]) -> list[Any]:
        """Wait for each in turn."""
        return [self._result(future) for future in handles]

    def _result(self, future: Any) -> Any:
        from distributed import KilledWorker

        try:
            return future.result()
        except KilledWorker as error:
            raise ClusterError(
                f"several workers died one after the other doing the same piece of work ({error});"
                " the usual cause is too little memory for each: use fewer workers"
            ) from error
        except CancelledError as error:
            raise ClusterError(
                f"the scheduler at {self._client.scheduler.address} went away; what was written "
                "is kept, run again to go on"
            ) from error

    def ask_all(self, function: Callable[[Any], Any]) -> dict[str, Any]:
        """Ask every worker, and tell the problems of all of them at once."""
        futures = {
            address: self._client.submit(_run, self._job, function, workers=[address], pure=False)
            for address in self.addresses
        }
        errors = {address: future.exception() for address, future in futures.items()}
        problems = [_problem(address, error) for address, error in errors.items() if error]
        if problems:
            raise ClusterError(
                f"{len(problems)} of {len(futures)} workers cannot do this, so nothing was "
                f"started: {'; '.join(problems)}"
            )
        return {address: future.result() for address, future in futures.items()}


def _problem(address: str, error: BaseException) -> str:
    """Say what a worker lacks; an error that no user can cause is raised as it is."""
    match error:
        case SpgError():
            return f"worker {address}: {error}"
        case ImportError():
            return f"worker {address} lacks this program or a library: {error}"
        case _:
            raise error


@contextmanager
def open_workers(
    cluster: ClusterConfig, open_job: Callable[[Any], Any], job: Any
) -> Iterator[DaskWorkers]:
    """Open a cluster for one job; nothing is run yet.

    Args:
        cluster: where.
        open_job: a function of a module, run once in each worker process.
        job: what it is given: plain data.

    Raises: ConfigError, ClusterError.
    """
    with _client(cluster) as client:
        yield DaskWorkers(client, Job(secrets.token_hex(8), open_job, job, _threads(cluster)))


@contextmanager
def _client(cluster: ClusterConfig) -> Iterator[Any]:
    """Connect to the scheduler that was named, or start one with its workers on this machine."""
    import distributed

    if cluster.workers < 0 or (cluster.workers and cluster.scheduler):
        raise ConfigError(
            f"--workers {cluster.workers} and --scheduler {cluster.scheduler}: give a number of "
            "processes to start here, or the address of a scheduler that runs already"
        )
    if cluster.scheduler is None:
        with ExitStack() as stack:
            with _interrupts_held():
                local = distributed.LocalCluster(  # type: ignore[no-untyped-call]
                    n_workers=cluster.workers,
                    threads_per_worker=1,
                    processes=True,
                    dashboard_address="127.0.0.1:0",  # any free port: a taken one is a warning
                    memory_limit=None,  # the nanny would kill a worker that holds a large model
                    silence_logs=CRITICAL,  # errors travel with the results
                )
                stack.enter_context(local)
                client: Any = distributed.Client(local)  # type: ignore[no-untyped-call]
                stack.enter_context(client)
                client.register_worker_callbacks(_ignore_interrupts)
            yield client
        return
    address, seconds = cluster.scheduler, _CONNECT_SECONDS
    try:
        client = distributed.Client(address, timeout=seconds)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"no Dask scheduler answers at {cluster.scheduler} ({error}); start one with "
            "`dask scheduler` and workers with `dask worker ADDRESS`"
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=_WORKERS_SECONDS)
        except TimeoutError as error:
            raise ClusterError(
                f"the scheduler at {cluster.scheduler} has no workers; start some with "
                f"`dask worker {cluster.scheduler}`"
            ) from error
        yield client


def _threads(cluster: ClusterConfig) -> int | None:
    """Share the cores of this machine; workers of others keep the threads they came with."""
    if cluster.scheduler is not None:
        return None
    from dask.system import CPU_COUNT  # knows of containers and affinity

    return max(1, CPU_COUNT // cluster.workers)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back while processes are started, and have them ignore it.

    A terminal sends it to all processes, but only the first one decides. Children inherit that a
    signal is ignored; blocked in this thread, it waits here until they have started.
    """
    if current_thread() is not main_thread():  # which alone may set handlers, and gets signals
        yield
        return
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _ignore_interrupts() -> None:
    """In a worker, one started in place of a dead one too: ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


_opened: OrderedDict[str, Any] = OrderedDict()
_opening = Lock()


def _run(job: Job, function: Callable[..., Any], *arguments: Any) -> Any:
    """In a worker: run a function of a job that is opened once a process."""
    with _opening:
        if job.name not in _opened:
            if job.torch_threads is not None:
                import torch

                torch.set_num_threads(job.torch_threads)
            _opened[job.name] = job.open_job(job.job)
            while len(_opened) > _JOBS_KEPT:
                _opened.popitem(last=False)
        opened = _opened[job.name]
    return function(opened, *arguments)

"""A client of Dask: of the scheduler that was named, or of workers started on this machine."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from logging import CRITICAL
from threading import current_thread, main_thread
from typing import TYPE_CHECKING

from pipeline.configs import ClusterConfig
from pipeline.machine.cores import usable_cores
from pipeline.terminal.stopping import SIGNALS
from spg_core.errors import ClusterError

if TYPE_CHECKING:
    from distributed import Client

_CONNECT_SECONDS = 10
_WORKERS_SECONDS = 30


@contextmanager
def open_client(cluster: ClusterConfig, threads: int) -> "Iterator[Client]":
    """Connect to the scheduler that was named, or start one with its workers on this machine.

    Raises: ClusterError where there is no scheduler, or no worker.
    """
    if cluster.scheduler is None:
        with _started_here(cluster.workers, threads) as started:
            yield started
        return
    import distributed

    try:
        client = distributed.Client(cluster.scheduler, timeout=_CONNECT_SECONDS)
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


@contextmanager
def _started_here(n_workers: int, threads: int) -> "Iterator[Client]":
    import distributed

    with ExitStack() as stack:
        with _signals_held():
            try:
                local = distributed.LocalCluster(
                    n_workers=n_workers,
                    threads_per_worker=threads,
                    processes=True,
                    dashboard_address="127.0.0.1:0",  # any free port: a taken one is a warning
                    memory_limit=None,  # the nanny would kill a worker that holds a large model
                    silence_logs=CRITICAL,  # errors travel with the results
                )
            except (RuntimeError, OSError) as error:
                raise ClusterError(
                    f"{n_workers} workers could not be started on this machine ({error}); "
                    "use fewer, or --workers 0"
                ) from error
            stack.enter_context(local)
            client = distributed.Client(local)
            stack.enter_context(client)
            client.register_worker_callbacks(_ignore_signals)
        yield client


def torch_threads(cluster: ClusterConfig) -> int | None:
    """Share the cores of this machine; workers of others keep the threads they came with."""
    if cluster.scheduler is not None:
        return None
    return max(1, usable_cores() // cluster.workers)


@contextmanager
def _signals_held() -> Iterator[None]:
    """Hold signals back while processes are started, and have them ignore those.

    A terminal sends Ctrl-C, and a batch system SIGTERM, to all processes, but only the first one
    decides. Children inherit that a signal is ignored; blocked in this thread, it waits here until
    they have started.
    """
    if current_thread() is not main_thread():  # which alone may set handlers, and gets signals
        yield
        return
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    handlers = {one: signal.signal(one, signal.SIG_IGN) for one in SIGNALS}
    try:
        yield
    finally:
        for one, handler in handlers.items():
            signal.signal(one, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _ignore_signals() -> None:
    """In a worker, one started in place of a dead one too: leave it to whoever started it."""
    for one in SIGNALS:
        signal.signal(one, signal.SIG_IGN)

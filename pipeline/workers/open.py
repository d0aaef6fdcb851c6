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

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Protocol, cast

from cache.objects import Objects
from pipeline.configs import ClusterConfig
from pipeline.workers.work import Here, Opened, Threads, Told, Workers


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
        from pipeline.workers.cluster import open_dask_workers

        with open_dask_workers(store, cluster, open_job, job, max(1, at_once)) as workers:
            yield workers
        return
    opened = open_job(store, job) if here is None else here()
    if not at_once:
        yield Here(opened)
        return
    with closing(Threads(opened, at_once)) as threads, closing(cast(Closes, opened)):
        yield threads

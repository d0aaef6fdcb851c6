"""In a worker process of Dask: a job is opened once, then its functions are run."""

import os
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Generic, cast

from cache.objects import Objects
from pipeline.machine import device
from pipeline.machine.device import Place
from pipeline.machine.freed_memory import keep_freed_memory
from pipeline.terminal.stopping import begin_job, check_stopped
from pipeline.workers.ticket import StoreTicket, open_ticket
from pipeline.workers.work import Arguments, Opened, Result, Told

_JOBS_KEPT = 2
"""Jobs that stay open in a worker process: two people's may alternate on one scheduler."""


@dataclass(frozen=True)
class Job(Generic[Told, Opened]):
    """What a worker process must know before it can run functions."""

    name: str
    """Unique to a run: a later run opens everything anew, files may have changed."""
    ticket: StoreTicket
    open_job: Callable[[Objects, Told], Opened]
    job: Told
    torch_threads: int | None
    """Threads of the maths of a worker of our own; None leaves another's as it was started."""
    places: Mapping[str, Place]
    """Each worker's by its address, as counted when the job began."""


_opened: OrderedDict[str, object] = OrderedDict()
_opening = Lock()


def run(
    job: Job[Told, Opened],
    function: Callable[[Opened, *Arguments], Result],
    *arguments: *Arguments,
) -> Result:
    """In a worker: run a function of a job that is opened once a process.

    Raises: Stopped where the job is to end; what opening and the function raise.
    """
    begin_job(job.name)
    check_stopped()
    with _opening:
        if job.name not in _opened:
            _opened[job.name] = _open(job)
            while len(_opened) > _JOBS_KEPT:
                _opened.popitem(last=False)
        opened = cast(Opened, _opened[job.name])
    return function(opened, *arguments)


def _open(job: Job[Told, Opened]) -> Opened:
    from distributed import get_worker

    worker = get_worker()
    device.place = place_of(str(worker.name), worker.address, job.places)
    if job.torch_threads is not None:
        import torch

        keep_freed_memory()
        torch.set_num_threads(job.torch_threads)
    return job.open_job(open_ticket(job.ticket), job.job)


def gpus_seen() -> str:
    """Say which GPUs this worker was given: by a batch system, by dask-cuda or by hand."""
    return " ".join(os.environ.get(name, "") for name in ("SLURM_JOB_ID", "CUDA_VISIBLE_DEVICES"))


def place_of(name: str, address: str, places: Mapping[str, Place]) -> Place:
    """Number a worker among those of its machine.

    By its name where that ends in a number, as in Dask's own clusters (`3`, `gpu-3`): it stays
    when a killed worker is started again. Otherwise as counted when the job began, else 0. One that
    nobody counted shares its machine with as many as any.
    """
    most = max((one.n_workers for one in places.values()), default=1)
    counted = places.get(address, Place(0, most))
    number = name.rpartition("-")[2]
    if number.isascii() and number.isdigit():
        return Place(int(number), counted.n_workers)
    return counted

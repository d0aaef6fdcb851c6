"""Real writer processes for tests: one that kills itself at a chosen system call, two that race."""

import multiprocessing
import os
import signal
from collections.abc import Mapping
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

import obstore

from cache.store import open_store
from pipeline.registry.transfer import transfer
from tests.cache_samples import MANIFEST_BYTES, make_sample, new_writer, write_pending

STEPS = ("open", "write", "fsync", "link", "close")


def context() -> ForkServerContext:
    """A clean server that has everything imported and forks writers in milliseconds."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["tests.crashing_writer", "cache.writer"])
    return found


def start(target: Any, *arguments: object) -> ForkServerProcess:
    process = context().Process(target=target, args=arguments)
    process.start()
    return process


def write_all(
    store: Path | str,
    seed: int,
    killed_at: int | None = None,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Write and finish the sample; SIGKILL at the `killed_at`-th system call or PUT."""
    os.environ.update(environment or {})
    if killed_at is not None:
        _kill_at(killed_at, remote="://" in str(store))
    sample = make_sample(seed=seed)
    writer = new_writer(open_store(store), sample)
    write_pending(writer, sample)
    writer.finish(MANIFEST_BYTES)


def push_all(
    source: str, target: str, reference: str, killed_at: int, environment: Mapping[str, str]
) -> None:
    """Push an artifact with its tokens to an object store; SIGKILL at the `killed_at`-th PUT."""
    os.environ.update(environment)
    _kill_at(killed_at, remote=True)
    stores = open_store(source), open_store(target)
    transfer(*stores, reference, with_tokens=True, threads=1)


def race(store: Path, seed: int, barrier: Any) -> None:
    """Write the sample, every shard at the same moment as the other side."""
    sample = make_sample(seed=seed)
    writer = new_writer(open_store(store), sample)
    write_pending(writer, sample, before_each=lambda _: barrier.wait(20))
    writer.finish(MANIFEST_BYTES)


def _kill_at(step: int, remote: bool) -> None:
    count = 0

    def counted(real: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        return call

    if remote:
        obstore.put = counted(obstore.put)
        return
    for name in STEPS:
        setattr(os, name, counted(getattr(os, name)))

"""One store for a client and its workers: how a worker finds it, and proof that it is the same."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from cache.local_objects import LocalObjects
from cache.objects import TEMPORARY_PREFIX, Objects
from cache.store import open_store
from spg_core.errors import StoreError


@dataclass(frozen=True)
class StoreTicket:
    """How a worker finds the store, and proof that it is the same one."""

    url: str
    probe: str
    """Name of an object that this run put there."""


@contextmanager
def store_ticket(store: Objects) -> Iterator[StoreTicket]:
    """Put a probe into the store for as long as workers, late ones too, must find it there."""
    probe = f"{TEMPORARY_PREFIX}probe-{secrets.token_hex(8)}"
    try:
        if not store.put_new(probe, [probe.encode()]):
            raise StoreError(f"{store.where} already holds {probe}, which nobody should have made")
        yield StoreTicket(_url(store), probe)
    finally:
        with suppress(StoreError):  # swept after a day; how the work itself ended counts
            store.delete(probe)


def open_ticket(ticket: StoreTicket) -> Objects:
    """In a worker: open the store, and prove that it is the same and can be written.

    Raises: StoreError saying what this worker sees instead.
    """
    store = open_store(ticket.url)
    if store.size(ticket.probe) is None:
        raise StoreError(
            f"{ticket.url} is not the same store here; use a folder that every worker mounts at "
            "the same path, or a URL such as s3://bucket/prefix"
        )
    store.check_writable()
    return store


def _url(store: Objects) -> str:
    """Give a name of the store that does not depend on the working directory."""
    return str(store.root) if isinstance(store, LocalObjects) else store.where

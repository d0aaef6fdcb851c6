"""Is there room for what is about to be written?"""

from collections.abc import Sequence

from cache.writer import CacheWriter
from spg_core.errors import StoreError


def check_free_space(writers: Sequence[CacheWriter]) -> None:
    """Refuse to start what cannot end, for caches of one store that are written together.

    Raises: StoreError with the bytes needed and free.
    """
    needed, free = sum(writer.needed_bytes() for writer in writers), writers[0].objects.free_bytes()
    if free is not None and needed > free:
        raise StoreError(
            f"{' and '.join(writer.where for writer in writers)} needs about {needed} more bytes "
            f"({needed / 1e9:.2f} GB), {free} ({free / 1e9:.2f} GB) are free; free some space or "
            "use another store"
        )

"""A GPU's memory that ran out, by one name whoever lacked it.

PyTorch has an error of its own for its own memory. What its libraries lack comes as any error of
the runtime: cuBLAS' workspace is the first to be missed on a GPU that others have filled.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from traceback import clear_frames

import torch

_OF_LIBRARIES = (
    *("CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "CUSOLVER_STATUS_ALLOC_FAILED"),
    "CUDA error: out of memory",
)


def lack_of(error: BaseException) -> str | None:
    """Give the first words of an error that says that a GPU's memory ran out, None for another."""
    text = str(error)
    if isinstance(error, torch.OutOfMemoryError):
        return text.partition(". ")[0].rstrip(".")
    if isinstance(error, RuntimeError) and any(one in text for one in _OF_LIBRARIES):
        return text.partition("\n")[0]
    return None


@contextmanager
def lack_by_name() -> Iterator[None]:
    """Have all lack of a GPU's memory within the block be a `torch.OutOfMemoryError`."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        lack = lack_of(error)
        if lack is None:
            raise
        clear_frames(error.__traceback__)  # they hold tensors, and the new error holds this one
        raise torch.OutOfMemoryError(lack) from None

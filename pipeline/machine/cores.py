"""How many cores there are, and how many threads decode images on them."""

from typing import Final

BESIDE_A_MODEL: Final = 2
"""Threads that decode for a model on the CPU, which wants the cores for itself."""


def usable_cores() -> int:
    """Count the cores this process may use."""
    from dask.system import CPU_COUNT  # knows of containers and affinity

    return int(CPU_COUNT)


def n_checkers(asked: int | None) -> int:
    """Give the threads that look at images while no model runs: what was asked for, else all."""
    return usable_cores() if asked is None else max(1, asked)


def n_decoders(asked: int | None, device_type: str, n_processes: int = 1) -> int:
    """Give the threads that decode ahead of a model, on a machine shared by some processes.

    A model on a GPU leaves the cores alone, but for the thread that feeds it.
    """
    if asked is not None:
        return asked
    if device_type == "cpu":
        return BESIDE_A_MODEL
    return max(1, usable_cores() // n_processes - 1)

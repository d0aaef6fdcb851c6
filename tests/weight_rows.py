"""Weights files that people have on their disks, for docs/formats.md; tests say they are true."""

from dataclasses import dataclass


@dataclass(frozen=True)
class WeightRow:
    """One kind of weights file."""

    what: str
    """Where the file comes from."""
    keys: str
    """The names in it, or what its bytes are."""
    result: str
    """`read`, or the words of the refusal."""


WEIGHTS: tuple[WeightRow, ...] = ()
"""In the order of the page; its section appears with the first row."""

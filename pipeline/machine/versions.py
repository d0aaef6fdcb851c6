"""Versions of the libraries that shape a result, saved beside it."""

from functools import cache
from importlib.metadata import version

from pipeline import __version__

_LIBRARIES = ("torch", "numpy", "scipy", "timm", "open_clip_torch")


def library_versions() -> dict[str, str]:
    """Give the versions of the libraries that shape a result."""
    return {"spg-pipe": __version__, **{name: version_of(name) for name in _LIBRARIES}}


@cache
def version_of(name: str) -> str:
    """Give the version of an installed library."""
    return version(name)

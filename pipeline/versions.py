"""Versions of the libraries that shape a result, saved beside it."""

from importlib.metadata import version

from pipeline import __version__


def library_versions() -> dict[str, str]:
    """Give the versions of the libraries that shape a result."""
    return {
        "spg-pipe": __version__,
        **{name: version(name) for name in ("torch", "numpy", "scipy", "timm", "open_clip_torch")},
    }

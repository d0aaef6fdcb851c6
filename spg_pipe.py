"""SPG-Pipe's public interface: the names that stay. Everything else may move.

    import spg_pipe as spg

    spg.fit_sae("spg-store", dataset="visa", backbone="dinov3", k=16)

`python -m spg_pipe` is the `spg-pipe` command. A name is imported when it is first used, so that
`import spg_pipe` takes no time. docs/api.md lists them.
"""

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cache.store import open_store
    from cache.stream import token_batches
    from cache.zarr_access import as_dask_array
    from pipeline import __version__
    from pipeline.api import (
        atoms,
        calibrate,
        combine,
        export,
        extract,
        fit_guides,
        fit_memory,
        fit_sae,
        open_cache,
        predict,
        pull,
        push,
        reproduce,
        score,
        sweep,
        table,
    )
    from pipeline.detection.load import load_detector
    from spg_core.errors import SpgError

__all__ = [
    "SpgError",
    "__version__",
    "as_dask_array",
    "atoms",
    "calibrate",
    "combine",
    "export",
    "extract",
    "fit_guides",
    "fit_memory",
    "fit_sae",
    "load_detector",
    "open_cache",
    "open_store",
    "predict",
    "pull",
    "push",
    "reproduce",
    "score",
    "sweep",
    "table",
    "token_batches",
]

_HOMES = {
    "SpgError": "spg_core.errors",
    "__version__": "pipeline",
    "as_dask_array": "cache.zarr_access",
    "load_detector": "pipeline.detection.load",
    "open_store": "cache.store",
    "token_batches": "cache.stream",
}
"""Where a name is defined that is not of `pipeline.api`."""
_PACKAGES = ("spg_core", "manifests", "cache", "pipeline")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"spg_pipe has no {name!r}; it has {', '.join(__all__)}")
    _require_packages()
    return getattr(import_module(_HOMES.get(name, "pipeline.api")), name)


def __dir__() -> list[str]:
    return __all__


def _require_packages() -> None:
    """Refuse to go on where a file of the user's has the name of a package of ours."""
    for name in _PACKAGES:
        found = find_spec(name)
        ours = Path(__file__).resolve().with_name(name)
        where = Path(found.origin).resolve() if found and found.origin else None
        if where is None or where.parent != ours:
            raise ImportError(
                f"spg-pipe needs its package {name!r}, but in its place Python finds "
                f"{where or 'nothing'}; rename that file, or run from another folder"
            )


def main() -> None:
    """Run the `spg-pipe` command."""
    try:
        _require_packages()
    except ImportError as error:
        sys.exit(f"error: {error}")
    from pipeline.cli import main as run

    run()


if __name__ == "__main__":
    main()

"""`spg-pipe extract`."""

from typing import TYPE_CHECKING

from pipeline.commands.from_config import alone, from_config
from pipeline.commands.show import show
from pipeline.configs import ClusterConfig, ExtractConfig

if TYPE_CHECKING:
    from cache.store import AnyStore
    from pipeline.extraction.extract import Extraction


def extract(store: "AnyStore", config: ExtractConfig, cluster: ClusterConfig) -> "Extraction":
    """Write the patch tokens of a dataset into the store, once. Interrupted, it resumes."""
    from cache.store import open_store
    from pipeline.extraction.extract import extract as run

    return run(open_store(store), config, cluster)


def show_extraction(done: "Extraction", as_json: bool) -> None:
    """Print what is in the store now."""
    result = {"key": done.key, "path": done.path, "images": done.images, "state": done.state}
    show(result, as_json, f"{done.path}: {done.images} images, {done.state}")


app = alone("extract", from_config(extract, show_extraction))

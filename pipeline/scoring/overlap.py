"""Say aloud where the images that guides were fitted on are among those that are scored."""

from cache.objects import Objects
from pipeline.artifacts.terms import CacheParent
from pipeline.inputs import CachedDataset, open_dataset
from pipeline.progress import say
from spg_core.errors import SpgError


def remark_seen(store: Objects, fitted: CacheParent, target: CachedDataset) -> None:
    """Say whether, and how many, images of the target were seen in the fit.

    Images are the same where their bytes are, whatever their names. Where the store does not hold
    the cache of the fit, nobody can tell, and nothing is said.
    """
    if fitted.key == target.cache.key:
        say(
            f"remark: the guides were fitted on {target.dataset}; these numbers say nothing "
            "about products that were not seen"
        )
        return
    try:
        auxiliary = open_dataset(store, fitted.dataset, fitted.backbone, fitted.key)
    except SpgError:
        return
    n_seen = n_shared(auxiliary, target)
    if n_seen:
        say(
            f"warning: {n_seen} of {target.cache.n_images} images of {target.dataset} are also in "
            f"{fitted.dataset}, which the guides were fitted on; their metrics flatter the guides"
        )


def n_shared(one: CachedDataset, other: CachedDataset) -> int:
    """Count the images of the other dataset whose bytes are those of an image of the first."""
    known = set(one.manifest.column("image_id"))
    return sum(image_id in known for image_id in other.manifest.column("image_id"))

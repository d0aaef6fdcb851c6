"""Say aloud where the images that guides were fitted on are among those that are scored."""

from cache.objects import Objects
from pipeline.artifacts.terms import CacheParent
from pipeline.inputs import CachedDataset, open_dataset
from pipeline.terminal.progress import say
from spg_core.errors import SpgError

_SAME = (
    "remark: the guides are fitted on {} itself; its numbers say nothing about products that were "
    "not seen"
)


def remark_seen(store: Objects, fitted: CacheParent, target: CachedDataset) -> None:
    """Say whether, and how many, images of the target were seen in the fit.

    Images are the same where their bytes are, whatever their names. Where the store does not hold
    the cache of the fit, nobody can tell, and nothing is said.
    """
    if fitted.key == target.cache.key:
        say(_SAME.format(target.dataset))
        return
    try:
        auxiliary = open_dataset(store, fitted.dataset, fitted.backbone, fitted.key)
    except SpgError:
        return
    remark_shared(auxiliary, target)


def remark_shared(auxiliary: CachedDataset, target: CachedDataset) -> int:
    """Say the same of two datasets at hand, also before anything is fitted; give the number."""
    if auxiliary.cache.key == target.cache.key:
        say(_SAME.format(target.dataset))
        return target.cache.n_images
    n_seen = n_shared(auxiliary, target)
    if n_seen:
        say(
            f"warning: {n_seen} of {target.cache.n_images} images of {target.dataset} are also in "
            f"{auxiliary.dataset}, which the guides are fitted on; their metrics flatter the guides"
        )
    return n_seen


def n_shared(one: CachedDataset, other: CachedDataset) -> int:
    """Count the images of the other dataset whose bytes are those of an image of the first."""
    known = set(one.manifest.column("image_id"))
    return sum(image_id in known for image_id in other.manifest.column("image_id"))

"""No image is scored by a memory that holds it: at distance 0 from itself it would look normal."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.artifacts import Artifact
from pipeline.artifacts.memory import MemoryDocument
from pipeline.detection.find import AnyDetector
from pipeline.detection.load import singles
from pipeline.inputs import CachedDataset
from spg_core.errors import ArtifactError


def memories_of(detector: AnyDetector) -> list[Artifact[MemoryDocument]]:
    """Give the memory that a detector is, or those that it combines. Raises: as `singles`."""
    return [one for one in singles(detector) if isinstance(one.document, MemoryDocument)]


def remembered_rows(
    data: CachedDataset, memories: Sequence[Artifact[MemoryDocument]]
) -> NDArray[np.int64]:
    """Give the rows of images that one of the memories holds, by their bytes, ascending."""
    held = frozenset[str]().union(*(one.document.image_ids for one in memories))
    ids = data.manifest.column("image_id")
    return np.array([row for row, image in enumerate(ids) if image in held], np.int64)


def require_unseen(data: CachedDataset, memories: Sequence[Artifact[MemoryDocument]]) -> None:
    """Refuse to score a dataset of which a memory holds images. Raises: ArtifactError."""
    rows = remembered_rows(data, memories)
    if len(rows):
        names = " and ".join(one.id for one in memories)
        first = data.manifest.column("image_path")[rows[0]]
        raise ArtifactError(
            f"{len(rows)} of {data.cache.n_images} images of {data.cache.where} are in the memory "
            f"{names} ({first}{', ..' if len(rows) > 1 else ''}), and would look normal to it; "
            "score a cache of other images, such as --split test makes"
        )

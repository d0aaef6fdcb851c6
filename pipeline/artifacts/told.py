"""What is said of an artifact in a few lines, on a terminal and in a notebook."""

from collections.abc import Mapping

from pipeline.artifacts.documents import (
    CombinationDocument,
    Document,
    GuidesDocument,
    MemoryDocument,
    SaeDocument,
    ScoresDocument,
)
from pipeline.tables.metrics import METRICS, percent
from spg_core.errors import ArtifactError

STILL_DENSE = 0.01
"""With a larger share of its start, the average of the coefficients has no zeros."""


def told(document: Document, path: str) -> str:
    """Give an id with what matters of it, then the path: at most five lines."""
    match document:
        case SaeDocument():
            quality, width = document.quality, document.config.width
            lines = [
                f"{document.id}: FVU {quality.fvu:.4f}, L0 {quality.l0:.1f}, "
                f"{quality.dead_atoms} of {width} atoms dead"
            ]
        case GuidesDocument():
            lines = [document.id, *_of_guides(document)]
        case MemoryDocument():
            lines = [document.id, *_of_memory(document)]
        case CombinationDocument():
            lines = [document.id, *_of_combination(document)]
        case ScoresDocument():
            names = ("image_auroc", "pixel_auroc", "pixel_aupro")
            mean = document.mean.values
            said = [f"{METRICS[name].label} {percent(mean[name])} %" for name in names]
            n = len(document.categories)
            lines = [f"{document.id}: {', '.join(said)}, the mean of {n} categories"]
        case _:
            lines = [document.id]
    return "\n".join([*lines, path])


def _of_guides(document: GuidesDocument) -> list[str]:
    lines, used = [], document.sparsity
    for counts, label in ((used.raw, "last step"), (used.ema, "EMA")):
        nnz, l1 = counts.nnz, counts.l1
        lines.append(
            f"  {label:<9} non-zero {nnz[0]:.0f} + {nnz[1]:.0f}, l1 {l1[0]:.2f} + {l1[1]:.2f}"
            "  (normal + anomalous)"
        )
    share = document.training.ema_start_share
    if share > STILL_DENSE:
        lines.append(
            f"  the EMA still holds {share:.0%} of its start after "
            f"{document.training.steps} steps, so it stays dense"
        )
    return lines


def _of_combination(document: CombinationDocument) -> list[str]:
    how = document.config.combine
    weights = ", ".join(f"{one.weight:.2f}" for one in document.parts)
    scaled = ", on one scale" if any(one.scale for one in document.parts) else ""
    return [
        f"  {how} of {len(document.parts)} parts{scaled}"
        + (f", weights {weights}" if how == "learned" else "")
    ]


def _of_memory(document: MemoryDocument) -> list[str]:
    held = document.categories.values()
    n_images, n_tokens = sum(len(one.images) for one in held), sum(one.tokens for one in held)
    return [f"  {n_tokens} tokens of {n_images} normal images of {', '.join(document.categories)}"]


def rows_of(document: Document) -> list[Mapping[str, object]]:
    """Give the table of an artifact: of scores a row a category. Raises: ArtifactError."""
    if not isinstance(document, ScoresDocument):
        raise ArtifactError(f"{document.id} holds no table; scores and sweeps do")
    return [{"category": name, **one.values} for name, one in document.categories.items()]

"""`spg-pipe fit-guides`."""

from typing import TYPE_CHECKING

from pipeline.commands.from_config import alone, from_config
from pipeline.commands.show import show
from pipeline.configs import FitGuidesConfig, FitGuidesSource

if TYPE_CHECKING:
    from cache.store import AnyStore
    from pipeline.artifacts import Artifact
    from pipeline.artifacts.documents import GuidesDocument


def fit_guides(
    store: "AnyStore", source: FitGuidesSource, config: FitGuidesConfig
) -> "Artifact[GuidesDocument]":
    """Learn a normal and an anomalous guide over an SAE, on the dataset the SAE was fitted on."""
    from cache.store import open_store
    from pipeline.fitting.guides import fit_guides as run

    return run(open_store(store), source.sae, config)


def show_guides(made: "Artifact[GuidesDocument]", as_json: bool) -> None:
    """Print how sparse they are, and where they are."""
    document = made.document
    lines, used = [made.id], document.sparsity
    for counts, label in ((used.raw, "last step"), (used.ema, "EMA")):
        nnz, l1 = counts.nnz, counts.l1
        lines.append(
            f"  {label:<9} non-zero {nnz[0]:.0f} + {nnz[1]:.0f}, l1 {l1[0]:.2f} + {l1[1]:.2f}"
            "  (normal + anomalous)"
        )
    share = document.training.ema_start_share
    if share > 0.01:
        lines.append(
            f"  the EMA still holds {share:.0%} of its start after "
            f"{document.training.steps} steps, so it stays dense"
        )
    show({"id": made.id, "path": made.path}, as_json, "\n".join([*lines, made.path]))


app = alone("fit-guides", from_config(fit_guides, show_guides))

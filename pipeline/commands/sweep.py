"""`spg-pipe sweep`."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.commands.from_config import alone, from_config
from pipeline.commands.show import show
from pipeline.configs import ClusterConfig, SweepConfig
from pipeline.metrics import METRICS, percent

if TYPE_CHECKING:
    from cache.store import AnyStore
    from pipeline.sweep.run import Sweep


def sweep(store: "AnyStore", config: SweepConfig, cluster: ClusterConfig) -> "Sweep":
    """Fit and score a grid in one pass over the tokens; killed, it goes on where it stood."""
    from cache.store import open_store
    from pipeline.sweep.run import sweep as run

    return run(open_store(store), config, cluster)


def show_sweep(made: "Sweep", as_json: bool) -> None:
    """Print the best points, and where the table is."""
    result = {
        "id": made.id,
        "path": made.path,
        "points": len(made.rows),
        "failed": [dict(row) for row in made.failed],
        "figures": made.figures,
    }
    show(result, as_json, _sweep_text(made.id, made.path, made.rows))


def _sweep_text(identifier: str, path: str, rows: Sequence[Mapping[str, Any]]) -> str:
    done = [row for row in rows if row["state"] == "done"]
    lines = [f"{identifier}: {len(done)} of {len(rows)} points"]
    for metric in ("image_auroc", "pixel_aupro"):
        best = max(
            done, key=lambda row: -1.0 if row.get(metric) is None else row[metric], default={}
        )
        if best.get(metric) is not None:
            where = f"C = {best['width']}, k = {best['k']}"
            lines.append(f"  best {METRICS[metric].label} {percent(best[metric])} %: {where}")
    return "\n".join([*lines, f"{path}/sweep.parquet"])


app = alone("sweep", from_config(sweep, show_sweep))

"""What the figures share: where they are put, and drawing metrics against one axis."""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.csv
import pyarrow.parquet as pq

from cache.objects import Objects
from pipeline import __version__
from pipeline.backbones.spec import slug
from pipeline.configs import FigureConfig, ReproduceConfig, SweepConfig
from pipeline.sweep.table import PANELS, sweep_table, to_parquet
from pipeline.versions import library_versions
from spg_core.errors import ConfigError

Row = Mapping[str, Any]
POINTS, PICTURE, DOCUMENT = "points.parquet", "figure.png", "figure.json"
_SUFFIXES = (".png", ".parquet", ".csv")


@dataclass(frozen=True)
class Figure:
    """A figure of the paper, made again: its points and its picture."""

    name: str
    rows: list[Row]
    picture: bytes


def save_figure(
    store: Objects, figure: Figure, config: ReproduceConfig, varied: FigureConfig
) -> str:
    """Write points, picture and, last, what they were made from; give the folder's path."""
    settings = {**asdict(config), **asdict(varied)}
    asked = {name: value for name, value in settings.items() if name != "device"}
    text = json.dumps({**asked, "spg": __version__}, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    name = f"{figure.name}-{config.aux}-to-{config.target}-{slug(config.backbone)}-{digest}"
    place = f"figures/{name}"
    store.replace(f"{place}/{POINTS}", [to_parquet(sweep_table(figure.rows))])
    store.replace(f"{place}/{PICTURE}", [figure.picture])
    document = {"format": 1, "config": settings, "versions": library_versions()}
    store.replace(f"{place}/{DOCUMENT}", [json.dumps(document, indent=1).encode()])
    return f"{store.where}/{place}"


def check_out(path: str) -> None:
    """Refuse a file a figure cannot be written to. Raises: ConfigError."""
    if Path(path).suffix not in _SUFFIXES:
        raise ConfigError(f"a figure is written to {', '.join(_SUFFIXES)}, got {path!r}")


def write_out(figure: Figure, path: str) -> None:
    """Write the picture (.png) or the points (.parquet, .csv) to a file."""
    match Path(path).suffix:
        case ".png":
            Path(path).write_bytes(figure.picture)
        case ".parquet":
            pq.write_table(sweep_table(figure.rows), path)
        case ".csv":
            pyarrow.csv.write_csv(sweep_table(figure.rows), path)
        case _:
            check_out(path)


def sweep_config(
    config: ReproduceConfig,
    *,
    width: str | None = None,
    k: str | None = None,
    backbone: str | None = None,
    vary: Sequence[str] = (),
) -> SweepConfig:
    """Give the sweep of what is asked, where only what is named differs from the config."""
    common = (
        f"sae.epochs={config.sae_epochs}",
        f"guides.epochs={config.guide_epochs}",
        f"score.aupro={config.aupro}",
    )
    own = backbone is None
    return SweepConfig(
        aux=config.aux,
        target=config.target,
        backbone=backbone or config.backbone,
        # a key names the tokens of one backbone
        aux_key=config.aux_key if own else None,
        target_key=config.target_key if own else None,
        width=width or str(config.width),
        k=k or str(config.k),
        seed=str(config.seed),
        recipe=config.recipe,
        vary=(*common, *vary),
        device=config.device,
    )


def draw_lines(
    rows: Sequence[Row],
    axis_name: str,
    label: str,
    metrics: Sequence[str],
    title: str,
    references: Mapping[str, Row] | None = None,
) -> bytes:
    """Draw metrics in % against an axis of `rows` on a logarithmic scale, one panel a metric.

    Args:
        rows: the points; those without the metric are left out.
        axis_name: the field that runs to the right.
        label: what that axis is called.
        metrics: fields to draw.
        title: above all.
        references: further results, drawn as dashed lines: name -> row.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Drawing

    drawing = Drawing(figsize=(4.0 * len(metrics), 3.4), layout="constrained")
    FigureCanvasAgg(drawing)
    panels = drawing.subplots(1, len(metrics), squeeze=False)[0]
    for panel, metric in zip(panels, metrics, strict=True):
        known = sorted(
            (row[axis_name], 100 * row[metric]) for row in rows if row.get(metric) is not None
        )
        panel.plot([x for x, _ in known], [y for _, y in known], marker="o", markersize=4)
        for name, row in (references or {}).items():
            if row.get(metric) is not None:
                panel.axhline(100 * row[metric], linestyle="--", color="grey", label=name)
                panel.legend(fontsize=8)
        if known:
            panel.set_xscale("log")
        panel.set(title=f"{PANELS[metric]} (%)", xlabel=label)
        panel.grid(alpha=0.3)
    drawing.suptitle(title, fontsize=9)
    return as_png(drawing)


def as_png(drawing: Any) -> bytes:
    """Give a drawing as a PNG file."""
    buffer = io.BytesIO()
    drawing.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()

"""What the figures share: what they are made from, and where they are put."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cache.objects import Objects
from pipeline.artifacts import artifact_id, give, save_artifact, settings
from pipeline.artifacts.documents import ReproducedDocument
from pipeline.backbones.spec import slug
from pipeline.configs import FigureConfig, ReproduceConfig, SweepConfig
from pipeline.drawing.canvas import Strip, draw_sheet
from pipeline.drawing.files import check_picture, write_picture
from pipeline.drawing.points import Row
from pipeline.files import write_file
from pipeline.sweep.table import sweep_table
from pipeline.tables.frames import as_parquet, csv_text
from pipeline.terminal.progress import say

PICTURE = "figure.png"
_DATA = (".parquet", ".csv")


@dataclass(frozen=True)
class Figure:
    """A figure of the paper, made again: its points and how they are drawn."""

    name: str
    rows: list[Row]
    strips: list[Strip]


def save_figure(
    store: Objects, figure: Figure, config: ReproduceConfig, varied: FigureConfig
) -> str:
    """Write points, picture and what they were made from; give the folder's path.

    `figures/latest` means it from then on.
    """
    stem = f"{figure.name}-{config.aux}-to-{config.target}-{slug(config.backbone)}"
    identity = {"config": settings(config), "varied": settings(varied)}
    document = ReproducedDocument(id=artifact_id(stem, identity), config=config, varied=varied)
    table, picture = sweep_table(figure.rows), {PICTURE: draw_sheet(figure.strips)}
    saved = save_artifact(store, document, table, lambda _: picture, renew=True)
    return give(saved, direct=True).path


def check_out(path: str) -> None:
    """Refuse a file a figure cannot be written to. Raises: ConfigError, StoreError."""
    check_picture(path, _DATA)


def write_out(figure: Figure, path: str) -> None:
    """Write the picture (.png, .pdf, .svg) or the points (.parquet, .csv).

    Raises: as `check_out`.
    """
    check_out(path)
    table = sweep_table(figure.rows)
    match Path(path).suffix:
        case ".parquet":
            write_file(Path(path), as_parquet(table))
        case ".csv":
            text = csv_text(table.column_names, table.to_pylist())
            write_file(Path(path), text.encode())
        case _:
            write_picture(figure.strips, path)
    say(f"wrote {path}")


def sweep_config(
    config: ReproduceConfig,
    *,
    width: tuple[int, ...] = (),
    k: tuple[int, ...] = (),
    seeds: tuple[int, ...] = (),
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
        width=width or (config.width,),
        k=k or (config.k,),
        seed=seeds or (config.seed,),
        recipe=(config.recipe,),
        vary=(*common, *vary),
        device=config.device,
    )

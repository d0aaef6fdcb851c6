"""`spg-pipe extract`."""

from typing import Annotated

import typer

from pipeline.commands.options import (
    DEFAULT_STORE,
    Debug,
    Device,
    Json,
    Scheduler,
    Store,
    Workers,
    show,
    values,
)
from pipeline.configs import ClusterConfig, ExtractConfig


def extract(
    ctx: typer.Context,
    backbone: Annotated[
        str,
        typer.Option(
            help="dinov3, dinov2, siglip, openclip, gabor, timm:MODEL or open_clip:MODEL/TAG."
        ),
    ],
    dataset: Annotated[
        str, typer.Option(help="Layout of the images: mvtec, visa, folder or meta (meta.json).")
    ],
    root: Annotated[str, typer.Option(help="Folder that holds the images.")],
    name: Annotated[
        str | None, typer.Option(help="Name of the dataset in the store; the layout's otherwise.")
    ] = ExtractConfig.name,
    split: Annotated[str, typer.Option(help="test, train or all.")] = ExtractConfig.split,
    image_size: Annotated[
        int | None, typer.Option(help="Side of the square model input; the backbone's otherwise.")
    ] = ExtractConfig.image_size,
    weights: Annotated[
        str | None, typer.Option(help="Weights file (safetensors or torch); the hub's otherwise.")
    ] = ExtractConfig.weights,
    layer: Annotated[
        int | None, typer.Option(help="Block whose tokens are stored, from 0; the last otherwise.")
    ] = ExtractConfig.layer,
    final_norm: Annotated[
        bool | None, typer.Option(help="Pass tokens through the final norm; the backbone's choice.")
    ] = ExtractConfig.final_norm,
    resize_filter: Annotated[
        str | None, typer.Option(help="bilinear or bicubic; the backbone's choice otherwise.")
    ] = ExtractConfig.resize_filter,
    compute_dtype: Annotated[
        str | None,
        typer.Option(help="float32, bfloat16 or float16; float32 on a CPU, bfloat16 on a GPU."),
    ] = ExtractConfig.compute_dtype,
    exif: Annotated[
        bool, typer.Option(help="Rotate images as their EXIF tag says.")
    ] = ExtractConfig.exif,
    thumbnails: Annotated[
        bool, typer.Option(help="Keep a small JPEG of each image, so that reports show pictures.")
    ] = ExtractConfig.thumbnails,
    device: Device = ExtractConfig.device,
    batch_size: Annotated[int, typer.Option(help="Images a forward pass.")] = (
        ExtractConfig.batch_size
    ),
    decoders: Annotated[int, typer.Option(help="Processes that decode images ahead.")] = (
        ExtractConfig.decoders
    ),
    workers: Workers = ClusterConfig.workers,
    scheduler: Scheduler = ClusterConfig.scheduler,
    store: Store = DEFAULT_STORE,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write the patch tokens of a dataset into the store, once. Interrupted, it resumes."""
    from cache.store import open_store
    from pipeline.extraction.extract import extract as run

    cluster = ClusterConfig(workers=workers, scheduler=scheduler)
    done = run(open_store(store), ExtractConfig(**values(ctx, ExtractConfig)), cluster)
    result = {"key": done.key, "path": done.path, "images": done.images, "state": done.state}
    show(result, as_json, f"{done.path}: {done.images} images, {done.state}")

"""The `spg-pipe` command: parse, call one stage, print.

Results go to stdout, progress and remarks to stderr. Stages are imported when they run, so that
`spg-pipe --help` does not wait for torch.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any

import typer

from pipeline import __version__
from pipeline.configs import (
    ExtractConfig,
    FitGuidesConfig,
    FitSaeConfig,
    ScoreConfig,
    from_recipe,
)
from pipeline.progress import console
from spg_core.errors import ConfigError, SpgError

app = typer.Typer(
    name="spg-pipe",
    help="Extract frozen ViT patch tokens once; fit and score Sparse-Projected Guides from them.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Store = Annotated[
    str, typer.Option(envvar="SPG_STORE", help="Folder or URL (s3://bucket/prefix) of the store.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Recipe = Annotated[
    str, typer.Option(help="released or paper: where options that are not given take their values.")
]
Seed = Annotated[int, typer.Option(help="Seed of the start and of the order.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Key = Annotated[
    str | None, typer.Option(help="Key of the cache, or its start, where there are several.")
]

DEFAULT_STORE = "./spg-store"


def main() -> None:
    """Run the command; exit 0, 1 for a failure, 2 for wrong usage."""
    debug = "--debug" in sys.argv
    try:
        app()
    except ConfigError as error:
        _fail(error, 2, debug)
    except SpgError as error:
        _fail(error, 1, debug)
    except KeyboardInterrupt:
        console.print("interrupted; whole shards and checkpoints are kept, run it again to go on")
        sys.exit(1)


def _fail(error: SpgError, code: int, debug: bool) -> None:
    if debug:
        raise error
    console.print(f"error: {error}", markup=False, highlight=False, style="red")
    sys.exit(code)


def version(value: bool) -> None:
    """Print the version and stop."""
    if value:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def spg_pipe(
    _version: Annotated[
        bool, typer.Option("--version", callback=version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Extract frozen ViT patch tokens once; fit and score Sparse-Projected Guides from them."""


@app.command()
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
    store: Store = DEFAULT_STORE,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write the patch tokens of a dataset into the store, once. Interrupted, it resumes."""
    from cache.objects import open_store
    from pipeline.extract import extract as run

    done = run(open_store(store), ExtractConfig(**_values(ctx, ExtractConfig)))
    result = {"key": done.key, "path": done.path, "images": done.images, "state": done.state}
    _print(result, as_json, f"{done.path}: {done.images} images, {done.state}")


@app.command()
def fit_sae(
    ctx: typer.Context,
    dataset: Annotated[str, typer.Option(help="Auxiliary dataset, by its name in the store.")],
    backbone: Annotated[str, typer.Option(help="Backbone whose tokens are used.")],
    key: Key = None,
    recipe: Recipe = FitSaeConfig.recipe,
    width: Annotated[int, typer.Option(help="Atoms in the dictionary, C.")] = FitSaeConfig.width,
    k: Annotated[int, typer.Option(help="Latents a token may use.")] = FitSaeConfig.k,
    epochs: Annotated[int, typer.Option(help="Passes over the tokens.")] = FitSaeConfig.epochs,
    seed: Seed = FitSaeConfig.seed,
    order: Annotated[
        str, typer.Option(help="images (whole images a step) or tokens (near-iid).")
    ] = FitSaeConfig.order,
    images_per_step: Annotated[
        int, typer.Option(help="Images a step, or as many tokens as they have.")
    ] = FitSaeConfig.images_per_step,
    sparsifier: Annotated[
        str, typer.Option(help="topk, or relu with an l1 penalty.")
    ] = FitSaeConfig.sparsifier,
    l1: Annotated[
        float, typer.Option(help="Weight of the l1 penalty, for sparsifier relu.")
    ] = FitSaeConfig.l1,
    loss: Annotated[
        str, typer.Option(help="mean or sum of squared errors over a token's dimensions.")
    ] = FitSaeConfig.loss,
    auxk: Annotated[
        int, typer.Option(help="Dead atoms that reconstruct the residual.")
    ] = FitSaeConfig.auxk,
    auxk_weight: Annotated[
        float, typer.Option(help="Weight of the AuxK loss; 0 leaves it out.")
    ] = FitSaeConfig.auxk_weight,
    dead_after: Annotated[
        int, typer.Option(help="Tokens without activation after which an atom is dead.")
    ] = FitSaeConfig.dead_after,
    dead_threshold: Annotated[
        float, typer.Option(help="Smallest activation that counts as alive.")
    ] = FitSaeConfig.dead_threshold,
    unit_norm: Annotated[
        bool, typer.Option(help="Keep atoms at length 1.")
    ] = FitSaeConfig.unit_norm,
    tied_init: Annotated[
        bool, typer.Option(help="Start the encoder as the dictionary.")
    ] = FitSaeConfig.tied_init,
    clamp: Annotated[
        bool, typer.Option(help="Clamp latents at 0 after TopK.")
    ] = FitSaeConfig.clamp,
    learning_rate: Annotated[
        float, typer.Option(help="Adam's step size.")
    ] = FitSaeConfig.learning_rate,
    beta1: Annotated[float, typer.Option(help="Adam's first decay.")] = FitSaeConfig.beta1,
    beta2: Annotated[float, typer.Option(help="Adam's second decay.")] = FitSaeConfig.beta2,
    device: Device = FitSaeConfig.device,
    store: Store = DEFAULT_STORE,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Train a sparse autoencoder on cached tokens. Killed, it resumes from its last checkpoint."""
    from cache.objects import open_store
    from pipeline.fit_sae import fit_sae as run
    from pipeline.inputs import open_dataset

    config = from_recipe(FitSaeConfig, recipe, _given(ctx, FitSaeConfig))
    objects = open_store(store)
    made = run(objects, open_dataset(objects, dataset, backbone, key), config)
    quality = made.document["quality"]
    text = (
        f"{made.id}: FVU {quality['fvu']:.4f}, L0 {quality['l0']:.1f}, "
        f"{quality['dead_atoms']} of {config.width} atoms dead\n{made.path}"
    )
    _print({"id": made.id, "path": made.path, "quality": quality}, as_json, text)


@app.command()
def fit_guides(
    ctx: typer.Context,
    sae: Annotated[str, typer.Option(help="SAE: id, start of an id, path, or latest.")],
    recipe: Recipe = FitGuidesConfig.recipe,
    epochs: Annotated[int, typer.Option(help="Passes over the images.")] = FitGuidesConfig.epochs,
    seed: Seed = FitGuidesConfig.seed,
    images_per_step: Annotated[
        int, typer.Option(help="Images a step.")
    ] = FitGuidesConfig.images_per_step,
    temperature: Annotated[
        float, typer.Option(help="T of the softmax over cosines.")
    ] = FitGuidesConfig.temperature,
    sparsity: Annotated[
        str, typer.Option(help="relu with an l1 penalty, or topk.")
    ] = FitGuidesConfig.sparsity,
    topk_guides: Annotated[
        int, typer.Option(help="Coefficients a guide keeps, for sparsity topk.")
    ] = FitGuidesConfig.topk_guides,
    beta: Annotated[
        float, typer.Option(help="Weight of each guide's l1 norm, for sparsity relu.")
    ] = FitGuidesConfig.beta,
    dice: Annotated[
        str, typer.Option(help="both (Dice of p_A and p_N) or anomaly (of p_A alone).")
    ] = FitGuidesConfig.dice,
    learning_rate: Annotated[
        float, typer.Option(help="Adam's step size.")
    ] = FitGuidesConfig.learning_rate,
    beta1: Annotated[float, typer.Option(help="Adam's first decay.")] = FitGuidesConfig.beta1,
    beta2: Annotated[float, typer.Option(help="Adam's second decay.")] = FitGuidesConfig.beta2,
    ema: Annotated[
        float, typer.Option(help="Decay of the averaged coefficients.")
    ] = FitGuidesConfig.ema,
    mask_dead: Annotated[
        bool, typer.Option(help="Hold atoms that never fired at 0.")
    ] = FitGuidesConfig.mask_dead,
    device: Device = FitGuidesConfig.device,
    store: Store = DEFAULT_STORE,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Learn a normal and an anomalous guide over an SAE, on the dataset the SAE was fitted on."""
    from cache.objects import open_store
    from pipeline.fit_guides import fit_guides as run

    config = from_recipe(FitGuidesConfig, recipe, _given(ctx, FitGuidesConfig))
    made = run(open_store(store), sae, config)
    _print({"id": made.id, "path": made.path}, as_json, _guides_text(made.document, made.path))


@app.command()
def score(
    ctx: typer.Context,
    guides: Annotated[str, typer.Option(help="Guides: id, start of an id, path, or latest.")],
    dataset: Annotated[str, typer.Option(help="Target dataset, by its name in the store.")],
    key: Key = None,
    recipe: Annotated[
        str | None, typer.Option(help="released or paper; the guides' recipe otherwise.")
    ] = None,
    tau: Annotated[
        float, typer.Option(help="Temperature of the image score: 0 is the maximum, inf the mean.")
    ] = ScoreConfig.tau,
    sigma: Annotated[
        float, typer.Option(help="Gaussian on the map, in pixels; 0 leaves it out.")
    ] = ScoreConfig.sigma,
    coefficients: Annotated[
        str, typer.Option(help="ema or raw: which of the fitted coefficients.")
    ] = ScoreConfig.coefficients,
    aupro: Annotated[
        str, typer.Option(help="exact, or clip200 (the released definition).")
    ] = ScoreConfig.aupro,
    save_maps: Annotated[bool, typer.Option("--save-maps", help="Keep the maps, maps.zarr.")] = (
        False
    ),
    report: Annotated[bool, typer.Option("--report", help="Write report.html.")] = False,
    device: Device = ScoreConfig.device,
    store: Store = DEFAULT_STORE,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Score a cached dataset with fitted guides: maps, image scores, metrics."""
    from cache.objects import open_store
    from pipeline.score import score as run
    from pipeline.tables import metrics_table

    objects = open_store(store)
    config = from_recipe(
        ScoreConfig, recipe or _recipe_of(objects, guides), _given(ctx, ScoreConfig)
    )
    made = run(objects, guides, dataset, config, key=key, save_maps=save_maps, report=report)
    if as_json:
        _print({"id": made.id, "path": made.path, "metrics": made.document}, True, "")
    else:
        typer.echo(metrics_table(made.document))
        typer.echo(f"{made.path}/report.html" if report else made.path)


@app.command()
def demo(
    folder: Annotated[
        str, typer.Option(help="Folder for the sample, the store and the report.")
    ] = "spg-demo",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Run everything above on a generated sample, offline, in about two minutes on two cores."""
    from pipeline.demo import demo as run
    from pipeline.tables import metrics_table

    made = run(folder)
    if as_json:
        _print({"id": made.id, "path": made.path, "metrics": made.document}, True, "")
    else:
        typer.echo(metrics_table(made.document))
        typer.echo(f"open {made.path}/report.html")


def _recipe_of(objects: Any, guides: str) -> str:
    from pipeline.artifacts import load_artifact

    return str(load_artifact(objects, "guides", guides).document["config"]["recipe"])


def _values(ctx: typer.Context, stage: Any) -> dict[str, Any]:
    """Give the parameters of the running command that are fields of a stage's config."""
    names = {field.name for field in fields(stage)}
    return {name: value for name, value in ctx.params.items() if name in names}


def _given(ctx: typer.Context, stage: Any) -> dict[str, Any]:
    """Give those that the user typed, which win over the recipe."""
    given = {}
    for name, value in _values(ctx, stage).items():
        source = ctx.get_parameter_source(name)
        if name != "recipe" and source is not None and source.name != "DEFAULT":
            given[name] = value
    return given


def _print(result: Mapping[str, Any], as_json: bool, text: str) -> None:
    typer.echo(json.dumps(result) if as_json else text)


def _guides_text(document: Mapping[str, Any], path: str) -> str:
    lines = [f"{document['id']}"]
    for kind, label in (("raw", "last step"), ("ema", "EMA")):
        nnz, l1 = document["sparsity"][kind]["nnz"], document["sparsity"][kind]["l1"]
        lines.append(
            f"  {label:<9} non-zero {nnz[0]:.0f} + {nnz[1]:.0f}, l1 {l1[0]:.2f} + {l1[1]:.2f}"
            "  (normal + anomalous)"
        )
    share = document["training"]["ema_start_share"]
    if share > 0.01:
        lines.append(
            f"  the EMA still holds {share:.0%} of its start after "
            f"{document['training']['steps']} steps, so it stays dense"
        )
    return "\n".join([*lines, path])


if __name__ == "__main__":
    main()

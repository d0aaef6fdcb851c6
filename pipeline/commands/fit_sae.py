"""`spg-pipe fit-sae`."""

from typing import Annotated

import typer

from pipeline.commands.options import (
    DEFAULT_STORE,
    Debug,
    Device,
    Json,
    Key,
    Recipe,
    Seed,
    Store,
    given,
    show,
)
from pipeline.configs import FitSaeConfig
from pipeline.recipes import from_recipe


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
    from cache.store import open_store
    from pipeline.fitting.sae import fit_sae as run
    from pipeline.inputs import open_dataset

    config = from_recipe(FitSaeConfig, recipe, given(ctx, FitSaeConfig))
    objects = open_store(store)
    made = run(objects, open_dataset(objects, dataset, backbone, key), config)
    quality = made.document["quality"]
    text = (
        f"{made.id}: FVU {quality['fvu']:.4f}, L0 {quality['l0']:.1f}, "
        f"{quality['dead_atoms']} of {config.width} atoms dead\n{made.path}"
    )
    show({"id": made.id, "path": made.path, "quality": quality}, as_json, text)

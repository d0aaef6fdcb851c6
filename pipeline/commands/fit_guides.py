"""`spg-pipe fit-guides`."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from pipeline.commands.options import (
    DEFAULT_STORE,
    Debug,
    Device,
    Json,
    Recipe,
    Seed,
    Store,
    given,
    show,
)
from pipeline.configs import FitGuidesConfig
from pipeline.recipes import from_recipe


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
    dictionary: Annotated[
        str, typer.Option(help="sae, or a control: pca, random, none (free vectors).")
    ] = FitGuidesConfig.dictionary,
    device: Device = FitGuidesConfig.device,
    store: Store = DEFAULT_STORE,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Learn a normal and an anomalous guide over an SAE, on the dataset the SAE was fitted on."""
    from cache.store import open_store
    from pipeline.fitting.guides import fit_guides as run

    config = from_recipe(FitGuidesConfig, recipe, given(ctx, FitGuidesConfig))
    made = run(open_store(store), sae, config)
    show({"id": made.id, "path": made.path}, as_json, _guides_text(made.document, made.path))


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

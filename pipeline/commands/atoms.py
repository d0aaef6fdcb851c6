"""`spg-pipe atoms`."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from pipeline.commands.options import DEFAULT_STORE, Debug, Device, Json, Store, show, values
from pipeline.configs import AtomsConfig


def atoms(
    ctx: typer.Context,
    guides: Annotated[str, typer.Option(help="Guides: id, start of an id, path, or latest.")],
    guide: Annotated[str, typer.Option(help="anomaly, normal or both.")] = AtomsConfig.guide,
    top: Annotated[
        int, typer.Option(help="Atoms a guide, those with the largest coefficients.")
    ] = AtomsConfig.top,
    patches: Annotated[
        int, typer.Option(help="Patches an atom, those with the largest activations.")
    ] = AtomsConfig.patches,
    one_per_image: Annotated[
        bool, typer.Option(help="Take at most one patch of an image for an atom.")
    ] = AtomsConfig.one_per_image,
    coefficients: Annotated[
        str, typer.Option(help="ema or raw: which of the fitted coefficients rank the atoms.")
    ] = AtomsConfig.coefficients,
    out: Annotated[
        str | None, typer.Option(help="Folder or URL of the files; guides/ID/atoms otherwise.")
    ] = None,
    device: Device = AtomsConfig.device,
    store: Store = DEFAULT_STORE,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show the patches that the strongest atoms of fitted guides respond to: sheets and a table."""
    from cache.store import open_store
    from pipeline.atoms.files import write_atoms

    config = AtomsConfig(**values(ctx, AtomsConfig))
    made = write_atoms(open_store(store), guides, config, out)
    show(made, as_json, _atoms_text(made))


def _atoms_text(made: Mapping[str, Any]) -> str:
    lines = []
    for one in made["atoms"]:
        spread = sorted(one["category_spread"].items(), key=lambda pair: -pair[1])
        shares = ", ".join(f"{name} {share:.0%}" for name, share in spread[:3])
        lines.append(
            f"{one['guide']:<8} atom {one['atom']:>5}  coefficient {one['coefficient']:.4f}  "
            f"{shares or 'never active'}"
        )
    return "\n".join([*lines, *(f"{made['path']}/{name}" for name in made["files"])])

"""`spg-pipe atoms`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipeline.commands.from_config import alone, from_config
from pipeline.commands.show import show
from pipeline.configs import AtomsConfig, AtomsSource

if TYPE_CHECKING:
    from cache.store import AnyStore


def atoms(store: "AnyStore", source: AtomsSource, config: AtomsConfig) -> dict[str, Any]:
    """Show the patches that the strongest atoms of fitted guides respond to: sheets and a table."""
    from cache.store import open_store
    from pipeline.atoms.files import write_atoms

    return write_atoms(open_store(store), source.guides, config, source.out)


def show_atoms(made: Mapping[str, Any], as_json: bool) -> None:
    """Print an atom a line, then the files."""
    lines = []
    for one in made["atoms"]:
        spread = sorted(one["category_spread"].items(), key=lambda pair: -pair[1])
        shares = ", ".join(f"{name} {share:.0%}" for name, share in spread[:3])
        lines.append(
            f"{one['guide']:<8} atom {one['atom']:>5}  coefficient {one['coefficient']:.4f}  "
            f"{shares or 'never active'}"
        )
    files = [f"{made['path']}/{name}" for name in made["files"]]
    show(made, as_json, "\n".join([*lines, *files]))


app = alone("atoms", from_config(atoms, show_atoms))

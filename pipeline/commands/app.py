"""All commands of `spg-pipe` under one roof; `pipeline.cli` runs it.

A command imports its stage when it runs, so that `spg-pipe --help` does not wait for torch.
"""

from collections import UserDict
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from pipeline import __version__
from pipeline.commands.style import STYLE
from pipeline.machine.system_errors import explain
from pipeline.terminal.stopping import exit_code

if TYPE_CHECKING:
    from typer._click.core import Command, Context
    from typer._click.formatting import HelpFormatter

COMMANDS = {
    "extract": "Write the patch tokens of a dataset, once.",
    "fit-sae": "Train a sparse autoencoder on cached tokens.",
    "fit-guides": "Learn two guides over an SAE.",
    "fit-memory": "Keep tokens of a few normal images.",
    "combine": "Let several detectors make one map.",
    "score": "Maps, image scores and metrics of a dataset.",
    "sweep": "Fit and score a grid in one pass.",
    "table": "Print scores beside the published ones.",
    "reproduce": "The paper's table 1 and its figures.",
    "atoms": "Show what the strongest atoms stand for.",
    "calibrate": "Choose the threshold of predict's verdict.",
    "predict": "Judge unseen images.",
    "export": "Write the detector as one ONNX file, or an SAE for sae-lens.",
    "demo": "All of it on a generated sample, offline.",
    "ls": "List SAEs, guides and scores.",
    "show": "Show one, and what it stands on.",
    "rm": "Remove some, a dry run first.",
    "name": "Call one by a name.",
    "push": "Copy one to another store, with all it stands on.",
    "pull": "Copy one from another store, likewise.",
    "cache": "Look at, check, copy and tidy the token caches.",
}
"""Each is a function of stages, and one that shows what it gives; `cache` has some of its own."""
_ROOMS = {
    **dict.fromkeys(("calibrate", "predict", "export"), ("prediction.stages", "shown")),
    **dict.fromkeys(("ls", "show", "rm", "name", "push", "pull"), ("registry.stages", "registry")),
}
"""Where the two are, below `pipeline` and `commands`; in `stages` and `shown` otherwise."""


@contextmanager
def _our_way() -> Iterator[None]:
    """Take signals and errors of the system before typer does, which says them in no words."""
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(exit_code()) from None
    except OSError as error:
        raise explain(error) from error


def _app_of(name: str) -> typer.Typer:
    """Make a command of the stage and of the words of its name."""
    from pipeline.commands.from_config import from_config

    stages, shown = _ROOMS.get(name, ("stages", "shown"))
    stage = import_module(f"pipeline.{stages}")
    words = import_module(f"pipeline.commands.{shown}")
    place = name.replace("-", "_")
    made = typer.Typer(add_completion=False, **STYLE)
    made.command(name)(from_config(getattr(stage, place), getattr(words, place)))
    return made


class _OnDemand(UserDict[str, "Command"]):
    """All commands by name, each made when it is asked for, so that help does not wait for it."""

    def __missing__(self, name: str) -> "Command":
        if name not in COMMANDS:
            raise KeyError(name)
        if name == "cache":
            from pipeline.commands.cache import app as made
        else:
            made = _app_of(name)
        self.data[name] = typer.main.get_command(made)
        return self.data[name]

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)

    def __contains__(self, name: object) -> bool:
        return name in COMMANDS


class _Ours(TyperGroup):
    """The group of all commands."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.commands = _OnDemand()

    def list_commands(self, ctx: "Context") -> list[str]:
        """Give the names."""
        return list(COMMANDS)

    def format_commands(self, ctx: "Context", formatter: "HelpFormatter") -> None:
        """List the commands in the help."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def make_context(
        self, info_name: str | None, args: list[str], parent: "Context | None" = None, **more: Any
    ) -> "Context":
        """Read the words, and print help and version where they ask for it."""
        with _our_way():
            return super().make_context(info_name, args, parent, **more)

    def invoke(self, ctx: "Context") -> object:
        """Run a command."""
        with _our_way():
            return super().invoke(ctx)


app = typer.Typer(name="spg-pipe", cls=_Ours, **STYLE)


def _version(value: bool) -> None:
    if value:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def spg_pipe(
    version: Annotated[
        bool,
        typer.Option(
            "--version", "-V", callback=_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Extract frozen ViT patch tokens once; fit and score Sparse-Projected Guides from them."""

"""All commands of `spg-pipe` under one roof; `pipeline.cli` runs it.

A command imports its stage when it runs, so that `spg-pipe --help` does not wait for torch.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from pipeline import __version__
from pipeline.cli import INTERRUPTED, explain
from pipeline.commands.atoms import atoms, show_atoms
from pipeline.commands.cache import app as cache_app
from pipeline.commands.calibrate import calibrate, show_threshold
from pipeline.commands.demo import demo, show_demo
from pipeline.commands.export import export, show_export
from pipeline.commands.extract import extract, show_extraction
from pipeline.commands.fit_guides import fit_guides, show_guides
from pipeline.commands.fit_sae import fit_sae, show_sae
from pipeline.commands.from_config import JSON_LINES, Show, from_config
from pipeline.commands.predict import predict, show_predictions
from pipeline.commands.reproduce import reproduce, show_reproduced
from pipeline.commands.score import score, show_scores
from pipeline.commands.sweep import show_sweep, sweep
from pipeline.commands.table import show_table, table


@contextmanager
def _our_way() -> Iterator[None]:
    """Take Ctrl-C and errors of the system before typer does, which says them in no words."""
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except OSError as error:
        raise explain(error) from error


class _Ours(TyperGroup):
    """The group of all commands."""

    def make_context(self, *arguments: Any, **more: Any) -> Any:
        """Read the words, and print help and version where they ask for it."""
        with _our_way():
            return super().make_context(*arguments, **more)

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        with _our_way():
            return super().invoke(ctx)


app = typer.Typer(
    name="spg-pipe",
    cls=_Ours,
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _command(short_help: str, function: Callable[..., Any], show: Show, **words: str) -> None:
    app.command(short_help=short_help)(from_config(function, show, **words))


_command("Write the patch tokens of a dataset, once.", extract, show_extraction)
_command("Train a sparse autoencoder on cached tokens.", fit_sae, show_sae)
_command("Learn two guides over an SAE.", fit_guides, show_guides)
_command("Maps, image scores and metrics of a dataset.", score, show_scores)
_command("Fit and score a grid in one pass.", sweep, show_sweep)
_command("Print scores beside the published ones.", table, show_table)
_command("The paper's table 1 and its figures.", reproduce, show_reproduced)
_command("Show what the strongest atoms stand for.", atoms, show_atoms)
_command("Choose the threshold of predict's verdict.", calibrate, show_threshold)
_command("Judge unseen images.", predict, show_predictions, json_help=JSON_LINES)
_command("Write the detector as one ONNX file.", export, show_export)
app.add_typer(cache_app)
_command("All of it on a generated sample, offline.", demo, show_demo)


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

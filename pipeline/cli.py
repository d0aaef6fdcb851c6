"""The `spg-pipe` command: register the commands, run one, turn errors into one line.

Results go to stdout, progress and remarks to stderr. A command imports its stage when it runs, so
that `spg-pipe --help` does not wait for torch.
"""

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from pipeline import __version__
from pipeline.commands.atoms import atoms
from pipeline.commands.cache import app as cache_app
from pipeline.commands.calibrate import calibrate
from pipeline.commands.demo import demo
from pipeline.commands.export import export
from pipeline.commands.extract import extract
from pipeline.commands.fit_guides import fit_guides
from pipeline.commands.fit_sae import fit_sae
from pipeline.commands.predict import predict
from pipeline.commands.reproduce import reproduce
from pipeline.commands.score import score
from pipeline.commands.sweep import sweep
from pipeline.commands.table import table
from pipeline.progress import console
from spg_core.errors import ConfigError, SpgError


class _Interruptible(TyperGroup):
    """Explain Ctrl-C, which typer itself turns into an exit without a word."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            console.print(
                "interrupted; whole shards and the last checkpoint (one a minute) are kept, "
                "run it again to go on"
            )
            raise typer.Exit(1) from None


app = typer.Typer(
    name="spg-pipe",
    cls=_Interruptible,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(short_help="Write the patch tokens of a dataset, once.")(extract)
app.command(short_help="Train a sparse autoencoder on cached tokens.")(fit_sae)
app.command(short_help="Learn two guides over an SAE.")(fit_guides)
app.command(short_help="Maps, image scores and metrics of a dataset.")(score)
app.command(short_help="Fit and score a grid in one pass.")(sweep)
app.command(short_help="Print scores beside the published ones.")(table)
app.command(short_help="The paper's table 1 and its figures.")(reproduce)
app.command(short_help="Show what the strongest atoms stand for.")(atoms)
app.command(short_help="Choose the threshold of predict's verdict.")(calibrate)
app.command(short_help="Judge unseen images.")(predict)
app.command(short_help="Write the detector as one ONNX file.")(export)
app.add_typer(cache_app)
app.command(short_help="All of it on a generated sample, offline.")(demo)


def main() -> None:
    """Run the command; exit 0, 1 for a failure, 2 for wrong usage."""
    debug = "--debug" in sys.argv
    try:
        app()
    except ConfigError as error:
        _fail(error, 2, debug)
    except SpgError as error:
        _fail(error, 1, debug)


def _fail(error: SpgError, code: int, debug: bool) -> None:
    if debug:
        raise error
    console.print(f"error: {error}", markup=False, highlight=False, style="red")
    sys.exit(code)


def _version(value: bool) -> None:
    if value:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def spg_pipe(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Extract frozen ViT patch tokens once; fit and score Sparse-Projected Guides from them."""


if __name__ == "__main__":
    main()

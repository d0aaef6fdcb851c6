"""The `spg-pipe` command: register the commands, run one, turn errors into one line.

Results go to stdout, progress and remarks to stderr. A command imports its stage when it runs, so
that `spg-pipe --help` does not wait for torch.
"""

import sys
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from pipeline import __version__
from pipeline.commands.atoms import atoms
from pipeline.commands.cache import app as cache_app
from pipeline.commands.calibrate import calibrate
from pipeline.commands.demo import demo
from pipeline.commands.export import export
from pipeline.commands.extract import extract, show_extraction
from pipeline.commands.fit_guides import fit_guides, show_guides
from pipeline.commands.fit_sae import fit_sae, show_sae
from pipeline.commands.from_config import from_config
from pipeline.commands.predict import predict
from pipeline.commands.reproduce import reproduce
from pipeline.commands.score import score
from pipeline.commands.sweep import sweep
from pipeline.commands.table import table
from spg_core.errors import ConfigError, SpgError


class _Interruptible(TyperGroup):
    """Explain Ctrl-C, which typer itself turns into an exit without a word."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            from pipeline.progress import console

            console.print(
                "interrupted; whole shards and the last checkpoint (one a minute) are kept, "
                "run it again to go on"
            )
            raise typer.Exit(1) from None


app = typer.Typer(
    name="spg-pipe",
    cls=_Interruptible,
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(short_help="Write the patch tokens of a dataset, once.")(
    from_config(extract, show_extraction)
)
app.command(short_help="Train a sparse autoencoder on cached tokens.")(
    from_config(fit_sae, show_sae)
)
app.command(short_help="Learn two guides over an SAE.")(from_config(fit_guides, show_guides))
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


_UsageError: Any = typer.BadParameter.__base__


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; exit 0, 1 for a failure, 2 for wrong usage."""
    debug = "--debug" in (sys.argv if arguments is None else arguments)
    try:
        sys.exit(app(arguments, standalone_mode=False))
    except _UsageError as error:
        _explain(error)
    except ConfigError as error:
        _fail(error, 2, debug)
    except SpgError as error:
        _fail(error, 1, debug)


def _explain(error: Any) -> NoReturn:
    """Say what is wrong with the words typed in one line, or show the help that was asked for."""
    message = error.format_message()
    if "\n" in message:
        error.show()
    else:
        where = error.ctx.command_path if error.ctx else "spg-pipe"
        _say(f"error: {message[:1].lower()}{message[1:].rstrip('.?')}; see {where} -h")
    sys.exit(error.exit_code)


def _say(text: str) -> None:
    from pipeline.progress import console  # rich takes as long to import as all the rest

    console.print(text, markup=False, highlight=False, style="red")


def _fail(error: SpgError, code: int, debug: bool) -> None:
    if debug:
        raise error
    _say(f"error: {error}")
    sys.exit(code)


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


if __name__ == "__main__":
    main()

"""`spg-pipe demo`."""

from typing import Annotated

import typer

from pipeline.commands.options import Debug, Json, show


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
        show({"id": made.id, "path": made.path, "metrics": made.document}, True, "")
    else:
        typer.echo(metrics_table(made.document))
        typer.echo(f"open {made.path}/report.html")

"""What commands share: options, the values a user gave, and printing."""

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any

import typer

from pipeline.printable import printable

DEFAULT_STORE = "./spg-store"

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

Workers = Annotated[
    int, typer.Option(help="Processes of this machine that share the work; 0 uses this one alone.")
]
Scheduler = Annotated[
    str | None,
    typer.Option(help="Address of a running Dask scheduler whose workers do it, tcp://HOST:8786."),
]


def values(ctx: typer.Context, stage: Any) -> dict[str, Any]:
    """Give the parameters of the running command that are fields of a stage's config."""
    names = {field.name for field in fields(stage)}
    return {name: value for name, value in ctx.params.items() if name in names}


def given(ctx: typer.Context, stage: Any) -> dict[str, Any]:
    """Give those that the user typed, which win over the recipe."""
    typed = {}
    for name, value in values(ctx, stage).items():
        source = ctx.get_parameter_source(name)
        if name != "recipe" and source is not None and source.name != "DEFAULT":
            typed[name] = value
    return typed


def show(result: Mapping[str, Any], as_json: bool, text: str) -> None:
    """Print a result on stdout: one JSON object, or text for people."""
    typer.echo(json.dumps(result) if as_json else printable(text))

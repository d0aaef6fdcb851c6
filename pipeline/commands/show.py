"""Print what a command made."""

import json
from collections.abc import Mapping
from typing import Any

import typer

from pipeline.printable import printable


def show(result: Mapping[str, Any], as_json: bool, text: str) -> None:
    """Print a result on stdout: one JSON object, or text for people."""
    typer.echo(json.dumps(result) if as_json else printable(text))

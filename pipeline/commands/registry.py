"""What `ls`, `show`, `rm`, `name`, `push` and `pull` print: one JSON object, or text."""

from dataclasses import asdict
from typing import TYPE_CHECKING

from pipeline.commands.shown import show as _print

if TYPE_CHECKING:
    from pipeline.registry.answers import Holdings, Naming, Removal, Shown, Transfer


def ls(found: "Holdings", as_json: bool) -> None:
    """Print the forest."""
    from pipeline.registry.tables import holdings_text

    _print(asdict(found), as_json, "" if as_json else holdings_text(found))


def show(found: "Shown", as_json: bool) -> None:
    """Print what is known."""
    from pipeline.registry.tables import shown_text

    told = asdict(found)
    del told["text"]
    _print(told, as_json, shown_text(found))


def rm(found: "Removal", as_json: bool) -> None:
    """Print what goes."""
    from pipeline.registry.tables import removal_text

    _print(asdict(found), as_json, removal_text(found))


def name(found: "Naming", as_json: bool) -> None:
    """Print what the name means."""
    meaning = f"means {found.artifact}" if found.artifact else "means nothing any more"
    _print(asdict(found), as_json, f"{found.name} {meaning}")


def push(made: "Transfer", as_json: bool) -> None:
    """Print what is there now."""
    from pipeline.registry.tables import transfer_text

    _print(asdict(made), as_json, transfer_text(made))


pull = push

"""How all commands of `spg-pipe` take help and errors: plainly."""

from typing import TypedDict


class _Style(TypedDict):
    rich_markup_mode: None
    pretty_exceptions_enable: bool
    context_settings: dict[str, list[str]]
    no_args_is_help: bool


STYLE: _Style = {
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
    "context_settings": {"help_option_names": ["-h", "--help"]},
    "no_args_is_help": True,
}

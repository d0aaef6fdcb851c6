"""Write docs/cli.md, the command reference, from the commands themselves.

python docs/reference.py            write it
python docs/reference.py --check    fail where it is not what the commands say
"""

import sys
from pathlib import Path
from typing import Any

import typer

from pipeline.cli import app

PAGE = Path(__file__).with_name("cli.md")
HEAD = """# Commands

Written by `make docs` from the commands themselves; `make check` fails where it is out of date.
"""


def reference() -> str:
    """Give the page: every command with its first lines, arguments and options."""
    return "\n".join([HEAD, *_sections(typer.main.get_command(app), "spg-pipe")]).rstrip() + "\n"


def _sections(command: Any, path: str) -> list[str]:
    children = getattr(command, "commands", {})
    if children:
        return [
            line for name, child in children.items() for line in _sections(child, f"{path} {name}")
        ]
    lines = [f"## {path}", "", " ".join((command.help or "").split()), ""]
    lines += ["| option | default | meaning |", "|---|---|---|"]
    for parameter in command.params:
        if parameter.name == "help":
            continue
        names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
        if parameter.param_type_name == "argument":
            names = f"`{parameter.name}`"
        elif "|" in (parameter.metavar or ""):
            names += f" {parameter.metavar}".replace("|", "\\|")
        default = "required" if parameter.required else _default(parameter.default)
        text = " ".join((parameter.help or "").split()).replace("|", "\\|")
        lines.append(f"| {names} | {default} | {text} |")
    return [*lines, ""]


def _default(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case _:
            return f"`{value}`"


def main() -> None:
    """Write or check the page."""
    text = reference()
    if "--check" not in sys.argv:
        PAGE.write_text(text)
    elif PAGE.read_text() != text:
        sys.exit("docs/cli.md is not what the commands say; run `make docs`")


if __name__ == "__main__":
    main()

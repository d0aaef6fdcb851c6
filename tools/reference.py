"""Write the generated pages of docs/: cli.md from the commands, api.md from `spg_pipe`, formats.md
from the tests' rows.

    python tools/reference.py            write them
    python tools/reference.py --check    fail where they are out of date
"""

import sys
from pathlib import Path
from typing import Any

import typer

# The rows stand beside the tests, which are found from the checkout's root.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.cli import app
from tools.api_page import api_page
from tools.formats import formats

DOCS = Path(__file__).resolve().parents[1] / "docs"
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


PAGES = {"api.md": api_page, "cli.md": reference, "formats.md": formats}


def main() -> None:
    """Write or check the pages."""
    for name, write in PAGES.items():
        page, text = DOCS / name, write()
        if "--check" not in sys.argv:
            page.write_text(text)
        elif not page.exists() or page.read_text() != text:
            sys.exit(f"docs/{name} is out of date; run `make docs`")


if __name__ == "__main__":
    main()

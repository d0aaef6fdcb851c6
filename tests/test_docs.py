"""What the pages show is true: code blocks run, commands and their options exist."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import typer

from pipeline.cli import app

ROOT = Path(__file__).resolve().parents[1]
OF_DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *OF_DOCS]


def commands(page: Path) -> list[list[str]]:
    """Give every `$ [VARIABLE=...] spg-pipe ...` line and every `spg-pipe ...` in backticks."""
    text = page.read_text()
    lines = re.findall(r"^\$ (?:\w+=\S+ )*spg-pipe (.*?)(?:\s+#.*)?$", text, re.MULTILINE)
    lines += re.findall(r"`spg-pipe ([^`]*)`", text)
    return [shlex.split(line) for line in lines if line and line[0].isalpha()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_on_a_page_exists_with_its_options(page):
    for words in commands(page):
        command = typer.main.get_command(app)
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        assert not getattr(command, "commands", None) or not words, (page.name, words)
        known = {
            name
            for parameter in command.params
            for name in (*parameter.opts, *parameter.secondary_opts)
        } | {"--help", "-h", "--version"}
        for word in words:
            if word.startswith("--"):
                assert word.split("=")[0] in known, (page.name, command.name, word)


def test_the_python_of_the_readme_runs(small_store):
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    code = block.replace('"spg-demo/store"', repr(small_store.url)).replace("demo-target", "target")
    names: dict[str, object] = {}

    exec(compile(code, "README.md", "exec"), names)

    assert names["maps"].shape == (8, 96, 96)  # type: ignore[attr-defined]
    assert names["scores"].shape == (8,)  # type: ignore[attr-defined]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_index_names_every_page():
    index = (ROOT / "docs" / "index.md").read_text()

    for page in OF_DOCS:
        assert page.name == "index.md" or f"]({page.name})" in index, page.name


def test_make_help_names_every_target():
    makefile = (ROOT / "Makefile").read_text()
    made = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)

    for target in re.findall(r"^([a-z]+):", makefile, re.MULTILINE):
        assert re.search(rf"^{target} +\w", made.stdout, re.MULTILINE), target

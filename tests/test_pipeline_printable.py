"""Text for people cannot command the terminal, whoever named what it speaks of."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.tables.of_metrics import Row, Table, to_text
from pipeline.terminal.printable import printable, printable_line
from pipeline.terminal.progress import bar, say

ROOT = Path(__file__).resolve().parents[1]
EVIL = "\x1b[2J\x1b]0;owned\x07\u202e\udcff[/red]:x:\r"
ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()))


def test_what_a_terminal_obeys_is_escaped_and_all_else_stays() -> None:
    assert printable("a\x1b[31mb\r\n\u202ec\udcff\x9b") == ("a\\x1b[31mb\\r\n\\u202ec\\udcff\\x9b")
    assert printable_line("a\nb") == "a\\nb"
    for harmless in ("nut/test/001.png", "螺母 裂纹", "mañana", "─━│", "naïve.png", "🔩"):
        assert printable(harmless) == harmless


@given(ANY_TEXT)
def test_any_text_can_be_printed_and_stays_on_its_lines(text: str) -> None:
    shown = printable(text)

    assert shown.encode("utf-8").decode() == shown
    assert all(char.isprintable() or char == "\n" for char in shown)
    assert shown.count("\n") == text.count("\n")
    assert "\n" not in printable_line(text)
    assert printable(shown) == shown


def test_remarks_and_bars_show_foreign_names_as_they_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    say(f"{EVIL} is there already")
    with bar(f"Extracting {EVIL}", 2) as advance:
        advance(1, note=EVIL)

    shown = capsys.readouterr().err
    assert "\\x1b[2J" in shown
    assert "[/red]:x:" in shown
    for char in "\x07\u202e\udcff\r":
        assert char not in shown
    assert "\x1b[2J" not in shown
    assert "\x1b]0" not in shown


def test_tables_of_metrics_show_foreign_categories() -> None:
    table = Table(
        rows=[Row(section=EVIL, kind="category", name=EVIL, values={"image_auroc": 0.5})],
        metrics=("image_auroc",),
    )

    shown = to_text(table)

    assert "\x1b" not in shown
    assert "\\x1b[2J" in shown


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["info", "\x1b[2J"], b"error: no cache '\\x1b[2J'"),
        (["gc"], b"C:\\x1b[2J: its name cannot be part"),
    ],
)
def test_errors_and_warnings_of_a_store_with_foreign_names(
    tmp_path: Path, encoding: str, words: list[str], told: bytes
) -> None:
    (tmp_path / "tokens" / "C:\x1b[2J").mkdir(parents=True)
    (tmp_path / os.fsdecode(b"tokens/\xff\x1b[2J")).mkdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding}
    command = [sys.executable, "-m", "pipeline.cli", "cache", *words, "--store", str(tmp_path)]

    found = subprocess.run(command, capture_output=True, env=environment, check=False)

    assert found.returncode == 1, found.stderr
    assert told in found.stderr
    assert b"\x1b" not in found.stdout + found.stderr
    assert b"Traceback" not in found.stderr

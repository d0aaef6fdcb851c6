"""Progress on stderr, so that stdout holds results only: bars on a terminal, else lines."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import IO, Protocol, cast

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from pipeline.terminal.printable import printable, printable_line
from pipeline.terminal.progress_lines import Lines, human_seconds

__all__ = [
    "Advance",
    "bar",
    "console",
    "counting",
    "has_bars",
    "human_bytes",
    "human_seconds",
    "say",
    "shown_above",
]
_WIDE = 72
"""Columns of a terminal that hold a bar and what is noted beside it."""


class _Unfailing:
    """A file that takes what it can: full or gone as stderr may be, no run ends by it."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, text: str) -> None:
        """Write, or leave it unsaid."""
        with suppress(OSError):
            self._file.write(text)

    def flush(self) -> None:
        """Flush, likewise."""
        with suppress(OSError):
            self._file.flush()

    def __getattr__(self, name: str) -> object:
        """Be the file in all else."""
        return getattr(self._file, name)


class _Console(Console):
    """Stderr, which may go away: rich itself would end the run then, and close stdout."""

    @property  # type: ignore[misc]  # nobody sets it
    def file(self) -> IO[str]:
        """Give what is written to."""
        return cast(IO[str], _Unfailing(super().file))


console = _Console(stderr=True, soft_wrap=True, emoji=False)


class Advance(Protocol):
    """Move a bar on by `n`, show `note` beside it; `total` corrects how long it is.

    What was `skipped`, done before or not to be done, tells nothing of the rate.
    """

    def __call__(
        self, n: int = 1, note: str = "", total: int | None = None, skipped: bool = False
    ) -> None:
        """Advance."""
        ...


def has_bars() -> bool:
    """Tell whether stderr is a terminal that can draw a line anew; a dumb one gets lines."""
    return console.is_terminal and not console.is_dumb_terminal


@contextmanager
def bar(description: str, total: int) -> Iterator[Advance]:
    """Show one bar of `total` steps while the block runs; the last line stays on screen.

    Without a terminal, or on a dumb one, it is a line every 30 s (`SPG_PROGRESS_SECONDS`) and one
    at the end.

    Raises: ConfigError for another value of that variable.
    """
    if not has_bars():
        with Lines(printable_line(description), total, say) as lines:
            yield lines.advance
        return
    above = _above[-1] if _above else None
    with _Bars(*_columns(), console=console, transient=above is not None) as progress:
        progress.above = above
        task = progress.add_task(printable_line(description), total=total, note="")

        def advance(
            n: int = 1, note: str = "", total: int | None = None, skipped: bool = False
        ) -> None:
            progress.update(task, advance=n, note=printable_line(note), total=total)

        yield advance


def _columns() -> list[ProgressColumn]:
    """Give what stands beside each other; of a narrow terminal, what cannot be left out."""
    wide = console.width >= _WIDE
    return [
        TextColumn("{task.description}", markup=False),
        *([BarColumn(bar_width=24)] if wide else []),
        MofNCompleteColumn(),
        *([TimeElapsedColumn()] if wide else []),
        TextColumn("left"),
        TimeRemainingColumn(),
        *([TextColumn("{task.fields[note]}", style="dim", markup=False)] if wide else []),
    ]


class _Bars(Progress):
    """Bars, and what is to be seen above them."""

    above: Callable[[], RenderableType] | None = None

    def get_renderables(self) -> Iterable[RenderableType]:
        """Give what is drawn, from top to bottom."""
        if self.above is not None:
            yield self.above()
        yield from super().get_renderables()


_above: list[Callable[[], RenderableType]] = []


@contextmanager
def shown_above(draw: Callable[[], RenderableType]) -> Iterator[None]:
    """On a terminal, show something above each bar of the block, and leave it there at the end."""
    _above.append(draw)
    try:
        yield
    finally:
        _above.pop()
        if has_bars():
            console.print(draw())


@contextmanager
def counting(description: str) -> Iterator[Callable[[int, int], None]]:
    """Give a function of (steps done, all steps) that shows a bar from its first call on."""
    with ExitStack() as stack:
        shown: list[Advance] = []

        def progress(n: int, total: int) -> None:
            if not shown:
                shown.append(stack.enter_context(bar(description, total)))
            shown[0](n)

        yield progress


def say(text: str) -> None:
    """Print one line of explanation on stderr; where that is full or gone, no run ends by it."""
    console.print(printable(text), highlight=False, markup=False)


def human_bytes(size_bytes: float) -> str:
    """Give a size as people read it, in powers of 1000: `2.8 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} TB"

"""The `spg-pipe` command: run what was typed; whatever a user can cause is one line.

Results go to stdout, progress and remarks to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage,
130 interrupted. Nothing heavy is imported before `main` listens for Ctrl-C; typer and the commands
take 0.2 s, in which it would show a traceback.
"""

import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn, Protocol, runtime_checkable

from pipeline.system_errors import INTERRUPTED, explain
from spg_core.errors import ConfigError, SpgError

if TYPE_CHECKING:
    import typer

    Handler = Callable[[int, FrameType | None], object]

_KEPT = (
    "interrupted; whole shards and the last checkpoint (one a minute) are kept, "
    "run it again to go on"
)
_TWICE = "interrupted twice, so ended at once; `spg-pipe cache gc` sweeps what was half written"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; exit 0, 1 for a failure, 2 for wrong usage, 130 for Ctrl-C.

    Args:
        arguments: without the program's name; None takes those of the process, whose signals are
            then handled as well.
    """
    if arguments is None:
        _listen(_end(_KEPT))  # nothing is at stake yet
    debug = "--debug" in (sys.argv if arguments is None else arguments)
    with suppress(AttributeError):  # a stream of a test, or none at all
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    logging.lastResort = _Remarks(logging.WARNING)
    from pipeline.commands.app import app

    if arguments is None:
        _listen(_interrupt)
    try:
        _check_current_folder()
        code = app(arguments, prog_name="spg-pipe", standalone_mode=False)
        _flush()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception as error:
        code = None if debug else _told(error)
        if code is None:
            raise
    if code == INTERRUPTED:
        _say(_KEPT)
    if arguments is None:
        _listen(_end(_KEPT))
    sys.exit(code)


class _Remarks(logging.Handler):
    """What the store and other libraries warn of, as lines on stderr like all others."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one."""
        from pipeline.progress import say

        with suppress(OSError):
            say(f"warning: {record.getMessage()}")


def _check_current_folder() -> None:
    # torch's maths library ends the process where there is none
    try:
        Path.cwd()
    except OSError as error:
        raise SpgError(
            f"the current folder is gone ({error.strerror}); change to another one"
        ) from error


def _told(error: Exception) -> int | None:
    """Say what a user caused in one line and give the exit code; None for a bug of ours."""
    import typer

    match error:
        case ConfigError():
            _say(f"error: {error}")
            return 2
        case SpgError():
            _say(f"error: {error}")
            return 1
        case OSError():
            _say(f"error: {explain(error)}")
            return 1
        case typer.Abort():
            return INTERRUPTED
        case _Mistyped():
            return _usage(error)
    return None


@runtime_checkable
class _Mistyped(Protocol):
    """An error of the click that typer brings along, where it has no public name."""

    exit_code: int

    def format_message(self) -> str: ...

    def show(self) -> None: ...


def _usage(error: _Mistyped) -> int:
    """Say what is wrong with the words typed in one line, or show the help that was asked for."""
    message = error.format_message()
    if "\n" in message:
        error.show()
    else:
        where = getattr(getattr(error, "ctx", None), "command_path", "spg-pipe")
        _say(f"error: {message[:1].lower()}{message[1:].rstrip('.?')}; see {where} -h")
    return int(error.exit_code)


def _flush() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()


def _say(text: str) -> None:
    from pipeline.printable import printable
    from pipeline.progress import console  # rich takes as long to import as all the rest

    with suppress(OSError):  # nobody can be told that stderr is full or closed
        console.print(printable(text), markup=False, highlight=False, style="red")


def _listen(handler: "Handler") -> None:
    """Have Ctrl-C handled, unless it is ignored, as in a job in the background."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, handler)
        sys.unraisablehook = _unraisable


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Let what is under way be left in order, once."""
    signal.signal(signal.SIGINT, _end(_TWICE))
    raise KeyboardInterrupt


def _end(text: str) -> "Callable[[int, FrameType | None], NoReturn]":
    """Give a handler that says a line and ends the process without looking back."""

    def end(number: int, frame: FrameType | None) -> NoReturn:
        show_cursor = "\x1b[?25h" if os.isatty(2) else ""
        with suppress(OSError):
            os.write(2, f"{show_cursor}{text}\n".encode())
        os._exit(INTERRUPTED)

    return end


def _unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    """End on a Ctrl-C that came where Python can raise nothing, and would forget it."""
    if isinstance(unraisable.exc_value, KeyboardInterrupt):
        _end(_KEPT)(signal.SIGINT, None)
    sys.__unraisablehook__(unraisable)


def __getattr__(name: str) -> "typer.Typer":
    """Give the typer app, for pages and tests, without importing it for those who only run it."""
    if name == "app":
        from pipeline.commands.app import app

        return app
    raise AttributeError(name)


if __name__ == "__main__":
    main()

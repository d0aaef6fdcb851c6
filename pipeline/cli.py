"""The `spg-pipe` command: run what was typed; whatever a user can cause is one line.

Results go to stdout, progress and remarks to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage,
130 stopped by Ctrl-C, 143 by SIGTERM, 129 by SIGHUP. Nothing heavy is imported before `main`
listens for signals; typer and the commands take 0.2 s, in which Ctrl-C would show a traceback.
"""

import logging
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from pipeline.machine.cut_files import say_what_was_cut
from pipeline.machine.freed_memory import keep_freed_memory
from pipeline.machine.system_errors import explain
from pipeline.terminal import stopping
from spg_core.errors import ConfigError, SpgError

if TYPE_CHECKING:
    import typer


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; exit 0, 1 for a failure, 2 for wrong usage, 130 or 143 for a signal.

    Args:
        arguments: without the program's name; None takes those of the process, whose signals are
            then handled and whose memory kept as well.
    """
    if arguments is None:
        _open_missing_streams()
        stopping.deaf_at_last()
        stopping.listen(stopping.end_at_once)  # nothing is at stake yet
        keep_freed_memory()
    debug = "--debug" in (sys.argv if arguments is None else arguments)
    with suppress(AttributeError):  # a stream of a test, or none at all
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    logging.lastResort = _Remarks(logging.WARNING)
    # of damaged EXIF and the like, by lines of its source; what it cannot decode we say ourselves
    warnings.filterwarnings("ignore", module="PIL")
    from pipeline.commands.app import app

    if arguments is None:
        stopping.listen(stopping.stop)
        say_what_was_cut()
    try:
        _check_current_folder()
        code = app(arguments, prog_name="spg-pipe", standalone_mode=False)
        _flush()
    except KeyboardInterrupt:
        code = stopping.exit_code()
    except Exception as error:
        code = None if debug else _told(error)
        if code is None:
            raise
    if code == stopping.exit_code():
        _say(stopping.kept())
        if arguments is None:
            stopping.leave()
    elif arguments is None:
        stopping.listen(stopping.end_at_once)  # nothing is at stake any more
    sys.exit(code)


def _open_missing_streams() -> None:
    """Let what a closed stream's number is written to be nothing, and no file opened later."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


class _Remarks(logging.Handler):
    """What the store and other libraries warn of, as lines on stderr like all others."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one."""
        from pipeline.terminal.progress import say

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
        case RuntimeError() if (lack := _lack_of(error)) is not None:
            _say(f"error: {lack}; free the GPU's memory, or use --device cpu")
            return 1
        case typer.Abort():
            return stopping.exit_code()
        case _Mistyped():
            return _usage(error)
    return None


def _lack_of(error: RuntimeError) -> str | None:
    if "torch" not in sys.modules:  # which takes a second to import
        return None
    from spg_core.gpu_memory import lack_of

    return lack_of(error)


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
    from pipeline.terminal.printable import printable
    from pipeline.terminal.progress import console  # rich takes as long to import as all the rest

    with suppress(OSError):  # nobody can be told that stderr is full or closed
        console.print(printable(text), markup=False, highlight=False, style="red")


def __getattr__(name: str) -> "typer.Typer":
    """Give the typer app, for pages and tests, without importing it for those who only run it."""
    if name == "app":
        from pipeline.commands.app import app

        return app
    raise AttributeError(name)


if __name__ == "__main__":
    main()

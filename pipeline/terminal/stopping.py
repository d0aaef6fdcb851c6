"""Being stopped: by Ctrl-C, by SIGTERM, which systems send before they end a process, or by SIGHUP
of a terminal that closes.

The first signal raises a `KeyboardInterrupt` where the main thread stands, so that what is under
way is left in order; what must not be cut in two is `held` together. A second signal ends the
process at once. A Dask worker ignores all: whoever gave it work says that this is to stop.
"""

import atexit
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import current_thread, local, main_thread
from types import FrameType
from typing import NoReturn

Handler = Callable[[int, FrameType | None], object]

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_NAMES = {
    signal.SIGINT: "Ctrl-C",
    signal.SIGTERM: "SIGTERM",
    signal.SIGHUP: "SIGHUP, as its terminal closed",
}
_first: list[int] = []
"""The signal that stopped this process, once one did."""


class Interrupted(KeyboardInterrupt):
    """A signal came.

    A class of its own: a plain KeyboardInterrupt that passes through `exec` of a text, by which
    dataclasses are made, has Python end by the signal itself, whoever caught it on the way.
    """


class Stopped(Exception):
    """In a worker: whoever gave this work was stopped."""


def exit_code() -> int:
    """Give what the shell says of a process that the signal ended: 130, 143 for SIGTERM, .."""
    return 128 + (_first[0] if _first else signal.SIGINT)


def kept() -> str:
    """Say that a signal ended the run, and what comes next."""
    name = _NAMES[signal.Signals(exit_code() - 128)]
    return f"stopped by {name}; what is whole is kept, the same command goes on from there"


TWICE = "stopped twice, so ended at once; `spg-pipe cache gc` sweeps what was half written"


def listen(handler: Handler | signal.Handlers) -> None:
    """Have signals handled, except those that are ignored, as Ctrl-C is in the background."""
    for one in SIGNALS:
        if signal.getsignal(one) is not signal.SIG_IGN:
            signal.signal(one, handler)
            sys.unraisablehook = _unraisable


def deaf_at_last() -> None:
    """Have the interpreter's own end, which knows no handlers, ignore signals."""
    atexit.register(listen, signal.SIG_IGN)  # what is registered first is called last


def stop(number: int, frame: FrameType | None) -> None:
    """Handle a signal: let what is under way be left in order, once."""
    _first.append(number)
    listen(end_twice)
    raise Interrupted


def end_at_once(number: int, frame: FrameType | None) -> NoReturn:
    """Handle a signal where nothing is at stake: say it and end."""
    _first.append(number)
    _end(kept())


def end_twice(number: int, frame: FrameType | None) -> None:
    """Handle a second signal: end without looking back; a terminal may say twice that it closes."""
    if number != signal.SIGHUP:
        _end(TWICE)


def leave() -> NoReturn:
    """End a run that was stopped, all being in order, without the interpreter's own end.

    A library's thread that is still at work would call Python while it is taken apart, and the
    process abort: seen in one of 19 stopped runs of `calibrate`.
    """
    atexit._run_exitfuncs()
    with suppress(OSError, ValueError, AttributeError):  # closed, nobody reads any more, or none
        sys.stdout.flush()
    with suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(exit_code())


def _end(text: str) -> NoReturn:
    show_cursor = "\x1b[?25h" if os.isatty(2) else ""
    with suppress(OSError):
        os.write(2, f"{show_cursor}{text}\n".encode())
    os._exit(exit_code())


def _unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    """End on a signal that came where Python can raise nothing, and would forget it."""
    if isinstance(unraisable.exc_value, KeyboardInterrupt):
        _end(kept())
    sys.__unraisablehook__(unraisable)


@contextmanager
def held() -> Iterator[None]:
    """Have a signal wait until the block ends, so that it is done whole; a second does not wait."""
    if current_thread() is not main_thread():  # others get no signals
        yield
        return
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if came and number != signal.SIGHUP:
            _first.append(came[0])
            end_twice(number, frame)
        came.append(number)

    before = {one: found for one in SIGNALS if callable(found := signal.getsignal(one))}
    try:
        for one in before:
            signal.signal(one, note)
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
        if came:
            before[signal.Signals(came[0])](came[0], None)


_work = local()
_stopped_jobs: set[str] = set()


def begin_job(name: str) -> None:
    """In a worker's thread: what is done from here on is for this job."""
    _work.job = name


def stop_job(name: str) -> None:
    """In a worker: have a job's work end at the next step."""
    _stopped_jobs.add(name)


def check_stopped() -> None:
    """Raises: Stopped where this thread's job is to end."""
    if getattr(_work, "job", None) in _stopped_jobs:
        raise Stopped

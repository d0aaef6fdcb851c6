"""Progress without a terminal: a plain line every so often, also while nothing moves."""

import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from threading import Event, Lock, Thread
from time import perf_counter
from types import TracebackType

from spg_core.errors import ConfigError

EVERY = "SPG_PROGRESS_SECONDS"
"""Variable of the environment: seconds between two lines."""
_EVERY_SECONDS = 30.0
_WINDOW = 10
"""Lines over which the rate is taken."""


def seconds_between() -> float:
    """Give how long to wait between two lines. Raises: ConfigError for what is no such time."""
    text = os.environ.get(EVERY, "")
    if not text:
        return _EVERY_SECONDS
    with suppress(ValueError):
        if 0.1 <= (seconds := float(text)) <= 86400:
            return seconds
    raise ConfigError(f"{EVERY} is {text!r}; it must be seconds, 0.1 to 86400")


class Lines:
    """One bar's place in a log: `Fitting SAE: 34 %, 17 of 50, 1.2/s, 27 s left, loss 0.2`."""

    def __init__(self, description: str, total: int, say: Callable[[str], None]) -> None:
        self._description, self._total, self._say = description, total, say
        self._done = self._skipped = 0
        self._note = ""
        self._began = perf_counter()
        self._seen = deque([(self._began, 0)], maxlen=_WINDOW + 1)
        self._every, self._ended, self._lock = seconds_between(), Event(), Lock()
        self._ticker = Thread(target=self._tick, daemon=True)

    def advance(
        self, n: int = 1, note: str = "", total: int | None = None, skipped: bool = False
    ) -> None:
        """Count `n` more; those `skipped` took no time and tell nothing of the rate."""
        with self._lock:
            self._done += n
            self._skipped += n * skipped
            self._note = note or self._note
            self._total = self._total if total is None else total

    def __enter__(self) -> "Lines":
        self._ticker.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self._ended.set()
        if kind is None:
            took = human_seconds(perf_counter() - self._began)
            self._say(
                f"{self._description}: {self._done} of {self._total} in {took}{self._noted()}"
            )

    def line(self) -> str:
        """Say how far it is now."""
        with self._lock:
            now, moved = perf_counter(), self._done - self._skipped
            (since, before), left = self._seen[0], self._total - self._done
            self._seen.append((now, moved))
            rate = (moved - before) / max(now - since, 1e-9)
            share = f"{self._done / self._total:.0%}".replace("%", " %") if self._total else "-"
            text = f"{self._description}: {share}, {self._done} of {self._total}"
            if left <= 0:
                return f"{text}, finishing{self._noted()}"
            if rate <= 0:
                return f"{text}, none in the last {human_seconds(now - since)}{self._noted()}"
            return f"{text}, {_a_second(rate)}, {human_seconds(left / rate)} left{self._noted()}"

    def _noted(self) -> str:
        return f", {self._note}" if self._note else ""

    def _tick(self) -> None:
        while not self._ended.wait(self._every):
            self._say(self.line())


def _a_second(rate: float) -> str:
    """Give a rate as people read it: `120/s`, `1.2/s`, `7.5/min`."""
    return f"{rate:.3g}/s" if rate >= 1 else f"{60 * rate:.2g}/min"


def human_seconds(seconds: float) -> str:
    """Give a duration as people read it: `3 s`, `4 min 10 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"

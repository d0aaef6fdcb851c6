"""How many images were judged as what, and how fast: numbers alone, so that days of them fit."""

import time
from collections import Counter
from typing import TYPE_CHECKING

from pipeline.terminal.printable import counted
from pipeline.terminal.progress import human_seconds

if TYPE_CHECKING:
    from pipeline.prediction.predict import Prediction


class Tally:
    """Counts predictions from the moment it is made."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._verdicts: Counter[str | None] = Counter()
        self._last: Prediction | None = None
        self._why_none: str | None = None
        self.failed = 0

    def add(self, one: "Prediction") -> None:
        """Count one."""
        if one.error is not None:
            self.failed += 1
            return
        self._verdicts[one.verdict] += 1
        if one.verdict is None:  # an unsure one's reason is of its picture
            self._why_none = one.reason
        if one.threshold is not None or self._last is None:
            self._last = one

    def told(self) -> str:
        """Say how many of which, by which threshold, and how fast."""
        n, seconds = self._verdicts.total(), time.monotonic() - self._since
        text = f"{counted(n, 'image')} scored, {self.failed} failed"
        unsure = f", {self._verdicts['unsure']} unsure" if self._verdicts["unsure"] else ""
        if self._last is not None and self._last.threshold is not None:
            text += f"; {self._verdicts['anomalous']} anomalous{unsure} from "
            text += f"{self._last.threshold:.4f} ({self._last.threshold_source})"
        elif self._last is not None:
            text += f"; no verdict{unsure}" + (f", {self._why_none}" if self._why_none else "")
        return text + (f"; {n / seconds:.1f} images/s in {human_seconds(seconds)}" if n else "")

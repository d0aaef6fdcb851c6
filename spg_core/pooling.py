"""How a map becomes one score an image: which of the ways, as data; `image_scores` does it."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Pooling:
    """A log-mean-exp of the map, or the mean of its largest pixels."""

    tau: float = 0.0
    """Temperature of the log-mean-exp; 0 is the maximum, infinite the mean."""
    top: float | None = None
    """Share of the pixels in (0, 1], the largest, whose mean is taken instead."""

    def __str__(self) -> str:
        if self.top is not None:
            return f"mean of the largest {100 * self.top:g} % of the map"
        if self.tau == 0:
            return "maximum of the map"
        if math.isinf(self.tau):
            return "mean of the map"
        return f"log-mean-exp of the map, tau {self.tau:g}"

    @property
    def option(self) -> str:
        """The same as it is typed."""
        if self.top is not None:
            return f"--pool top:{self.top:.9f}".rstrip("0").rstrip(".")
        return {0.0: "--pool max", math.inf: "--pool mean"}.get(self.tau, f"--tau {self.tau:g}")

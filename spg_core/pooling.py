"""How values become one score an image: which of the ways, as data; `image_scores` does it."""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Pooling:
    """A log-mean-exp of the map, or the mean of its largest pixels or of the largest patches."""

    tau: float = 0.0
    """Temperature of the log-mean-exp; 0 is the maximum, infinite the mean."""
    top: float | None = None
    """Share of the values in (0, 1], the largest, whose mean is taken instead."""
    of: Literal["map", "patches"] = "map"
    """Whose values: pixels of the final map, or patches before they become pixels."""

    def __str__(self) -> str:
        if self.top is not None:
            return f"mean of the largest {100 * self.top:g} % of the {self.of}"
        if self.tau == 0:
            return "maximum of the map"
        if math.isinf(self.tau):
            return "mean of the map"
        return f"log-mean-exp of the map, tau {self.tau:g}"

    @property
    def option(self) -> str:
        """The same as it is typed."""
        if self.top is not None:
            name = "patches" if self.of == "patches" else "top"
            return f"--pool {name}:{self.top:.9f}".rstrip("0").rstrip(".")
        return {0.0: "--pool max", math.inf: "--pool mean"}.get(self.tau, f"--tau {self.tau:g}")

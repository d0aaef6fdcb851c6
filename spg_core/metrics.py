"""The mean of metrics over categories, for image and pixel metrics alike."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from spg_core.errors import MetricError
from spg_core.image_metrics import ImageMetrics
from spg_core.pixel_metrics import PixelMetrics

Metrics = TypeVar("Metrics", ImageMetrics, PixelMetrics)


def mean_metrics(categories: Sequence[Metrics]) -> Metrics:
    """Average each metric over categories, unweighted, leaving out those where it is None.

    A metric that is None everywhere stays None. `reason` tells how many categories were left
    out of which metric, and is None where none was.

    Raises:
        MetricError: no categories.
    """
    if not categories:
        raise MetricError("no categories to average, expected at least one")
    means = {}
    left_out: dict[int, list[str]] = {}
    for name in vars(categories[0]):
        if name == "reason":
            continue
        values = [value for one in categories if (value := getattr(one, name)) is not None]
        means[name] = sum(values) / len(values) if values else None
        if len(values) < len(categories):
            left_out.setdefault(len(values), []).append(name)
    told = [f"{', '.join(names)} over {n} of {len(categories)}" for n, names in left_out.items()]
    of = "image" if isinstance(categories[0], ImageMetrics) else "pixel"
    reason = f"undefined in some categories: {of} {'; '.join(told)}" if told else None
    return replace(categories[0], **means, reason=reason)

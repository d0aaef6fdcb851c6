"""The metrics: their names in documents, what they are called for people, how they are shown.

All of them are shares in [0, 1], shown in %; of each the larger is the better.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """How a metric is called."""

    label: str
    """On its own: `image AP`."""
    heading: str
    """As a column beside its group: `AP` after `image AUROC`."""


METRICS = {
    "image_auroc": Metric("image AUROC", "image AUROC"),
    "image_ap": Metric("image AP", "AP"),
    "image_f1max": Metric("image F1-max", "F1-max"),
    "pixel_auroc": Metric("pixel AUROC", "pixel AUROC"),
    "pixel_ap": Metric("pixel AP", "AP"),
    "pixel_aupro": Metric("pixel AUPRO", "AUPRO"),
    "pixel_f1max": Metric("pixel F1-max", "F1-max"),
}
"""Every metric of `metrics.json`, in the order of the tables."""

IMAGE_METRICS = tuple(name for name in METRICS if name.startswith("image_"))
"""Those of the image scores alone."""

PUBLISHED = ("image_auroc", "image_ap", "pixel_auroc", "pixel_aupro")
"""Those that the paper states, in its order."""


def names_by_reason(found: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Give, for each reason why metrics are missing, the names of the categories that have it.

    `found` has a name and a reason each.
    """
    names: dict[str, list[str]] = {}
    for name, reason in found:
        names.setdefault(reason, []).append(name)
    return names


def percent(value: float | None, none: str = "-") -> str:
    """Give a share as `92.3`, and `none` where there is none."""
    return none if value is None else f"{100 * value:.1f}"

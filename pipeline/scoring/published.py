"""Published numbers, and what a run of ours must share with them to be compared.

Source: SPG (arXiv 2604.02871), Table 1: means over categories, in %. Nothing here is recomputed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pipeline.tables.metrics import PUBLISHED

Direction = Literal["VisA -> MVTec AD", "MVTec AD -> VisA"]
Benchmark = Literal["VisA", "MVTec AD"]

SOURCE = (
    "published rows are as printed in arXiv 2604.02871, Table 1; nothing of them was rerun here"
)
OURS_BY_BACKBONE = {"dinov3": "SPG (DINOv3)", "openclip": "SPG (OpenCLIP)"}
"""The published row of SPG itself by the backbone's name here."""

_Numbers = tuple[float | None, float | None, float | None, float | None]
_TABLE_1: dict[Direction, dict[str, _Numbers]] = {
    "VisA -> MVTec AD": {
        "WinCLIP": (91.8, 96.5, 85.1, 64.6),
        "AnomalyCLIP": (91.5, 96.2, 91.1, 81.4),
        "AdaCLIP": (89.2, None, 88.7, None),
        "VCP-CLIP": (92.1, 96.9, 92.0, 87.3),
        "AA-CLIP": (90.5, None, 91.9, None),
        "AdaptCLIP": (93.5, 96.7, 90.9, None),
        "SPG (OpenCLIP)": (79.3, 89.6, 89.9, 71.9),
        "SPG (DINOv3)": (91.4, 95.7, 92.3, 87.7),
    },
    "MVTec AD -> VisA": {
        "WinCLIP": (78.1, 81.2, 79.6, 56.8),
        "AnomalyCLIP": (82.1, 85.4, 95.5, 87.0),
        "AdaCLIP": (85.8, None, 95.5, None),
        "VCP-CLIP": (83.8, 87.6, 95.7, 90.7),
        "AA-CLIP": (84.6, None, 95.5, None),
        "AdaptCLIP": (84.8, 87.6, 95.7, None),
        "SPG (OpenCLIP)": (82.6, 85.7, 94.7, 87.1),
        "SPG (DINOv3)": (80.2, 84.3, 96.0, 89.1),
    },
}
NON_ZERO: dict[Direction, int] = {"VisA -> MVTec AD": 211, "MVTec AD -> VisA": 644}
"""Coefficients in use, of 2 x 4096, by ReLU + l1 at C = 4096, as the paper states."""


@dataclass(frozen=True)
class DatasetFacts:
    """What tells whether a cached dataset is one of the two benchmarks."""

    name: str
    categories: frozenset[str]
    n_images: int

    def __str__(self) -> str:
        return f"{self.name} ({len(self.categories)} categories, {self.n_images} images)"


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


BENCHMARKS: dict[Benchmark, DatasetFacts] = {
    "MVTec AD": DatasetFacts(
        "MVTec AD",
        _names(
            "bottle cable capsule carpet grid hazelnut leather metal_nut pill screw tile "
            "toothbrush transistor wood zipper"
        ),
        1725,
    ),
    "VisA": DatasetFacts(
        "VisA",
        _names(
            "candle capsules cashew chewinggum fryum macaroni1 macaroni2 pcb1 pcb2 pcb3 pcb4 "
            "pipe_fryum"
        ),
        2162,
    ),
}
"""The test splits that the published numbers are means over."""

PARTS: dict[Direction, tuple[Benchmark, Benchmark]] = {
    "VisA -> MVTec AD": ("VisA", "MVTec AD"),
    "MVTec AD -> VisA": ("MVTec AD", "VisA"),
}
"""What is fitted on, and what is scored."""


def published(direction: Direction) -> dict[str, Mapping[str, float | None]]:
    """Give each method's published means in [0, 1], None where the paper prints none."""
    return {
        method: {
            metric: None if value is None else round(value / 100, 4)
            for metric, value in zip(PUBLISHED, numbers, strict=True)
        }
        for method, numbers in _TABLE_1[direction].items()
    }


def direction_to(target: DatasetFacts) -> Direction | None:
    """Give the published direction for a target: by its categories, else by its name, else none."""
    for direction, (_, benchmark) in PARTS.items():
        name = {"VisA": "visa", "MVTec AD": "mvtec"}[benchmark]
        if target.categories == BENCHMARKS[benchmark].categories or target.name == name:
            return direction
    return None


def other_data(direction: Direction, aux: DatasetFacts | None, target: DatasetFacts) -> list[str]:
    """Say where our data is not the data of the published rows; empty where it is.

    `aux` is None where the store does not hold it, so that nobody can tell.
    """
    said = []
    fitted, scored = PARTS[direction]
    for what, ours, name in (("fitted on", aux, fitted), ("scored on", target, scored)):
        theirs = BENCHMARKS[name]
        if ours is None:
            said.append(f"{what} data that is not in this store, published: {theirs}")
        elif (ours.categories, ours.n_images) != (theirs.categories, theirs.n_images):
            said.append(f"{what} {ours}, published: {theirs}")
    return said

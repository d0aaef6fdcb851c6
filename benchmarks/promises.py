"""What calibration promises of good parts, against what the other good parts then show.

    python -m benchmarks.promises [--store DIR] [--splits 200] [--parts 5 10 20]

The good images of bottle and screw (../shared, MVTec AD) are an engineer's own parts: n of them,
drawn at random, give the threshold of the least rate that n can promise with 95 % confidence; the
others are the parts that come later. ViT-Tiny at 448 px, block 8: guides fitted on `surface`, and
memories of 1 and 4 good images, which are left out. An image is scored once; a split costs nothing.

In %: `realised` is the mean share of later parts that are flagged, `kept in` the share of splits in
which no more of them are than was promised; beside each what order statistics expect of so few.
"""

import argparse
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import spg_pipe as spg
from benchmarks.layers import processor
from benchmarks.real_samples import BACKBONE, LAYOUTS, SHARED
from cache.objects import Objects
from cache.store import open_store
from pipeline.calibration.cached_parts import cached_parts
from pipeline.configs import CalibrateSource, ScoreConfig
from pipeline.detection.find import find_detector
from spg_core.false_alarms import least_rate, promised_threshold

LAYER = 8
CONFIDENCE = 0.95
PRODUCTS = ("bottle", "screw")
COLUMNS = ("n", "later", "promised", "realised", "expected", "kept in", "expected", "detected")
LEFT = 4
"""Good images that stay out of a split at least, to be the later ones."""

Scores = NDArray[np.float32]
Order = NDArray[np.int64]


def detectors(store: Objects) -> dict[str, str]:
    """Make the detectors where they are not there yet; their ids by what they are called here."""
    weights = SHARED / "weights" / "vit_tiny_patch16_224.safetensors"
    for dataset, split in (("surface", "test"), ("mvtec", "all")):
        spg.extract(
            store,
            backbone=BACKBONE,
            image_size=448,
            layer=LAYER,
            weights=weights,
            dataset=LAYOUTS[dataset],
            name=dataset,
            root=SHARED / "data" / dataset,
            split=split,
        )
    sae = spg.fit_sae(store, dataset="surface", backbone=BACKBONE, width=1024, k=32, epochs=5)
    guides = spg.fit_guides(store, sae=sae.id)
    memories = {shots: spg.fit_memory(store, dataset="mvtec", shots=shots) for shots in (1, 4)}
    named = {f"memory of {shots}": made.id for shots, made in memories.items()}
    return {"guides": guides.id, **named}


def scores_of(store: Objects, detector: str, product: str) -> tuple[Scores, Scores, Scores]:
    """Score a product's images; give those of the good train, the good test and the bad ones."""
    found = []
    for split in ("train", "test"):
        source = CalibrateSource(guides=detector, dataset="mvtec", category=(product,), split=split)
        known = cached_parts(store, find_detector(store, detector), ScoreConfig(), source)
        scores = known.score()
        found += [scores[~known.labels], scores[known.labels]]
    train, _, test, bad = found
    return train, test, bad


def row(name: str, own: Scores, later: Scores, bad: Scores, orders: list[Order]) -> str:
    """Give a row of the table: n of the good ones by some orders, the rest come later."""
    good, n_parts = np.append(own, later), len(own)
    shares = []
    for order in orders:
        made = promised_threshold(good[order[:n_parts]], None, CONFIDENCE)
        rest = good[order[n_parts:]]
        shares.append([float((one >= made.threshold).mean()) for one in (rest, bad)])
    found, n_later = np.array(shares), len(later)
    promised = least_rate(n_parts, CONFIDENCE)
    kept = float((found[:, 0] <= promised).mean())
    allowed = math.floor(promised * n_later)
    # more than allowed are flagged where the highest of all are later ones
    expected = 1 - math.comb(n_later, allowed + 1) / math.comb(len(good), allowed + 1)
    cells = [promised, found[:, 0].mean(), 1 / (n_parts + 1), kept, expected, found[:, 1].mean()]
    numbers = " | ".join(f"{100 * one:.1f}" for one in cells)
    return f"| {name} | {n_parts} | {n_later} | {numbers} |"


def rows(
    store: Objects, name: str, detector: str, product: str, options: argparse.Namespace
) -> Iterator[str]:
    """Give the rows of a product and a detector: random splits, then train before test."""
    train, test, bad = scores_of(store, detector, product)
    good, random = np.append(train, test), np.random.default_rng(0)
    orders = [random.permutation(len(good)) for _ in range(options.splits)]
    title = f"{product} | {name}"
    for n_parts in sorted({min(n, len(good) - LEFT) for n in options.parts}):
        yield row(title, good[:n_parts], good[n_parts:], bad, orders)
    yield row(f"{title}, train, then test", train, test, bad, [np.arange(len(good))])


def main() -> None:
    """Print a Markdown table: a row a product, detector and number of parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", default=None)
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--parts", type=int, nargs="+", default=[5, 10, 20])
    options = parser.parse_args()
    print(f"{processor()}, {options.splits} splits\n")
    print(f"| product | detector | {' | '.join(COLUMNS)} |\n|---|---|{'--:|' * len(COLUMNS)}")
    with tempfile.TemporaryDirectory() as scratch:
        store = open_store(options.store or Path(scratch) / "store")
        made = detectors(store)
        for product in PRODUCTS:
            for name, detector in made.items():
                for line in rows(store, name, detector, product, options):
                    print(line, flush=True)


if __name__ == "__main__":
    main()

"""Layers, combinations and references side by side, both directions, by the notebook's functions.

    python -m benchmarks.detectors [--store DIR] [--seeds 111 112 113] [--directions A:B B:A]

ViT-Tiny at 448 px on the real samples, blocks 2, 5, 8 and 11, C = 1024, k = 32, 5 SAE epochs, the
released recipe otherwise. For each direction and seed: guides of each block, the blocks 5, 8 and
11 combined in three ways, guides over no dictionary, principal directions and random atoms of the
last block, and memories of 1, 2 and 4 good images of the last block and of the three. A row is the
mean of the target's categories, over seeds as mean and spread; AUPRO clip200, as in `reproduce
references`, whose artifacts are the same. Seconds are processor time, of what makes the detector
and of its scoring; a dash where the store had it already. MB are the detector's files.

    python -m benchmarks.detectors --ks 8 16 32 64 128 ...

goes through `sweep` instead and prints each block's metrics by k, the best k by AUPRO of the target
itself, which no honest user has, and the three blocks combined, each at its own.
"""

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import process_time
from typing import Any

import spg_pipe as spg
from benchmarks.layers import processor
from benchmarks.real_samples import BACKBONE, LAYOUTS, SHARED
from cache.store import open_store
from pipeline.configs import CombineConfig
from pipeline.configs.combining import Combine
from pipeline.detection.combine import find_or_combine
from pipeline.sweep.run import Sweep

Keys = dict[tuple[str, str], str]
"""Of caches, by dataset and layer; those of train images by 'DATASET, train'."""
Parts = dict[str, list[str]]
"""Ids of the parts of a detector, by its name."""
LAYERS = ("2", "5", "8", "11")
TOGETHER = ("5", "8", "11")
LAST = "11"
SHOTS = (1, 2, 4)
MEETINGS: dict[str, Combine] = {"mean": "mean", "max": "max", "learned": "learned"}
COLUMNS = ("image_auroc", "pixel_auroc", "pixel_aupro")


@dataclass
class Store:
    """A store, and what the stages on it have cost."""

    path: Path
    spent: dict[str, float] = field(default_factory=dict)
    """Processor seconds that made an artifact, by its id; none for one that was there."""

    def make(self, stage: Callable[..., Any], **options: Any) -> Any:
        """Run one stage; give the artifact that it makes, or that is there."""
        there = {folder.name for folder in self.path.glob("*/*")}
        start = process_time()
        made = stage(self.path, **options)
        if made.id not in there:
            self.spent[made.id] = process_time() - start
        return made

    def cost(self, identifiers: Sequence[str]) -> float | None:
        """Give the seconds that some artifacts took; None where one was there."""
        known = [self.spent[one] for one in identifiers if one in self.spent]
        return sum(known) if len(known) == len(identifiers) else None


@dataclass(frozen=True)
class Scored:
    """One detector on one target by one seed."""

    values: Mapping[str, float | None]
    fitted: float | None
    scored: float | None
    megabytes: float


def extract(store: Store, split: str, layers: Sequence[str]) -> Keys:
    """Make the caches of a split; give the key of each by dataset and layer."""
    keys: Keys = {}
    for dataset, layout in LAYOUTS.items():
        start = process_time()
        made = spg.extract(
            store.path, backbone=(BACKBONE,), image_size=448, layer=layers, split=split,
            weights=(str(SHARED / "weights" / "vit_tiny_patch16_224.safetensors"),),
            dataset=layout, name=dataset, root=str(SHARED / "data" / dataset),
        )  # fmt: skip
        paths = [Path(one.path) for one in made.caches]
        keys |= {(dataset, layer): one.name for layer, one in zip(layers, paths, strict=True)}
        told = f"{process_time() - start:.0f} s, {megabytes(paths[0]):.0f} MB a layer"
        print(f"{dataset}, {split}, layers {', '.join(layers)}: {told}", flush=True)
    return keys


def megabytes(folder: Path) -> float:
    """Give the size of the files in a folder."""
    return sum(one.stat().st_size for one in folder.rglob("*") if one.is_file()) / 1e6


def detectors(store: Store, keys: Keys, auxiliary: str, target: str, seed: int) -> Parts:
    """Fit every detector of a direction; give the parts of each by its name."""
    saes, guides = {}, {}
    for layer in LAYERS:
        source = {"dataset": auxiliary, "backbone": BACKBONE, "key": keys[auxiliary, layer]}
        sizes = {"width": 1024, "k": 32, "epochs": 5, "seed": seed}
        saes[layer] = store.make(spg.fit_sae, **source, **sizes).id
        guides[layer] = store.make(spg.fit_guides, sae=saes[layer], seed=seed).id
        if guides[layer] in store.spent:
            store.spent[guides[layer]] += store.spent.get(saes[layer], 0)
    made: Parts = {f"SPG, block {layer}": [guides[layer]] for layer in LAYERS}
    for how in MEETINGS:
        made[f"SPG, blocks 5, 8, 11, {how}"] = [guides[layer] for layer in TOGETHER]
    for kind, said in (("none", "free guides"), ("pca", "PCA"), ("random", "random atoms")):
        control = store.make(spg.fit_guides, sae=saes[LAST], dictionary=kind, seed=seed)
        made[f"{said}, block 11"] = [control.id]
    for shots in SHOTS:
        few = {"dataset": target, "backbone": BACKBONE, "shots": shots, "seed": seed}
        train = f"{target}, train"
        found = [store.make(spg.fit_memory, **few, key=keys[train, one]).id for one in TOGETHER]
        made[f"memory of {shots}, block 11"] = found[-1:]
        made[f"memory of {shots}, blocks 5, 8, 11"] = found
    return made


def score(store: Store, name: str, parts: Sequence[str], target: str, key: str) -> Scored:
    """Score the test images of the target with a detector, `key` its first part's cache."""
    meeting = CombineConfig(combine=MEETINGS.get(name.rpartition(", ")[2], "mean"))
    start = process_time()
    detector = find_or_combine(open_store(store.path), parts, meeting)
    met = process_time() - start
    made = store.make(spg.score, guides=(detector.id,), dataset=target, key=key, aupro="clip200")
    fitted = store.cost(parts)
    return Scored(
        {one: made.document.mean.values[one] for one in COLUMNS},
        None if fitted is None else fitted + met,
        store.cost([made.id]),
        sum(megabytes(next(store.path.glob(f"*/{one}"))) for one in parts),
    )


def row(name: str, found: Sequence[Scored]) -> str:
    """Give a line of the table: mean and spread of all seeds."""
    cells = [name]
    for column in COLUMNS:
        values = [100 * (one.values[column] or 0.0) for one in found]
        spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
        cells.append(f"{statistics.fmean(values):.1f}{spread}")
    for costs in ([one.fitted for one in found], [one.scored for one in found]):
        known = [one for one in costs if one is not None]
        cells.append(f"{statistics.fmean(known):.1f}" if known else "-")
    cells.append(f"{statistics.fmean(one.megabytes for one in found):.2f}")
    return f"| {' | '.join(cells)} |"


def side_by_side(store: Store, directions: Sequence[tuple[str, str]], seeds: Sequence[int]) -> None:
    """Print a table a direction, again after each seed."""
    keys = extract(store, "test", LAYERS)
    trains = extract(store, "train", TOGETHER)
    keys |= {(f"{dataset}, train", layer): key for (dataset, layer), key in trains.items()}
    found: dict[tuple[str, str], dict[str, list[Scored]]] = {one: {} for one in directions}
    for at, seed in enumerate(seeds, start=1):
        for (auxiliary, target), rows in found.items():
            for name, parts in detectors(store, keys, auxiliary, target, seed).items():
                first = name.partition("block")[2].strip("s ").partition(",")[0]
                scored = score(store, name, parts, target, keys[target, first])
                rows.setdefault(name, []).append(scored)
            print(f"\n**{auxiliary} -> {target}**, seeds {', '.join(map(str, seeds[:at]))}\n")
            print("| detector | image AUROC | pixel AUROC | AUPRO | fit s | score s | MB |")
            print("|---|--:|--:|--:|--:|--:|--:|")
            print("\n".join(row(*one) for one in rows.items()), flush=True)


def best_k(
    store: Store, directions: Sequence[tuple[str, str]], seeds: Sequence[int], ks: Sequence[int]
) -> None:
    """Print each block's metrics by k, and the three blocks combined at the best k of each."""
    keys = extract(store, "test", LAYERS)
    for auxiliary, target in directions:
        for seed in seeds:
            done = spg.sweep(
                store.path, aux=auxiliary, target=target, backbone=BACKBONE, layer=LAYERS,
                width=(1024,), k=ks, seed=(seed,), vary=("sae.epochs=5", "score.aupro=clip200"),
            )  # fmt: skip
            assert isinstance(done, Sweep)
            rows = done.rows
            print(f"\n**{auxiliary} -> {target}**, seed {seed}\n")
            print("| block | k | image AUROC | pixel AUROC | AUPRO | best |")
            print("|--:|--:|--:|--:|--:|---|")
            best: dict[str, Mapping[str, Any]] = {}
            for layer in LAYERS:
                here = [one for one in rows if str(one["layer"]) == layer]
                best[layer] = max(here, key=lambda one: float(one["pixel_aupro"]))
                for one in here:
                    star = "*" if one is best[layer] else ""
                    print(f"| {layer} | {one['k']} | {_said(one)} | {star} |", flush=True)
            parts = [str(best[layer]["guides"]) for layer in TOGETHER]
            made = score(store, "SPG, blocks 5, 8, 11, mean", parts, target, keys[target, "5"])
            print(f"| 5, 8, 11 | each its best | {_said(made.values)} | |", flush=True)


def _said(values: Mapping[str, Any]) -> str:
    return " | ".join(f"{100 * values[column]:.1f}" for column in COLUMNS)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, default=None)
    parser.add_argument("--seeds", type=int, nargs="+", default=[111, 112, 113])
    parser.add_argument("--directions", nargs="+", default=["surface:mvtec", "mvtec:surface"])
    parser.add_argument("--ks", type=int, nargs="+", default=[])
    options = parser.parse_args()
    if not (SHARED / "data").is_dir():
        sys.exit("the real samples (../shared) are not beside this checkout")
    directions = [(one.partition(":")[0], one.partition(":")[2]) for one in options.directions]
    print(f"{processor()}, load {os.getloadavg()[0]:.1f} at the start\n", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        store = Store(options.store or Path(scratch))
        if options.ks:
            best_k(store, directions, options.seeds, options.ks)
        else:
            side_by_side(store, directions, options.seeds)


if __name__ == "__main__":
    main()

"""Layers, combinations and references side by side, both directions, by the command line alone.

    python -m benchmarks.detectors [--store DIR] [--seeds 111 112 113] [--directions A:B B:A]

ViT-Tiny at 448 px on the real samples, blocks 2, 5, 8 and 11, C = 1024, k = 32, 5 SAE epochs, the
released recipe otherwise. For each direction and seed: guides of each block, the blocks 5, 8 and
11 combined in three ways, guides over no dictionary, principal directions and random atoms of the
last block, and memories of 1, 2 and 4 good images of the last block and of the three. A row is the
mean of the target's categories, over seeds as mean and spread; AUPRO exact. Seconds are the
processor time of whole commands, start included: those that make the detector, and that of its
`score`. MB are the detector's files.

    python -m benchmarks.detectors --ks 8 16 32 64 128 ...

goes through `sweep` instead and prints each block's metrics by k, the best k by AUPRO of the target
itself, which no honest user has, and the three blocks combined, each at its own.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.layers import processor
from benchmarks.real_samples import BACKBONE, LAYOUTS, SHARED

Keys = dict[tuple[str, str], str]
"""Of caches, by dataset and layer; those of train images by 'DATASET, train'."""
Parts = dict[str, list[str]]
"""Ids of the parts of a detector, by its name."""
LAYERS = ("2", "5", "8", "11")
TOGETHER = ("5", "8", "11")
LAST = "11"
SHOTS = (1, 2, 4)
COLUMNS = ("image_auroc", "pixel_auroc", "pixel_aupro")
SAE = ("--width", "1024", "--epochs", "5")


@dataclass
class Store:
    """A store, and what the commands on it have cost."""

    path: Path
    spent: dict[str, float] = field(default_factory=dict)
    """Processor seconds that made an artifact, by its id."""

    def run(self, *arguments: str) -> tuple[dict[str, Any], float]:
        """Run one `spg-pipe` command; give what it printed and its processor seconds."""
        line = [sys.executable, "-m", "pipeline.cli", *arguments]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [*line, "--json", "--store", str(self.path)], check=True, stdout=subprocess.PIPE
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return json.loads(done.stdout), spent

    def fit(self, *arguments: str) -> str:
        """Make an artifact, or find it; give its id."""
        made, spent = self.run(*arguments)
        self.spent.setdefault(made["id"], spent)
        return str(made["id"])

    def megabytes(self, identifier: str) -> float:
        """Give the size of an artifact's files."""
        [folder] = self.path.glob(f"*/{identifier}")
        return megabytes(folder)


@dataclass(frozen=True)
class Scored:
    """One detector on one target by one seed."""

    values: Mapping[str, float]
    fitted: float
    scored: float
    megabytes: float


def extract(store: Store, split: str, layers: Sequence[str]) -> Keys:
    """Make the caches of a split; give the key of each by dataset and layer."""
    keys: Keys = {}
    for dataset, layout in LAYOUTS.items():
        weights = SHARED / "weights" / "vit_tiny_patch16_224.safetensors"
        made, spent = store.run(
            "extract", "--backbone", BACKBONE, "--image-size", "448", "--weights", str(weights),
            "--dataset", layout, "--name", dataset, "--root", str(SHARED / "data" / dataset),
            "--layer", ",".join(layers), "--split", split,
        )  # fmt: skip
        paths = [Path(one["path"]) for one in made["caches"]]
        keys |= {(dataset, layer): one.name for layer, one in zip(layers, paths, strict=True)}
        told = f"{made['images']} images, {spent:.0f} s, {megabytes(paths[0]):.0f} MB a layer"
        print(f"{dataset}, {split}, layers {', '.join(layers)}: {told}", flush=True)
    return keys


def megabytes(folder: Path) -> float:
    """Give the size of the files in a folder."""
    return sum(one.stat().st_size for one in folder.rglob("*") if one.is_file()) / 1e6


def detectors(store: Store, keys: Keys, auxiliary: str, target: str, seed: int) -> Parts:
    """Fit every detector of a direction; give the parts of each by its name."""
    every = ("--seed", str(seed))
    saes, guides = {}, {}
    for layer in LAYERS:
        key = keys[auxiliary, layer]
        source = ("--dataset", auxiliary, "--backbone", BACKBONE, "--key", key)
        saes[layer] = store.fit("fit-sae", *source, *SAE, "--k", "32", *every)
        guides[layer] = store.fit("fit-guides", "--sae", saes[layer], *every)
        store.spent[guides[layer]] += store.spent[saes[layer]]
    made: Parts = {f"SPG, block {layer}": [guides[layer]] for layer in LAYERS}
    for how in ("mean", "max", "learned"):
        made[f"SPG, blocks 5, 8, 11, {how}"] = [guides[layer] for layer in TOGETHER]
    for kind, said in (("none", "free guides"), ("pca", "PCA"), ("random", "random atoms")):
        options = ("--sae", saes[LAST], "--dictionary", kind)
        made[f"{said}, block 11"] = [store.fit("fit-guides", *options, *every)]
    for shots in SHOTS:
        memory = ("--dataset", target, "--backbone", BACKBONE, "--shots", str(shots), *every)
        found = [
            store.fit("fit-memory", *memory, "--key", keys[f"{target}, train", layer])
            for layer in TOGETHER
        ]
        made[f"memory of {shots}, block 11"] = found[-1:]
        made[f"memory of {shots}, blocks 5, 8, 11"] = found
    return made


def score(store: Store, name: str, parts: Sequence[str], target: str, key: str) -> Scored:
    """Score the test images of the target with a detector, `key` its first part's cache."""
    how = name.rpartition(", ")[2]
    options = ["--combine", how] if how in ("max", "learned") else []
    found, spent = store.run(
        "score", "--guides", ",".join(parts), "--dataset", target, "--key", key, *options
    )
    return Scored(
        {one: found["metrics"]["mean"][one] for one in COLUMNS},
        sum(store.spent[one] for one in parts),
        spent,
        sum(store.megabytes(one) for one in parts),
    )


def row(name: str, found: Sequence[Scored]) -> str:
    """Give a line of the table: mean and spread of all seeds."""
    cells = [name]
    for column in COLUMNS:
        values = [100 * one.values[column] for one in found]
        spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
        cells.append(f"{statistics.fmean(values):.1f}{spread}")
    cells.append(f"{statistics.fmean(one.fitted for one in found):.0f}")
    cells.append(f"{statistics.fmean(one.scored for one in found):.0f}")
    cells.append(f"{statistics.fmean(one.megabytes for one in found):.2f}")
    return f"| {' | '.join(cells)} |"


def side_by_side(store: Store, directions: Sequence[tuple[str, str]], seeds: Sequence[int]) -> None:
    """Print a table a direction, again after each seed."""
    keys = extract(store, "test", LAYERS)
    trains = extract(store, "train", TOGETHER)
    keys |= {(f"{dataset}, train", layer): key for (dataset, layer), key in trains.items()}
    found: dict[tuple[str, str], dict[str, list[Scored]]] = {one: {} for one in directions}
    for seed in seeds:
        for (auxiliary, target), rows in found.items():
            for name, parts in detectors(store, keys, auxiliary, target, seed).items():
                first = name.partition("block")[2].strip("s ").partition(",")[0]
                scored = score(store, name, parts, target, keys[target, first])
                rows.setdefault(name, []).append(scored)
            print(f"\n**{auxiliary} -> {target}**, seeds {seeds[: len(rows[name])]}\n")
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
            made, spent = store.run(
                "sweep", "--aux", auxiliary, "--target", target, "--backbone", BACKBONE,
                "--layer", ",".join(LAYERS), "--width", "1024", "--k", ",".join(map(str, ks)),
                "--seed", str(seed), "--vary", "sae.epochs=5",
            )  # fmt: skip
            print(f"\n**{auxiliary} -> {target}**, seed {seed}, {spent:.0f} s\n")
            print("| block | k | image AUROC | pixel AUROC | AUPRO | best |")
            print("|--:|--:|--:|--:|--:|---|")
            best = {}
            for layer in LAYERS:
                here = [one for one in made["rows"] if str(one["layer"]) == layer]
                best[layer] = max(here, key=lambda one: float(one["pixel_aupro"]))
                for one in here:
                    values = " | ".join(f"{100 * one[column]:.1f}" for column in COLUMNS)
                    star = "*" if one is best[layer] else ""
                    print(f"| {layer} | {one['k']} | {values} | {star} |", flush=True)
            parts = ",".join(best[layer]["guides"] for layer in TOGETHER)
            found, _ = store.run(
                "score", "--guides", parts, "--dataset", target, "--key", keys[target, "5"]
            )
            mean = found["metrics"]["mean"]
            values = " | ".join(f"{100 * mean[column]:.1f}" for column in COLUMNS)
            print(f"| 5, 8, 11 | each its best | {values} | |", flush=True)


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

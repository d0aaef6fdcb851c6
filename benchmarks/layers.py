"""Several layers and backbones in one pass, against a run for each: what is done, and how long.

    python -m benchmarks.layers [--dataset surface] [--rounds 5] [--full]

ViT-Tiny at 448 px on the real samples. Each extraction goes into an empty store, writing included,
the loading of models and the estimate not; all are run one after the other in every round, and
medians of the rounds are given. The second backbone is a DeiT-Tiny with the same weights: another
mean and std. `--full` sends one image through a `dinov3` of full size with random weights, for four
layers at once and one by one, and compares every stored byte.
"""

import argparse
import os
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any
from unittest import mock

import torch

from benchmarks.extraction import config_of
from benchmarks.presets import random_weights
from benchmarks.real_samples import SHARED
from cache.local_objects import LocalObjects
from cache.store import open_store
from manifests.table import Manifest
from pipeline.backbones.load import Backbone, PatchTokens
from pipeline.backbones.preprocess import normalise, squash_of
from pipeline.configs import ClusterConfig, ExtractConfig
from pipeline.extraction import announce, fill, model_inputs, shards
from pipeline.extraction.extract import checked_manifest

LAYERS = ("2", "5", "8", "11")
Run = tuple[str, Sequence[ExtractConfig]]


def processor() -> str:
    """Give the processor's name, as Linux knows it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((one.split(":")[1].strip() for one in lines if "model name" in one), "unknown")


@contextmanager
def counting() -> Iterator[Counter[str]]:
    """Count images decoded, images through a forward pass, and bytes written."""
    seen: Counter[str] = Counter()
    load, forward, put = model_inputs._load, Backbone.layers, LocalObjects.put_new

    def loading(root: Path, files: model_inputs.Files, *more: Any) -> Any:
        seen["frames decoded"] += 1
        return load(root, files, *more)

    def forwarding(self: Backbone, pixels: torch.Tensor) -> list[PatchTokens]:
        seen["images forwarded"] += len(pixels)
        return forward(self, pixels)

    def putting(self: LocalObjects, name: str, parts: Sequence[Any], **more: Any) -> bool:
        seen["bytes"] += sum(memoryview(part).nbytes for part in parts)
        return put(self, name, parts, **more)

    with (
        mock.patch.object(model_inputs, "_load", loading),
        mock.patch.object(Backbone, "layers", forwarding),
        mock.patch.object(LocalObjects, "put_new", putting),
        mock.patch.object(announce, "seconds_an_image", return_value=1.0),
    ):
        yield seen


def extracted(config: ExtractConfig, manifest: Manifest, folder: str) -> None:
    """Extract with models that are loaded already, into a store, without the estimate."""
    loaded = {name: shards.open_backbone(config, name) for name in config.backbone}
    with mock.patch.object(shards, "open_backbone", lambda _, name: loaded[name]):
        start = perf_counter()
        fill.fill_caches(open_store(folder), config, ClusterConfig(), lambda _: manifest)
        TIMES.append(perf_counter() - start)


TIMES: list[float] = []
"""Seconds of each extraction of the run under way."""


def measured(configs: Sequence[ExtractConfig], manifest: Manifest) -> tuple[float, Counter[str]]:
    """Run extractions one after the other into empty stores; give seconds and counts of all."""
    TIMES.clear()
    with counting() as seen:
        for config in configs:
            with tempfile.TemporaryDirectory() as folder:
                extracted(config, manifest, folder)
    return sum(TIMES), seen


def table(runs: Sequence[Run], manifest: Manifest, rounds: int) -> None:
    """Print a row a run; the times are medians, and over the first run's of their round."""
    seconds: dict[str, list[float]] = {name: [] for name, _ in runs}
    counts: dict[str, Counter[str]] = {}
    for _ in range(rounds):
        for name, configs in runs:
            spent, counts[name] = measured(configs, manifest)
            seconds[name].append(spent)
    first = seconds[runs[0][0]]
    print("| run | frames decoded | images forwarded | MB written | seconds | over the first |")
    print("|---|--:|--:|--:|--:|--:|")
    for name, _ in runs:
        seen, taken = counts[name], seconds[name]
        ratio = statistics.median(a / b for a, b in zip(taken, first, strict=True))
        cells = [name, str(seen["frames decoded"]), str(seen["images forwarded"])]
        cells += [f"{seen['bytes'] / 1e6:.1f}", f"{statistics.median(taken):.2f}", f"{ratio:.2f}"]
        print(f"| {' | '.join(cells)} |", flush=True)


def in_pieces(config: ExtractConfig, manifest: Manifest) -> tuple[float, float]:
    """Give seconds of decoding every image once, and of all forward passes, one after the other."""
    backbones = [shards.open_backbone(config, name) for name in config.backbone]
    specs = [one.spec for one in backbones]
    start = perf_counter()
    with ThreadPoolExecutor(config.decoders) as pool:
        root, size = Path(config.root), config.batch_size
        batches = list(model_inputs.model_inputs(manifest, root, specs, size, pool))
    decoded = perf_counter() - start
    for batch in batches:
        for backbone in backbones:
            pixels = torch.from_numpy(batch.pixels[squash_of(backbone.spec)])
            backbone.layers(normalise(pixels, backbone.spec))
    return decoded, perf_counter() - start - decoded


def full_size() -> None:
    """Compare four layers of a full-size dinov3 from one forward with each from its own."""
    with tempfile.TemporaryDirectory() as scratch:
        path, _ = random_weights("dinov3", Path(scratch))
        root = SHARED / "data" / "mvtec"
        config = ExtractConfig(
            backbone=("dinov3",), dataset="mvtec", root=str(root), limit=1, device="cpu",
            weights=(str(path),), layer=("every:6",), decoders=0,
        )  # fmt: skip
        manifest = Manifest(checked_manifest(config).select([0]))
        stores = [Path(scratch) / name for name in ("together", "apart")]
        start = perf_counter()
        made = fill.fill_caches(open_store(stores[0]), config, ClusterConfig(), lambda _: manifest)
        together = perf_counter() - start
        for layer in ("5", "11", "17", "23"):
            alone = replace(config, layer=(layer,))
            fill.fill_caches(open_store(stores[1]), alone, ClusterConfig(), lambda _: manifest)
        apart = perf_counter() - start - together
        for one in made:
            inside = Path(one.path).relative_to(stores[0])
            files = [file for file in (stores[0] / inside).rglob("*") if file.is_file()]
            same = [file for file in files if file.name != "cache.json"]
            assert all(
                file.read_bytes() == (stores[1] / file.relative_to(stores[0])).read_bytes()
                for file in same
            )
            print(f"dinov3 layer {one.spec.layer}: {one.key}, {len(same)} files of equal bytes")
        print(f"{together:.1f} s together, {apart:.1f} s apart, models loaded each time")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="surface")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--full", action="store_true")
    options = parser.parse_args()
    if not (SHARED / "data").is_dir():
        sys.exit("the real samples (../shared) are not beside this checkout")
    load = os.getloadavg()[0]
    print(f"{processor()}, {torch.get_num_threads()} torch threads, load {load:.1f} at the start\n")
    if options.full:
        full_size()
        return
    config = config_of(options.dataset, 2)
    manifest = checked_manifest(config)
    one = replace(config, layer=("11",))
    apart = [replace(config, layer=(layer,)) for layer in LAYERS]
    together = replace(config, layer=LAYERS)
    table([("one layer", [one]), ("four, together", [together]), ("four, apart", apart)],
          manifest, options.rounds)  # fmt: skip
    print()
    backbone = config.backbone[0]
    small = "timm:deit_tiny_patch16_224"
    file = config.weights[0]
    pair = replace(
        config, backbone=(backbone, small), weights=(f"{backbone}={file}", f"{small}={file}")
    )
    second = replace(pair, backbone=(small,), weights=(file,))
    table(
        [("first backbone", [config]), ("second backbone", [second]), ("both, together", [pair])],
        manifest, options.rounds,
    )  # fmt: skip
    pieces = [in_pieces(pair, manifest) for _ in range(options.rounds)]
    decoded, forward = (statistics.median(one) for one in zip(*pieces, strict=True))
    print(f"\nboth's forward passes alone {forward:.2f} s, decoding alone {decoded:.2f} s")


if __name__ == "__main__":
    main()

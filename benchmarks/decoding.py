"""Time a cold extraction with a model that costs nothing beside decoding the same images alone.

    python -m benchmarks.decoding [--datasets surface mvtec] [--cores 1 2] [--rounds 3]

The model: the colour of one pixel of each 16-pixel patch at 448 px, times a matrix of 3 x 64. It
takes bytes, as a GPU gets them; a model on the processor gets them normalised, which the column
`on the CPU` includes.
Decoding: each image and mask read, digested, decoded and resized, by as many threads as there are
cores; it is what an extraction cannot do without. Cold extraction: the folder listed and checked,
nothing remembered, the manifest made, shards written with digests and fsync, the cache finished.
Warm: checked before.
Rounds alternate, each number of cores in a process of its own that is held to them; figures are
medians, a ratio the median of the rounds' ratios. On a GPU the model is no free one, but decoders
have all cores but one, as here.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor, nn

from benchmarks.real_samples import LAYOUTS, SHARED
from cache.store import open_store
from manifests.table import Manifest
from pipeline.backbones.load import Backbone
from pipeline.backbones.spec import BackboneSpec
from pipeline.configs import ExtractConfig
from pipeline.extraction import compute, shards
from pipeline.extraction.extract import checked_manifest, extract
from pipeline.extraction.model_inputs import model_inputs
from pipeline.machine.cores import usable_cores
from pipeline.machine.device import processor_name
from pipeline.machine.freed_memory import keep_freed_memory
from spg_core.types import PatchGrid

SIDE, PATCH, DIM = 448, 16, 64
GOAL = 0.9
RUNS = ("cold", "warm", "on the CPU")


class Cheap(nn.Module):
    """A colour of each patch, times a matrix."""

    matrix: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("matrix", torch.linspace(-1, 1, 3 * DIM).view(3, DIM))

    def forward(self, pixels: Tensor) -> list[tuple[Tensor, None]]:
        """Turn `(B, 3, 448, 448)` into `(B, 784, 64)`."""
        patches = pixels[:, :, ::PATCH, ::PATCH].float().flatten(2).transpose(1, 2)
        return [(patches @ self.matrix, None)]


def cheap_backbone(config: ExtractConfig, name: str) -> Backbone:
    side = SIDE // PATCH
    spec = BackboneSpec(
        name=name, library="benchmarks", model="cheap", weights_sha256="0" * 64, layer=None,
        final_norm=False, projection=False, height=SIDE, width=SIDE, grid=PatchGrid(side, side),
        d_model=DIM, has_cls=False, resize_filter="bicubic", mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5), compute_dtype="float32", exif=False,
    )  # fmt: skip
    return Backbone(Cheap(), [spec], torch.device("cpu"))


def config_of(dataset: str) -> ExtractConfig:
    return ExtractConfig(
        backbone=("gabor",),
        dataset=LAYOUTS[dataset],
        name=dataset,
        root=str(SHARED / "data" / dataset),
        device="cpu",
        decoders=usable_cores(),
    )


def decoding(config: ExtractConfig, manifest: Manifest) -> None:
    """Decode all, in batches that are let go."""
    specs = [cheap_backbone(config, "gabor").spec]
    with ThreadPoolExecutor(usable_cores()) as pool:
        for _ in model_inputs(manifest, Path(config.root), specs, config.batch_size, pool):
            pass


def extraction(config: ExtractConfig, memos: str) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.dict(os.environ, XDG_CACHE_HOME=memos),
        mock.patch.object(shards, "open_backbone", cheap_backbone),
    ):
        extract(open_store(folder), config)


def as_bytes(pixels: Tensor, _: BackboneSpec) -> Tensor:
    """Hand pixels `(B, H, W, 3)` over as they are, channels first."""
    return pixels.permute(0, 3, 1, 2)


def seconds(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def measure(dataset: str, rounds: int) -> dict[str, float]:
    """Give images a second of the three, and the ratios, in this process."""
    config = config_of(dataset)
    taken: dict[str, list[float]] = {name: [] for name in ("decoding", *RUNS)}
    with tempfile.TemporaryDirectory() as memos:
        with mock.patch.dict(os.environ, XDG_CACHE_HOME=memos):
            manifest = checked_manifest(config)
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as fresh:
                taken["decoding"].append(seconds(lambda: decoding(config, manifest)))
                with mock.patch.object(compute, "normalise", as_bytes):
                    taken["cold"].append(seconds(partial(extraction, config, fresh)))
                    taken["warm"].append(seconds(partial(extraction, config, fresh)))
            with tempfile.TemporaryDirectory() as fresh:
                taken["on the CPU"].append(seconds(partial(extraction, config, fresh)))
    found = {name: manifest.n_images / statistics.median(took) for name, took in taken.items()}
    for name in RUNS:
        ratios = [a / b for a, b in zip(taken["decoding"], taken[name], strict=True)]
        found[f"{name} over decoding"] = statistics.median(ratios)
    return {"images": manifest.n_images, **found}


def held_to(n_cores: int, dataset: str, rounds: int) -> dict[str, float]:
    """Measure in a process that has only so many cores."""
    cores = set(sorted(os.sched_getaffinity(0))[:n_cores])
    command = [sys.executable, "-m", "benchmarks.decoding", "--child", dataset]
    ran = subprocess.run(
        [*command, "--rounds", str(rounds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    found: dict[str, float] = json.loads(ran.stdout)
    return found


def main(datasets: list[str], cores: list[int], rounds: int) -> None:
    print(f"{processor_name()}, Python {platform.python_version()}, {rounds} rounds\n")
    names = ["decoding", *RUNS, *(f"{name} over decoding" for name in RUNS)]
    print("| samples | cores | images | images/s: " + " | ".join(names) + " | |")
    print("|---|--:|--:|" + "--:|" * len(names) + "---|")
    for dataset in datasets:
        for n_cores in cores:
            found = held_to(n_cores, dataset, rounds)
            cells = [f"{found[name]:.2f}" for name in names]
            met = "met" if found["cold over decoding"] >= GOAL else "missed"
            print(
                f"| {dataset} | {n_cores} | {found['images']:.0f} | {' | '.join(cells)} | {met} |"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--datasets", nargs="+", default=["surface", "mvtec"])
    parser.add_argument("--cores", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child")
    asked = parser.parse_args()
    if asked.child:
        keep_freed_memory()
        print(json.dumps(measure(asked.child, asked.rounds)))
    else:
        main(asked.datasets, asked.cores, asked.rounds)

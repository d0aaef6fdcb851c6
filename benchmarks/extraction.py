"""Time an extraction of the real samples beside the model's forward pass alone.

    python -m benchmarks.extraction [--rounds 3] [--datasets surface mvtec] [--decoders 2]

ViT-Tiny at 448 px, float32, on the CPU. Forward alone: timm's model, called as it is, on batches of
16 images that are decoded and in memory; and the same model as we call it, images shared out over
the cores and oneDNN inside (`pipeline/backbones/on_cpu.py`). Extraction: every image and mask read,
digested, decoded, resized and fed to the model, shards written with digests and fsync, the cache
finished; without the search for images and the loading of the model, which happen once. Rounds
alternate; figures are medians, a ratio the median of the rounds' ratios. `cpu` is processor seconds
of all processes and threads, which other processes on the machine disturb less.

`--freed kept` keeps freed memory, for all three, as `spg-pipe` does for itself; `--freed returned`
leaves it to the C library, as any program finds it. Who uses timm has the one, who uses the command
the other.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor

from benchmarks.real_samples import BACKBONE, LAYOUTS, SHARED
from cache.store import open_store
from manifests.table import Manifest
from pipeline.backbones.load import Backbone
from pipeline.backbones.preprocess import normalise, squash_of
from pipeline.configs import ClusterConfig, ExtractConfig
from pipeline.extraction import announce, fill, shards
from pipeline.extraction.extract import checked_manifest
from pipeline.extraction.model_inputs import model_inputs
from pipeline.machine.cores import BESIDE_A_MODEL
from pipeline.machine.freed_memory import keep_freed_memory

Seconds = tuple[float, float]
"""On the clock, on the processors."""


def config_of(dataset: str, decoders: int) -> ExtractConfig:
    return ExtractConfig(
        backbone=(BACKBONE,),
        dataset=LAYOUTS[dataset],
        name=dataset,
        root=str(SHARED / "data" / dataset),
        image_size=448,
        weights=(str(SHARED / "weights" / "vit_tiny_patch16_224.safetensors"),),
        device="cpu",
        decoders=decoders,
    )


def now() -> Seconds:
    return time.perf_counter(), sum(os.times()[:4])


def since(start: Seconds) -> Seconds:
    end = now()
    return end[0] - start[0], end[1] - start[1]


def decoded(config: ExtractConfig, manifest: Manifest, backbone: Backbone) -> list[Tensor]:
    with ThreadPoolExecutor(max(1, config.decoders or 0)) as pool:
        decoders = pool if config.decoders else None
        root, spec = Path(config.root), backbone.spec
        inputs = model_inputs(manifest, root, [spec], config.batch_size, decoders)
        return [
            normalise(torch.from_numpy(batch.pixels[squash_of(spec)]), spec) for batch in inputs
        ]


@torch.inference_mode()
def forward(model: Callable[[Tensor], object], batches: list[Tensor]) -> Seconds:
    start = now()
    for pixels in batches:
        model(pixels)
    return since(start)


def extraction(config: ExtractConfig, manifest: Manifest, backbone: Backbone) -> Seconds:
    """Extract into an empty store with a model that is loaded already, and without the estimate."""
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(shards, "open_backbone", return_value=backbone),
        mock.patch.object(announce, "seconds_an_image", return_value=1.0),
    ):
        start = now()
        fill.fill_caches(open_store(folder), config, ClusterConfig(), lambda _: manifest)
        return since(start)


def decoding(config: ExtractConfig, manifest: Manifest, backbone: Backbone) -> Seconds:
    """Decode all inputs in this process, with one thread as in a decoder's."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    start = now()
    decoded(replace(config, decoders=0), manifest, backbone)
    torch.set_num_threads(threads)
    return since(start)


def main(datasets: list[str], rounds: int, decoders: int) -> None:
    print(f"{torch.get_num_threads()} torch threads, {decoders} decoders, {rounds} rounds\n")
    print(
        "| samples | images | images/s: timm's forward | our forward | extraction | "
        "extraction over timm's | over ours | cpu ms an image: timm's | ours | extraction | "
        "decoding |"
    )
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    for dataset in datasets:
        config = config_of(dataset, decoders)
        manifest = checked_manifest(config)
        backbone = shards.open_backbone(config, BACKBONE)
        batches = decoded(config, manifest, backbone)
        plain, own, whole = measure(config, manifest, backbone, batches, rounds)
        n = manifest.n_images
        rates = [
            n / statistics.median(clock for clock, _ in taken) for taken in (plain, own, whole)
        ]
        ratios = [
            statistics.median(a[0] / b[0] for a, b in zip(alone, whole, strict=True))
            for alone in (plain, own)
        ]
        used = [statistics.median(cpu for _, cpu in taken) for taken in (plain, own, whole)]
        used.append(decoding(config, manifest, backbone)[1])
        cells = [dataset, str(n), *(f"{value:.2f}" for value in rates + ratios)]
        cells += [f"{cpu / n * 1e3:.0f}" for cpu in used]
        print(f"| {' | '.join(cells)} |", flush=True)


def measure(
    config: ExtractConfig,
    manifest: Manifest,
    backbone: Backbone,
    batches: list[Tensor],
    rounds: int,
) -> tuple[list[Seconds], list[Seconds], list[Seconds]]:
    """Time timm's forward pass, ours, and the extraction, one after the other, every round."""
    plain: list[Seconds] = []
    own: list[Seconds] = []
    whole: list[Seconds] = []
    for model in (backbone.model, backbone):
        forward(model, batches[:1])
    for _ in range(rounds):
        plain.append(forward(backbone.model, batches))
        own.append(forward(backbone, batches))
        whole.append(extraction(config, manifest, backbone))
    return plain, own, whole


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--datasets", nargs="+", default=["surface", "mvtec"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--decoders", type=int, default=BESIDE_A_MODEL)
    parser.add_argument("--freed", choices=["kept", "returned"], default="kept")
    asked = parser.parse_args()
    if asked.freed == "kept":
        keep_freed_memory()
    main(asked.datasets, asked.rounds, asked.decoders)

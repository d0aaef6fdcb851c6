"""What grows with the number of images: caches of tiny tokens, everything around them measured.

    python -m benchmarks.growth [--images 1000 10000 100000] [--store DIR]

Tokens of 4 x 8 and no masks, so what is left is the overhead of an image: its share of shards,
receipts, records, manifest. A size is a process of its own; the model is a constant, and nothing is
decoded. Then, in the same process, one after the other: the unfinished cache is resumed (all shards
read and compared with their receipts), finished, listed, opened with its manifest, its record read
and checked, and an epoch of near-iid tokens planned to the last index, in memory and in windows of
a thousandth of it. Requests are calls of the store's operations, each a request on S3, a listing
counted once for every thousand objects. Peak memory is what the process grew by. The last column is
the slope between the two largest sizes: 1 is linear.
"""

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from cache.find import find_caches, read_record
from cache.layout import IMAGES_PER_SHARD, RECORD
from cache.local_objects import LocalObjects
from cache.objects import ObjectInfo
from cache.order import EpochOrder, plan_windows
from cache.store import open_store
from manifests.schema import SCHEMA
from manifests.table import Manifest
from pipeline.backbones.load import Backbone
from pipeline.backbones.preprocess import squash_of
from pipeline.backbones.spec import BackboneSpec
from pipeline.configs import ClusterConfig, ExtractConfig
from pipeline.extraction import announce, fill, shards
from pipeline.extraction.model_inputs import ModelInput
from pipeline.inputs import open_dataset
from pipeline.machine.device import processor_name
from spg_core.types import PatchGrid

SIDE, PATCHES, DIM, BATCH = 2, 4, 8, 4096
COUNTED = ("get", "get_range", "put_new", "replace", "size", "folders", "delete")
A_LISTING = 1000
Figures = dict[str, float]


class Constant(nn.Module):
    """The same tokens for every image."""

    def forward(self, pixels: Tensor) -> list[tuple[Tensor, None]]:
        """Turn `(B, 3, 2, 2)` into `(B, 4, 8)`."""
        return [(torch.ones(len(pixels), PATCHES, DIM), None)]


def backbone(config: ExtractConfig, name: str) -> Backbone:
    spec = BackboneSpec(
        name=name, library="benchmarks", model="constant", weights_sha256="0" * 64, layer=None,
        final_norm=False, projection=False, height=SIDE, width=SIDE, grid=PatchGrid(2, 2),
        d_model=DIM, has_cls=False, resize_filter="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3,
        compute_dtype="float32", exif=False,
    )  # fmt: skip
    return Backbone(Constant(), [spec], torch.device("cpu"))


def inputs(manifest: Manifest, *given: object) -> Iterator[ModelInput]:
    """Give black images that nobody decoded."""
    how = squash_of(backbone(CONFIG, "gabor").spec)
    for start in range(0, manifest.n_images, CONFIG.batch_size):
        n = min(CONFIG.batch_size, manifest.n_images - start)
        pixels = np.zeros((n, SIDE, SIDE, 3), np.uint8)
        yield ModelInput(n, {how: pixels}, {(SIDE, SIDE): np.zeros((n, SIDE, SIDE), np.uint8)})


CONFIG = ExtractConfig(
    backbone=("gabor",), dataset="mvtec", root=tempfile.gettempdir(), device="cpu", decoders=0,
    batch_size=64,
)  # fmt: skip


def manifest_of(n: int) -> Manifest:
    paths = [f"nut/test/good/{row:09}.png" for row in range(n)]
    columns = {
        "image_id": [sha256(path.encode()).hexdigest() for path in paths],
        "dataset": ["mvtec"] * n, "category": ["nut"] * n, "split": ["test"] * n,
        "defect": ["good"] * n, "label": [0] * n, "image_path": paths,
        "mask_path": [None] * n, "mask_id": [None] * n, "width": [SIDE] * n, "height": [SIDE] * n,
        "mask_pixels": [0] * n, "row": range(n),
    }  # fmt: skip
    return Manifest(pa.table(columns, schema=SCHEMA))


class Watch:
    """Seconds, requests to the store and growth of memory of what is done."""

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.found: dict[str, Figures] = {}

    def counting(self) -> ExitStack:
        """Count the operations of every store."""
        stack = ExitStack()
        for name in COUNTED:
            real = getattr(LocalObjects, name)
            stack.enter_context(mock.patch.object(LocalObjects, name, self._counted(name, real)))
        walk = LocalObjects.walk

        def listing(store: LocalObjects, prefix: str) -> Iterator[ObjectInfo]:
            for at, info in enumerate(walk(store, prefix)):
                self.requests["list"] += at % A_LISTING == 0
                yield info

        stack.enter_context(mock.patch.object(LocalObjects, "walk", listing))
        return stack

    def _counted(self, name: str, real: Callable[..., object]) -> Callable[..., object]:
        def counted(*given: object, **named: object) -> object:
            self.requests[name] += 1
            return real(*given, **named)

        return counted

    def time(self, what: str, run: Callable[[], object]) -> None:
        """Do it, and note what it took."""
        self.requests.clear()
        before, start = peak(), time.perf_counter()
        run()
        self.found[what] = {
            "s": time.perf_counter() - start,
            "requests": self.requests.total(),
            "MB": (peak() - before) / 1e6,
        }


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def plan(n_tokens: int, bounded: bool) -> None:
    """Go through the indices of all batches of an epoch."""
    if not bounded:
        order = EpochOrder(n_tokens, 1, 0, "tokens", BATCH)
        for step in range(order.n_steps):
            order.step(step)
        return
    windows = plan_windows(n_tokens, BATCH, max(2 * BATCH, n_tokens // 1000))
    for window in range(windows.n_windows):
        windows.window_tokens(window, 1, 0)


def measure(n: int, place: Path) -> dict[str, Figures]:
    """Make a cache of n images in a folder, and do everything with it."""
    watch, store, manifest = Watch(), open_store(place), manifest_of(n)
    with (
        watch.counting(),
        mock.patch.object(shards, "open_backbone", backbone),
        mock.patch.object(shards, "model_inputs", inputs),
        mock.patch.object(announce, "seconds_an_image", return_value=1e-6),
        mock.patch.object(fill, "finish"),
    ):
        watch.time(
            "extract",
            lambda: fill.fill_caches(store, CONFIG, ClusterConfig(), lambda _: manifest),
        )
        [info] = find_caches(store)
        spec = backbone(CONFIG, "gabor").spec
        writer = shards.open_writer(store, CONFIG, manifest, spec)
        watch.time("resume", writer.pending_shards)
    with watch.counting():
        from pipeline.extraction.finish import finish

        watch.time("finish", lambda: finish(writer, manifest, 1.0, "cpu"))
        watch.time("list", lambda: find_caches(store))
        watch.time("record", lambda: read_record(store, info.folder))
        watch.time("open", lambda: open_dataset(store, "mvtec", "gabor"))
        watch.time("plan in memory", lambda: plan(n * PATCHES, bounded=False))
        watch.time("plan in windows", lambda: plan(n * PATCHES, bounded=True))
    sizes = {one.name.rpartition("/")[2]: one.size_bytes for one in store.walk(info.folder)}
    watch.found["bytes an image"] = {
        "record": sizes[RECORD] / n, "manifest": sizes["manifest.parquet"] / n,
        "objects": sum(1 for _ in store.walk(info.folder)) / n,
    }  # fmt: skip
    return watch.found


def slope(sizes: list[int], values: list[float]) -> str:
    if len(sizes) < 2 or min(values[-2:]) <= 0:
        return ""
    return f"{math.log(values[-1] / values[-2]) / math.log(sizes[-1] / sizes[-2]):.2f}"


def main(sizes: list[int], place: str | None) -> None:
    found = []
    for n in sizes:
        with tempfile.TemporaryDirectory(dir=place) as folder:
            command = [sys.executable, "-m", "benchmarks.growth", "--child", str(n)]
            ran = subprocess.run(
                [*command, "--store", folder], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                check=True, text=True,
            )  # fmt: skip
        found.append(json.loads(ran.stdout))
    print(f"{processor_name()}; {IMAGES_PER_SHARD} images a shard\n")
    print(f"| | {' | '.join(f'{n:,}' for n in sizes)} | slope |")
    print("|---|" + "--:|" * (len(sizes) + 1))
    for what, figures in found[0].items():
        for unit in figures:
            values = [one[what][unit] for one in found]
            shown = " | ".join(f"{value:.4g}" for value in values)
            print(f"| {what}, {unit} | {shown} | {slope(sizes, values)} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", nargs="+", type=int, default=[1000, 10_000, 100_000])
    parser.add_argument("--store")
    parser.add_argument("--child", type=int)
    asked = parser.parse_args()
    if asked.child:
        print(json.dumps(measure(asked.child, Path(asked.store) / "store")))
    else:
        main(asked.images, asked.store)

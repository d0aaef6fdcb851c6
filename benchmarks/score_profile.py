"""Where the time of scoring one category goes, stage by stage.

    python -m benchmarks.score_profile [--store DIR] [--images 200] [--rounds 5]

Two caches: the real samples with a trained ViT-Tiny (192 values a token; extracted and fitted in a
temporary folder where no `--store` is given), and made-up tokens of the width of a ViT-L (1024),
written by `CacheWriter`. The cache is opened anew each round, so that every checksum is taken, as
in a `spg-pipe score`; the files themselves are warm. The scoring code is not changed: its functions
are wrapped by a clock of processor time, all threads counted, and a stage's time is its own,
without that of the stages inside it. The figure is the best round. Prints a Markdown table for each
category.
"""

import argparse
import importlib
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from benchmarks.metrics import SIDE, sample_image
from benchmarks.real_samples import BACKBONE, SHARED, command, extract
from cache.layout import Geometry
from cache.objects import Objects
from cache.store import open_store
from cache.writer import CacheWriter
from manifests.schema import SCHEMA
from manifests.table import Manifest, manifest_to_bytes
from pipeline.artifacts import load_artifact
from pipeline.backbones.spec import BackboneSpec
from pipeline.configs import ScoreConfig
from pipeline.detection.detector import Detector, detector_of
from pipeline.detection.load import make_detector
from pipeline.detection.parts import GuidesPart
from pipeline.inputs import CachedDataset, open_dataset
from pipeline.scoring.blocks import MapPlan, Scoring
from pipeline.scoring.categories import finish_category, submit_category, submit_inputs
from pipeline.workers.work import Here
from spg_core.types import PatchGrid

READ, CAST, GUIDES = "tokens: read, checksums", "tokens: to float32, length 1", "guides, softmax"
MAPS, POOL = "upsampling and smoothing", "image scores and their metrics"
MASKS, LABEL = "masks: read, decompress", "pixel metrics: regions of the masks"
COPY, SORT, COUNT, FINISH = (
    f"pixel metrics: {what}" for what in ("checks, copies", "sorting", "counting", "the numbers")
)
BLOCKS, CATEGORIES = "pipeline.scoring.blocks", "pipeline.scoring.categories"
DEFECTS, COUNTS = "spg_core.defect_pixels", "spg_core.pixel_counts"
STAGES: dict[str, tuple[str, ...]] = {
    READ: ("cache.reader.TokenCache.tokens",),
    CAST: (f"{BLOCKS}.part_values", "pipeline.detection.values.unit"),
    GUIDES: ("pipeline.detection.parts.GuidesPart.values",),
    MAPS: (f"{BLOCKS}.draw_maps",),
    POOL: (
        f"{CATEGORIES}.block_scores",
        f"{CATEGORIES}.image_metrics",
        f"{CATEGORIES}.image_curves",
    ),
    MASKS: ("cache.reader.TokenCache.masks",),
    LABEL: (f"{DEFECTS}.region_sizes",),
    COPY: (
        f"{BLOCKS}.defect_pixels",
        f"{DEFECTS}.checked",
        f"{COUNTS}.checked",
        f"{COUNTS}.write_normal_keys",
    ),
    SORT: (f"{COUNTS}.sort_with_thresholds", f"{DEFECTS}.sort_packed"),
    COUNT: (f"{BLOCKS}.count_normals", f"{BLOCKS}.merge_defects", f"{CATEGORIES}.merge_counts"),
    FINISH: (f"{CATEGORIES}.metrics_from_counts", f"{CATEGORIES}.pixel_curves"),
}
METRICS = (LABEL, COPY, SORT, COUNT, FINISH)
OTHER = "the rest"


class Clock:
    """Processor seconds by stage, each without the stages inside it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._running: list[str] = []
        self._since = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Charge the time inside to `name`."""
        self._charge()
        self._running.append(name)
        try:
            yield
        finally:
            self._charge()
            self._running.pop()

    def wrap(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """Give `function` with its time charged to `name`."""

        def timed(*arguments: Any, **named: Any) -> Any:
            with self.stage(name):
                return function(*arguments, **named)

        return timed

    def _charge(self) -> None:
        now = time.process_time()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
        self._since = now


@contextmanager
def timed_stages(clock: Clock) -> Iterator[None]:
    """Wrap every function of `STAGES` for the time of the block."""
    with ExitStack() as patches:
        for name, targets in STAGES.items():
            for target in targets:
                owner_name, _, attribute = target.rpartition(".")
                owner = _resolve(owner_name)
                timed = clock.wrap(getattr(owner, attribute), name)
                patches.enter_context(patch.object(owner, attribute, timed))
        yield


def _resolve(name: str) -> Any:
    """Give a module, or a class of a module, by its dotted name."""
    parent, _, last = name.rpartition(".")
    return (
        getattr(importlib.import_module(parent), last)
        if last[0].isupper()
        else (importlib.import_module(name))
    )


def profile(
    store: Objects,
    opened: Callable[[], CachedDataset],
    detector: Detector,
    category: str,
    rounds: int,
) -> tuple[dict[str, float], int]:
    """Score a category several times; give ms an image by stage, of the best round, and images."""
    config, best = ScoreConfig(), {"": float("inf")}
    plans = [MapPlan(detector, (config.pooling,))]
    for _ in range(rounds + 1):  # the first warms up
        data, clock = opened(), Clock()
        rows = data.manifest.rows_of(category)
        with timed_stages(clock), clock.stage(OTHER):
            workers = Here(Scoring(store, data, plans))
            pending = submit_category(workers, submit_inputs(workers, data, category, rows), 0)
            finish_category(workers, data, plans[0], [config], pending)
        if sum(clock.seconds.values()) < sum(best.values()):
            best = dict(clock.seconds)
    return {name: 1e3 * seconds / len(rows) for name, seconds in best.items()}, len(rows)


def table(title: str, taken: dict[str, float]) -> str:
    """Give a Markdown table of stages, with the pixel metrics' share of the whole."""
    total = sum(taken.values())
    lines = [f"**{title}**", "", "| stage | ms an image | share |", "|---|--:|--:|"]
    rows = [(name, taken.get(name, 0.0)) for name in (*STAGES, OTHER)]
    rows.append(("pixel metrics together", sum(taken.get(name, 0.0) for name in METRICS)))
    rows.append(("all", total))
    for name, value in rows:
        lines.append(f"| {name} | {value:.2f} | {100 * value / total:.0f} % |")
    return "\n".join([*lines, ""])


def real_store(url: str | None, scratch: Path) -> Objects:
    """Give a store with the tokens of the real samples, and guides fitted on `surface`."""
    if url is not None:
        return open_store(url, read_only=True)
    key = extract(scratch, "surface")
    extract(scratch, "mvtec")
    source = ["--dataset", "surface", "--backbone", BACKBONE, "--key", key]
    sae = command(scratch, "fit-sae", *source, "--width", "1024", "--epochs", "5")["id"]
    command(scratch, "fit-guides", "--sae", sae)
    return open_store(scratch, read_only=True)


def wide_spec(d_model: int) -> BackboneSpec:
    """Describe tokens as those of a ViT-L/16 at 448 pixels, made up."""
    return BackboneSpec(
        name="made-up",
        library="none",
        model="none",
        weights_sha256="0" * 64,
        layer=None,
        final_norm=True,
        projection=False,
        height=SIDE,
        width=SIDE,
        grid=PatchGrid(28, 28),
        d_model=d_model,
        has_cls=False,
        resize_filter="bicubic",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        compute_dtype="float32",
        exif=False,
    )


def write_wide(store: Objects, spec: BackboneSpec, n_images: int) -> Detector:
    """Write a cache of noise, to which each patch adds one direction; give guides along it."""
    rng = np.random.default_rng(0)
    direction = rng.standard_normal(spec.d_model, np.float32)
    direction /= np.linalg.norm(direction)
    temperature = 0.07
    geometry = Geometry(
        n_images=n_images, tokens_per_image=784, d_model=spec.d_model, mask_size=(SIDE, SIDE)
    )
    writer = CacheWriter(store, "made-up", "made-up", {"backbone": spec.covers()}, geometry)
    for shard in writer.pending_shards():
        made = [sample_image(rng, image) for image in writer.shard_rows(shard)]
        logits = np.stack([one.reshape(28, 16, 28, 16).mean((1, 3)).ravel() for one, _ in made])
        # Noise has length sqrt(d), so this much of the direction gives the logit wanted.
        along = logits * (np.sqrt(spec.d_model) * temperature / 2)
        noise = rng.standard_normal((*along.shape, spec.d_model), np.float32)
        tokens = (noise + along[..., None] * direction).astype(np.float16)
        writer.write_shard(shard, tokens, None, np.stack([mask for _, mask in made]))
    writer.finish(manifest_to_bytes(wide_manifest(n_images)))
    guides = torch.from_numpy(np.stack([-direction, direction]))
    part = GuidesPart("made-up", spec, guides, temperature)
    return detector_of("made-up", [part], ScoreConfig())


def wide_manifest(n_images: int) -> Manifest:
    """Describe made-up images of one category, a quarter of them normal."""
    import pyarrow as pa

    rows = [
        {
            "image_id": f"{image:064x}",
            "dataset": "made-up",
            "category": "made-up",
            "split": "test",
            "defect": "spot" if image % 4 else "good",
            "label": int(image % 4 > 0),
            "image_path": f"{image}.png",
            "mask_path": f"{image}_mask.png" if image % 4 else None,
            "mask_id": f"{image:064x}" if image % 4 else None,
            "width": SIDE,
            "height": SIDE,
            "mask_pixels": image % 4,
            "row": image,
        }
        for image in range(n_images)
    ]
    return Manifest(pa.Table.from_pylist(rows, schema=SCHEMA))


def main() -> None:
    """Print a table for the real samples, where they are, and one for wide tokens."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", help="one with the real samples' tokens, and guides")
    parser.add_argument("--images", type=int, default=200, help="of the wide cache")
    parser.add_argument("--width", type=int, default=1024, help="of a token of the wide cache")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.store or (SHARED / "data").is_dir():
        with tempfile.TemporaryDirectory() as scratch:
            store = real_store(options.store, Path(scratch))
            detector = make_detector(load_artifact(store, "guides", "latest"), ScoreConfig())
            opened = partial(open_dataset, store, "mvtec", BACKBONE)
            for category in opened().manifest.categories:
                taken, n_images = profile(store, opened, detector, category, options.rounds)
                title = f"{category}, {n_images} images, 784 x {detector.spec.d_model} tokens"
                print(table(title, taken), flush=True)
    else:
        print("the real samples (../shared) are not beside this checkout", file=sys.stderr)
    with tempfile.TemporaryDirectory() as scratch:
        wide = open_store(scratch)
        detector = write_wide(wide, wide_spec(options.width), options.images)
        opened = partial(open_dataset, wide, "made-up", "made-up")
        taken, n_images = profile(wide, opened, detector, "made-up", options.rounds)
        print(table(f"made-up, {n_images} images, 784 x {options.width} tokens", taken))


if __name__ == "__main__":
    main()

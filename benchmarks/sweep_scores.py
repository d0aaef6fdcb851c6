"""Score many guides on one target together and one by one, on real and on wide tokens.

    python -m benchmarks.sweep_scores [--store DIR] [--guides 25] [--images 64] [--rounds 3]

Targets: the real samples `mvtec` by a trained ViT-Tiny (192 values a token; extracted in a
temporary folder where no `--store` is given), and noise of the width of a ViT-L's tokens (1024).
Guides are random: what scoring costs depends on them little. Both ways write the same artifacts,
which is checked. Seconds are processor seconds of this process, the least over the rounds; the
contenders take turns within a round, the caches opened anew each time and their files warm.
"""

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch

from benchmarks.metrics import SIDE
from benchmarks.real_samples import BACKBONE, SHARED, extract
from benchmarks.score_profile import wide_manifest
from cache.layout import Geometry
from cache.objects import Objects
from cache.store import open_store
from cache.writer import CacheWriter
from manifests.table import manifest_to_bytes
from pipeline.artifacts import Artifact, save_artifact
from pipeline.artifacts.documents import ScoresDocument
from pipeline.backbones.spec import BackboneSpec
from pipeline.configs import ScoreConfig
from pipeline.inputs import CachedDataset, open_dataset
from pipeline.scoring.score import score, score_group
from tests.artifact_samples import guides_document, guides_tensors

GRID = 28
TAUS = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


def write_wide(store: Objects, like: BackboneSpec, d_model: int, n_images: int) -> None:
    """Write a cache `wide` of noise; three images of four have a defect of 2 % of their pixels."""
    spec = replace(like, d_model=d_model, weights_sha256="0" * 64)
    geometry = Geometry(
        n_images=n_images, tokens_per_image=GRID * GRID, d_model=d_model, mask_size=(SIDE, SIDE)
    )
    writer = CacheWriter(store, "wide", "wide", {"backbone": spec.covers()}, geometry)
    rng = np.random.default_rng(0)
    for shard in writer.pending_shards():
        rows = writer.shard_rows(shard)
        tokens = rng.standard_normal((len(rows), GRID * GRID, d_model), np.float32)
        masks = np.zeros((len(rows), SIDE, SIDE), np.uint8)
        for mask, row in zip(masks, rows, strict=True):
            top, left = rng.integers(0, SIDE - 64, 2)
            mask[top : top + 64, left : left + 64] = row % 4 > 0
        writer.write_shard(shard, tokens.astype(np.float16), None, masks)
    writer.finish(manifest_to_bytes(wide_manifest(n_images)))


def write_guides(store: Objects, data: CachedDataset, n_guides: int) -> list[str]:
    """Save random guides for a target; give their ids."""
    names = []
    for number in range(n_guides):
        tensors = guides_tensors(number, data.cache.d_model)
        names.append(f"random-{data.dataset}-{number:02}")
        save_artifact(store, guides_document(names[-1], data.spec), tensors)
    return names


def together(store: Objects, wanted: Sequence[tuple[str, ScoreConfig]], dataset: str) -> list[Any]:
    return list(score_group(store, wanted, dataset))


def one_by_one(
    store: Objects, wanted: Sequence[tuple[str, ScoreConfig]], dataset: str
) -> list[Artifact[ScoresDocument]]:
    return [score(store, guides, dataset, config) for guides, config in wanted]


def compare(store: Objects, dataset: str, backbone: str, n_guides: int, rounds: int) -> str:
    """Time both ways of scoring and give a Markdown table."""
    data = open_dataset(store, dataset, backbone)
    many = [(name, ScoreConfig()) for name in write_guides(store, data, n_guides)]
    taus = [(many[0][0], ScoreConfig(tau=tau)) for tau in TAUS]
    contenders = {
        f"{n_guides} guides, one by one": (one_by_one, many),
        f"{n_guides} guides in one pass": (together, many),
        "1 guides": (one_by_one, many[:1]),
        f"1 guides, {len(TAUS)} taus, one by one": (one_by_one, taus),
        f"1 guides, {len(TAUS)} taus in one pass": (together, taus),
    }
    seconds = dict.fromkeys(contenders, float("inf"))
    found: dict[str, dict[str, Any]] = {}
    for _ in range(rounds):
        for name, (way, wanted) in contenders.items():
            shutil.rmtree(f"{store.where}/scores", ignore_errors=True)
            start = process_time()
            made = way(store, wanted, dataset)
            seconds[name] = min(seconds[name], process_time() - start)
            for one in made:
                assert found.setdefault(one.id, one.document.categories) == (
                    one.document.categories
                ), one.id
    cache = data.cache
    lines = [
        f"**{dataset}**: {cache.n_images} images x {cache.tokens_per_image} tokens of "
        f"{cache.d_model}, {torch.get_num_threads()} threads",
        "",
        "| scoring | processor seconds | ms an image and result |",
        "|---|--:|--:|",
    ]
    for name, (_, wanted) in contenders.items():
        each = 1e3 * seconds[name] / cache.n_images / len(wanted)
        lines.append(f"| {name} | {seconds[name]:.2f} | {each:.2f} |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Print a table for each target."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--store", type=Path, help="one with the tokens of the real samples")
    parser.add_argument("--guides", type=int, default=25)
    parser.add_argument("--images", type=int, default=64, help="of the wide cache")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.store is None and not (SHARED / "data").is_dir():
        parser.error("the real samples (../shared) are not beside this checkout; give --store")
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        if options.store is None:
            extract(place, "mvtec")
        else:
            (place / "tokens").mkdir()
            (place / "tokens" / "mvtec").symlink_to(options.store.resolve() / "tokens" / "mvtec")
        store = open_store(place)
        write_wide(store, open_dataset(store, "mvtec", BACKBONE).spec, 1024, options.images)
        for dataset, backbone in (("mvtec", BACKBONE), ("wide", "wide")):
            print(compare(store, dataset, backbone, options.guides, options.rounds), flush=True)


if __name__ == "__main__":
    main()

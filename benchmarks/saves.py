"""What the cache saves: configurations fitted and scored from cached tokens, and recomputing them.

    python -m benchmarks.saves [--epochs 50] [--passes 2] [--datasets surface mvtec]

One configuration reads the auxiliary tokens once an epoch of the SAE (50) and of the guides (15),
and the target's once for the score. Cached: both sample sets extracted once, then fitted and scored
by the stages, a trained ViT-Tiny at 448 px, C = 1024, k = 32. Recomputed: the same fits and the
same score, and in place of each read a forward pass of all images, which lie decoded in memory, so
decoding is not even counted. Not all passes are run: `--passes` of them are, and the mean is
multiplied; so are the SAE's epochs where `--epochs` is below 50. Seconds are of the processor, all
threads, which other work on the machine disturbs less; seconds by the clock stand beside them.
The second table counts forward passes, which is what a larger model costs, for the paper's sets.
"""

import argparse
import os
import tempfile
from collections.abc import Callable
from unittest import mock

import torch

from benchmarks.extraction import Seconds, config_of, decoded, forward, now, since
from cache.objects import Objects
from cache.store import open_store
from pipeline.configs import FitGuidesConfig, FitSaeConfig, ScoreConfig
from pipeline.extraction.extract import checked_manifest, extract
from pipeline.extraction.shards import open_backbone
from pipeline.fitting.guides import fit_guides
from pipeline.fitting.sae import fit_sae
from pipeline.inputs import open_dataset
from pipeline.machine.cores import BESIDE_A_MODEL
from pipeline.machine.device import processor_name
from pipeline.scoring.score import score

SAE_EPOCHS, GUIDE_EPOCHS = FitSaeConfig().epochs, FitGuidesConfig().epochs
CONFIGURATIONS = (1, 25)
VISA, MVTEC = 2162, 1725
"""Test images of the paper's auxiliary set and of its target."""


def plus(*every: Seconds) -> Seconds:
    """Add up."""
    return sum(one[0] for one in every), sum(one[1] for one in every)


def times(factor: float, one: Seconds) -> Seconds:
    """Multiply."""
    return factor * one[0], factor * one[1]


def timed(run: Callable[[], object]) -> Seconds:
    start = now()
    run()
    return since(start)


def stages(store: Objects, auxiliary: str, target: str, epochs: int) -> dict[str, Seconds]:
    """Time extraction, fits and score, by the stages themselves."""
    backbone = config_of(auxiliary, BESIDE_A_MODEL).backbone[0]
    taken = {
        f"extract {name}": timed(lambda at=name: extract(store, config_of(at, BESIDE_A_MODEL)))  # type: ignore[misc]
        for name in (auxiliary, target)
    }
    data = open_dataset(store, auxiliary, backbone)
    config = FitSaeConfig(width=1024, k=32, epochs=epochs, device="cpu")
    start = now()
    sae = fit_sae(store, data, config)
    taken["fit-sae"], start = times(SAE_EPOCHS / epochs, since(start)), now()
    guides = fit_guides(store, sae.id, FitGuidesConfig(device="cpu"))
    taken["fit-guides"], start = since(start), now()
    score(store, guides, target, ScoreConfig(device="cpu"))
    taken["score"] = since(start)
    return taken


def a_pass(dataset: str, passes: int) -> tuple[int, Seconds]:
    """Count a set's images, and time a forward pass of all of them, the mean of some."""
    config = config_of(dataset, BESIDE_A_MODEL)
    backbone, manifest = open_backbone(config, config.backbone[0]), checked_manifest(config)
    batches = decoded(config, manifest, backbone)
    forward(backbone, batches[:1])
    return manifest.n_images, times(
        1 / passes, plus(*(forward(backbone, batches) for _ in range(passes)))
    )


def main(auxiliary: str, target: str, epochs: int, passes: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        with mock.patch.dict(os.environ, XDG_CACHE_HOME=f"{folder}/memos"):
            taken = stages(open_store(f"{folder}/store"), auxiliary, target, epochs)
        (n_auxiliary, over_auxiliary), (n_target, over_target) = (
            a_pass(name, passes) for name in (auxiliary, target)
        )
    print(f"{processor_name()}, {torch.get_num_threads()} threads; {n_auxiliary} images of "
          f"{auxiliary}, {n_target} of {target}; {epochs} of {SAE_EPOCHS} SAE epochs and {passes} "
          f"passes run\n")  # fmt: skip
    print("| stage | s of processor | s by the clock |\n|---|--:|--:|")
    taken["a pass over the auxiliary images"] = over_auxiliary
    taken["a pass over the target images"] = over_target
    for name, (clock, processor) in taken.items():
        print(f"| {name} | {processor:.1f} | {clock:.1f} |")
    once = plus(*(took for name, took in taken.items() if name.startswith("extract")))
    fits = plus(taken["fit-sae"], taken["fit-guides"], taken["score"])
    models = plus(times(SAE_EPOCHS + GUIDE_EPOCHS, over_auxiliary), over_target)
    print("\n| configurations | cached, s | recomputed, s | cached saves |\n|--:|--:|--:|--:|")
    for n in CONFIGURATIONS:
        cached, anew = plus(once, times(n, fits)), times(n, plus(fits, models))
        print(f"| {n} | {cached[1]:.0f} | {anew[1]:.0f} | {anew[1] / cached[1]:.1f}x |")
    print("\n| forward passes, images | cached | recomputed | |\n|---|--:|--:|--:|")
    sets = {f"{auxiliary} -> {target}": (n_auxiliary, n_target), "VisA -> MVTec AD": (VISA, MVTEC)}
    for name, (fitted, scored) in sets.items():
        for n in CONFIGURATIONS:
            many, few = n * ((SAE_EPOCHS + GUIDE_EPOCHS) * fitted + scored), fitted + scored
            print(f"| {name}, {n} | {few:,} | {many:,} | {many / few:.0f}x |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=int, default=SAE_EPOCHS)
    parser.add_argument("--passes", type=int, default=2)
    parser.add_argument("--datasets", nargs=2, default=["surface", "mvtec"])
    asked = parser.parse_args()
    auxiliary_set, target_set = asked.datasets
    main(auxiliary_set, target_set, asked.epochs, asked.passes)

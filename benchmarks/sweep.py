"""Time a 5 x 5 grid in one pass against separate fits, ours and dense; guides.

    python benchmarks/sweep.py --store STORE --dataset surface --backbone timm:vit_tiny_patch16_224
        [--widths 128,256,384,512,768] [--ks 4,8,16,32,64] [--steps 11] [--rounds 2] [--threads 1]

Seconds are processor seconds of this process (other processes disturb them less than wall time),
each the least over the rounds; contenders take turns within a round. Training is timed over
`--steps` steps of 16 images of real tokens, reading included, nothing written. The dense baseline
is autograd and torch.optim.Adam with latents written out in full, run on `--dense` of the points
(spread over the grid) and scaled by width x tokens to all of them.
"""

import argparse
from collections.abc import Callable, Sequence
from itertools import product
from time import process_time

import torch
from torch import Tensor
from torch.nn import functional

from cache.order import EpochOrder
from cache.reader import TokenCache
from cache.store import open_store
from pipeline.configs import FitGuidesConfig
from pipeline.fitting.dictionaries import GuideDictionary, make_trainer, random_atoms
from pipeline.fitting.fastest import fastest_way
from pipeline.fitting.tokens import TokenSource
from pipeline.inputs import CachedDataset, open_dataset
from spg_core.anomaly_map import map_operator
from spg_core.guide_config import GuideConfig
from spg_core.guide_step import GuideFit, GuideTrainer, guide_batch
from spg_core.sae_config import SaeConfig
from spg_core.sae_step import SaeTrainer
from spg_core.sae_weights import initial_weights
from spg_core.types import PatchGrid

CPU = torch.device("cpu")
IMAGES = 16
GUIDE_IMAGES = 8


def batches(cache: TokenCache, n_steps: int) -> list[Tensor]:
    """The first batches of order `images`, read anew each time it is called."""
    source, found, epoch = TokenSource(cache, CPU), list[Tensor](), 0
    while len(found) < n_steps:
        for tokens in source.batches("images", IMAGES, seed=0, epoch=epoch):
            found.append(tokens)
            if len(found) == n_steps:
                break
        epoch += 1
    return found


def together(cache: TokenCache, grid: Sequence[tuple[int, int]], n_steps: int) -> float:
    d_model = cache.d_model
    configs = [SaeConfig(width=width, k=k) for width, k in grid]
    ways = [fastest_way(one, d_model, CPU) for one in configs]
    trainers = [
        SaeTrainer(one, d_model, path=way.path, libraries=way.libraries)
        for one, way in zip(configs, ways, strict=True)
    ]
    start = process_time()
    for tokens in batches(cache, n_steps):
        for trainer in trainers:
            trainer.step(tokens)
    return process_time() - start


def separately(cache: TokenCache, grid: Sequence[tuple[int, int]], n_steps: int) -> float:
    return sum(together(cache, [point], n_steps) for point in grid)


def dense(cache: TokenCache, grid: Sequence[tuple[int, int]], n_steps: int) -> float:
    return sum(dense_one(cache, SaeConfig(width=width, k=k), n_steps) for width, k in grid)


def dense_one(cache: TokenCache, config: SaeConfig, n_steps: int) -> float:
    encoder, dictionary = (
        weights.requires_grad_() for weights in initial_weights(config, cache.d_model)
    )
    adam = torch.optim.Adam([encoder, dictionary], lr=1e-3, betas=(0.5, 0.999))
    start = process_time()
    for tokens in batches(cache, n_steps):
        atoms = dictionary / (dictionary.norm(dim=1, keepdim=True) + 1e-8)
        pre = tokens @ encoder.T
        values, indices = pre.topk(config.k, dim=1)
        latents = torch.zeros_like(pre).scatter(1, indices, values.clamp_min(0))
        loss = (tokens - latents @ atoms).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        with torch.no_grad():
            dictionary.copy_(functional.normalize(dictionary, dim=1))
    return process_time() - start


def guides(data: CachedDataset, n_fits: int, width: int, n_steps: int) -> float:
    """Seconds of guide fitting, reading and masks included."""
    config = FitGuidesConfig(images_per_step=GUIDE_IMAGES)
    trainers = []
    for seed in range(n_fits):
        atoms = random_atoms(width, data.cache.d_model, seed)
        every = torch.ones(width, dtype=torch.bool)
        trainers.append(make_trainer(GuideDictionary(atoms, every), data, config, CPU))
    source = TokenSource(data.cache, CPU)
    start = process_time()
    order = EpochOrder(data.cache.n_images, 0, 0, "images", GUIDE_IMAGES)
    for step in range(n_steps):
        chosen = order.step(step % order.n_steps)
        batch = guide_batch(trainers[0].operator, source.images(chosen), source.masks(chosen))
        for trainer in trainers:
            trainer.step_on(batch)
    return process_time() - start


def best(contenders: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    seconds = dict.fromkeys(contenders, float("inf"))
    for _ in range(rounds):
        for name, contender in contenders.items():
            seconds[name] = min(seconds[name], contender())
    return seconds


def default_size(rounds: int) -> str:
    """Both stages per image at the default size: C = 4096, d = 1024, 784 patches, 448 pixels."""
    n_latents, d_model, patches, side = 4096, 1024, 784, 448
    trainer = SaeTrainer(SaeConfig(), d_model, path="sparse")
    tokens = torch.randn(IMAGES * patches, d_model)
    fit = GuideFit(
        dictionary=random_atoms(n_latents, d_model, 0),
        alive=torch.ones(n_latents, dtype=torch.bool),
        config=GuideConfig(seed=0),
    )
    operator = map_operator(PatchGrid(28, 28), side, side, sigma=0)
    guide_trainer = GuideTrainer(fit, operator=operator)
    images = tokens[: GUIDE_IMAGES * patches].view(GUIDE_IMAGES, patches, d_model).half()
    masks = (torch.rand(GUIDE_IMAGES, side, side) > 0.99).to(torch.uint8)

    def timed(step: Callable[[], object]) -> float:
        start = process_time()
        step()
        return process_time() - start

    steps = {
        "sae": lambda: timed(lambda: trainer.step(tokens)),
        "guides": lambda: timed(lambda: guide_trainer.step(images, masks)),
    }
    seconds = best(steps, rounds + 1)
    epoch, stage_2 = (
        seconds["sae"] / IMAGES,
        FitGuidesConfig.epochs * seconds["guides"] / GUIDE_IMAGES,
    )
    return (
        f"default size (random tokens, sparse path): an SAE step of {IMAGES} images "
        f"{seconds['sae']:.2f} s, a guide step of {GUIDE_IMAGES} "
        f"{1e3 * seconds['guides']:.0f} ms; an image costs {1e3 * epoch:.0f} ms in one epoch of "
        f"stage 1 and {1e3 * stage_2:.0f} ms in all {FitGuidesConfig.epochs} epochs of stage 2"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--store", required=True)
    parser.add_argument("--dataset", default="surface")
    parser.add_argument("--backbone", default="timm:vit_tiny_patch16_224")
    parser.add_argument("--widths", default="128,256,384,512,768")
    parser.add_argument("--ks", default="4,8,16,32,64")
    parser.add_argument("--steps", type=int, default=11)
    parser.add_argument("--dense", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = open_dataset(open_store(options.store), options.dataset, options.backbone)
    cache, steps = data.cache, options.steps
    widths, ks = ([int(n) for n in text.split(",")] for text in (options.widths, options.ks))
    grid = list(product(widths, ks))
    # a diagonal: each width and each k once
    few = [(width, ks[i % len(ks)]) for i, width in enumerate(widths)][: options.dense]
    scale = sum(width for width, _ in grid) / sum(width for width, _ in few)
    width = max(widths)
    seconds = best(
        {
            "one pass": lambda: together(cache, grid, steps),
            "separate": lambda: separately(cache, grid, steps),
            "dense": lambda: dense(cache, few, steps),
            "one SAE": lambda: together(cache, [(width, 32)], steps),
            "1 guides": lambda: guides(data, 1, width, 10),
            "25 guides": lambda: guides(data, 25, width, 10),
        },
        options.rounds,
    )
    print(report(seconds, scale, len(grid), len(few), cache, steps, width))
    print(default_size(options.rounds))


def report(
    seconds: dict[str, float],
    scale: float,
    n_grid: int,
    n_few: int,
    cache: TokenCache,
    steps: int,
    width: int,
) -> str:
    whole = seconds["one pass"]
    per_guides = [seconds[name] / 10 for name in ("1 guides", "25 guides")]
    images = cache.n_images
    stage_2 = FitGuidesConfig.epochs * per_guides[0] * images / GUIDE_IMAGES
    epoch = seconds["one SAE"] / steps * images / IMAGES
    lines = [
        f"{images} images x {cache.tokens_per_image} tokens of {cache.d_model}, {steps} steps of "
        f"{IMAGES} images, {torch.get_num_threads()} threads, torch {torch.__version__}",
        "",
        "| fitting | processor seconds | against one pass |",
        "|---|--:|--:|",
        f"| {n_grid} SAEs in one pass | {whole:.1f} | 1.00 |",
        f"| {n_grid} SAEs, separate fits of ours | {seconds['separate']:.1f} "
        f"| {seconds['separate'] / whole:.2f} |",
        f"| {n_grid} SAEs, separate dense autograd fits, scaled from {n_few} by width "
        f"| {scale * seconds['dense']:.1f} | {scale * seconds['dense'] / whole:.2f} |",
        f"| the widest SAE (C = {width}, k = 32) alone | {seconds['one SAE']:.2f} "
        f"| {seconds['one SAE'] / whole:.2f} |",
        "",
        f"guides, C = {width}: {1e3 * per_guides[0]:.0f} ms a step of {GUIDE_IMAGES} images for 1 "
        f"fit, {1e3 * per_guides[1]:.0f} for 25; a further fit costs "
        f"{(per_guides[1] - per_guides[0]) / 24 / per_guides[0]:.2f} of the first",
        f"all {FitGuidesConfig.epochs} epochs of stage 2 over {images} images {stage_2:.1f} s, "
        f"one epoch of stage 1 (C = {width}, k = 32) {epoch:.1f} s",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()

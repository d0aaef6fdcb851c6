"""Time one SAE training step on the CPU, ours beside dense autograd and public SAE libraries.

    python benchmarks/sae_step.py [--tokens 4096 12544] [--rounds 5] [--threads 2] [--clock wall]
    python benchmarks/sae_step.py --store STORE [--dataset surface] [--seeds 111 112 113]

Interleaved: every round runs each contender, so a busy machine is busy for all; three steps in a
row, as in a training, where a step finds its weights where it left them. The figure is the best
step. Ours multiply by the libraries that a fit would choose here (`fitting/fastest.py`); beside
them the same with oneDNN throughout, which is what they did before.

`--freed kept` lets the process keep freed memory, for all contenders, as `spg-pipe` does for
itself (`pipeline/machine/freed_memory.py`); `--freed returned` leaves that to the C library, as any
program finds it.

`--clock cpu` counts the process's own processor seconds, which other processes
disturb less; use it with `--threads 1`. Libraries take part where they import (overcomplete,
sae-lens, eai-sparsify; the last needs SPARSIFY_DISABLE_TRITON=1 on a CPU). Each runs its own
model, loss and, where it has one, decoder normalisation, then torch.optim.Adam; no dead atoms.

With `--store` nothing is timed: both paths are trained on the same batches of real tokens from a
cache and compared in FVU, L0 and dead atoms, on the images they saw and on every fifth image,
which neither saw. `--dead-after` is low enough for AuxK to take part.
"""

import argparse
import importlib
import os
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from cache.reader import TokenCache
from cache.store import open_store
from pipeline.fitting.fastest import time_libraries
from pipeline.fitting.tokens import TokenSource
from pipeline.inputs import open_dataset
from pipeline.machine.device import device_name
from pipeline.machine.freed_memory import keep_freed_memory
from spg_core.products import Libraries, inner_products
from spg_core.sae import Sae
from spg_core.sae_config import SaeConfig
from spg_core.sae_gradients import PATHS, Path
from spg_core.sae_loss import fvu, variation
from spg_core.sae_quality import SaeSums
from spg_core.sae_step import SaeTrainer
from spg_core.sae_weights import initial_weights

Step = Callable[[Tensor], object]
IMAGES = 16
STEPS_IN_A_ROW = 3
D_MODEL = 1024
BASELINE = "dense autograd + Adam"
FLOOR_MM = "one encoder product, torch.mm"
FLOOR_ONEDNN = "one encoder product, oneDNN"
ONEDNN = Libraries("onednn", "onednn", "onednn")


def ours(path: Path, libraries: Libraries | None = None) -> Callable[[SaeConfig], Step]:
    def make(config: SaeConfig) -> Step:
        by = libraries or time_libraries(config.width, D_MODEL)
        return SaeTrainer(config, D_MODEL, path=path, libraries=by).step

    return make


def plain(config: SaeConfig) -> Step:
    """The released loop: dense latents, autograd, torch.optim.Adam as it comes."""
    encoder, dictionary = (weights.requires_grad_() for weights in initial_weights(config, D_MODEL))
    adam = torch.optim.Adam([encoder, dictionary], lr=1e-3, betas=(0.5, 0.999))

    def step(tokens: Tensor) -> None:
        atoms = dictionary / (dictionary.norm(dim=1, keepdim=True) + 1e-8)
        pre = tokens @ encoder.T
        values, indices = pre.topk(config.k, dim=1)
        latents = torch.zeros_like(pre).scatter(1, indices, values.clamp_min(0))
        loss = (tokens - latents @ atoms).square().mean()
        update(adam, loss)
        with torch.no_grad():
            dictionary.copy_(functional.normalize(dictionary, dim=1))

    return step


def overcomplete(config: SaeConfig) -> Step:
    library = importlib.import_module("overcomplete.sae")
    model = library.TopKSAE(D_MODEL, nb_concepts=config.width, top_k=config.k)
    adam = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step(tokens: Tensor) -> None:
        _, _, reconstruction = model(tokens)
        update(adam, (tokens - reconstruction).square().mean())

    return step


def sae_lens(config: SaeConfig) -> Step:
    topk = importlib.import_module("sae_lens.saes.topk_sae")
    base = importlib.import_module("sae_lens.saes.sae")
    model = topk.TopKTrainingSAE(
        topk.TopKTrainingSAEConfig(d_in=D_MODEL, d_sae=config.width, k=config.k)
    )
    adam = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step(tokens: Tensor) -> None:
        given = base.TrainStepInput(
            sae_in=tokens,
            coefficients={},
            dead_neuron_mask=None,
            n_training_steps=0,
            is_logging_step=False,
        )
        update(adam, model.training_forward_pass(step_input=given).loss)

    return step


def sparsify(config: SaeConfig) -> Step:
    os.environ.setdefault("SPARSIFY_DISABLE_TRITON", "1")
    library = importlib.import_module("sparsify.sparse_coder")
    model = library.SparseCoder(
        D_MODEL, library.SparseCoderConfig(num_latents=config.width, k=config.k)
    )
    adam = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step(tokens: Tensor) -> None:
        loss = model(tokens).fvu
        adam.zero_grad()
        loss.backward()
        model.remove_gradient_parallel_to_decoder_directions()
        adam.step()
        model.set_decoder_norm_to_unit_norm()

    return step


def update(adam: torch.optim.Adam, loss: Tensor) -> None:
    adam.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    adam.step()


def floor_mm(config: SaeConfig) -> Step:
    encoder, _ = initial_weights(config, D_MODEL)
    return lambda tokens: tokens @ encoder.T


def floor_onednn(config: SaeConfig) -> Step:
    encoder, _ = initial_weights(config, D_MODEL)
    # In the chunks a step uses, the faster way.
    return lambda tokens: [
        inner_products(chunk, encoder, by=ONEDNN) for chunk in torch.split(tokens, 1024)
    ]


CONTENDERS: dict[str, Callable[[SaeConfig], Step]] = {
    FLOOR_MM: floor_mm,
    FLOOR_ONEDNN: floor_onednn,
    "ours, sparse": ours("sparse"),
    "ours, dense": ours("dense"),
    "ours, sparse, oneDNN": ours("sparse", ONEDNN),
    "ours, dense, oneDNN": ours("dense", ONEDNN),
    BASELINE: plain,
    "eai-sparsify": sparsify,
    "overcomplete": overcomplete,
    "sae-lens": sae_lens,
}


def build(config: SaeConfig) -> dict[str, Step]:
    steps = {}
    for name, make in CONTENDERS.items():
        try:
            steps[name] = make(config)
        except ImportError as missing:
            print(f"{name} left out: {missing}\n")
    return steps


def best_seconds(
    steps: dict[str, Step], tokens: Tensor, rounds: int, clock: Callable[[], float]
) -> dict[str, float]:
    best = dict.fromkeys(steps, float("inf"))
    for _ in range(rounds + 1):  # the first warms up, and is in the running like the others
        for name, step in steps.items():
            for _ in range(STEPS_IN_A_ROW):
                start = clock()
                step(tokens)
                best[name] = min(best[name], clock() - start)
    return best


def table(best: dict[str, float], n_tokens: int, config: SaeConfig) -> str:
    floor = min(best[FLOOR_MM], best[FLOOR_ONEDNN])
    lines = [
        f"B = {n_tokens}, d = {D_MODEL}, C = {config.width}, k = {config.k}; "
        f"floor {2e-9 * n_tokens * D_MODEL * config.width / floor:.0f} GFLOP/s",
        "",
        "| step | ms | against dense autograd | of the floor | of torch.mm |",
        "|---|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {name} | {1e3 * seconds:.0f} | {best[BASELINE] / seconds:.2f}x "
        f"| {seconds / floor:.2f} | {seconds / best[FLOOR_MM]:.2f} |"
        for name, seconds in best.items()
    ]
    return "\n".join(lines)


def split(cache: TokenCache) -> dict[str, NDArray[np.int64]]:
    """Whole images: every fifth is held out."""
    rows = np.arange(cache.n_images)
    return {"train": rows[rows % 5 != 4], "held out": rows[rows % 5 == 4]}


def trained(
    source: TokenSource, config: SaeConfig, rows: NDArray[np.int64], path: Path, epochs: int
) -> tuple[Sae, int, int]:
    """Train on 16 images a step in an order that depends on the seed alone; also give the number
    of steps, and of atoms dead in the step with most.
    """
    trainer = SaeTrainer(config, source.cache.d_model, path=path)
    order = np.random.default_rng(config.seed)
    n_dead = []
    for _ in range(epochs):
        shuffled = order.permutation(rows)
        for start in range(0, len(shuffled), IMAGES):
            images = source.images(shuffled[start : start + IMAGES])
            n_dead.append(int(trainer.step(images.flatten(0, 1).float()).n_dead))
    return trainer.sae(), len(n_dead), max(n_dead)


def judged(sae: Sae, tokens: Tensor) -> str:
    sums = SaeSums(sae)
    sums.add(tokens)
    unexplained, l0 = fvu(sums.error, variation(tokens)), int(sums.n_nonzero) / len(tokens)
    return f"{float(unexplained):.5f} | {l0:.3f} | {int((~sums.ever_active).sum())}"


def compare_paths(cache: TokenCache, settings: Sequence[SaeConfig], epochs: int) -> str:
    """Both paths of each setting, on images they were trained on and on images they were not."""
    source, parts = TokenSource(cache, torch.device("cpu")), split(cache)
    tokens = {name: source.images(rows).flatten(0, 1).float() for name, rows in parts.items()}
    lines = ["| images | seed | path | FVU | L0 | dead atoms |", "|---|--:|---|--:|--:|--:|"]
    n_steps = most_dead = 0
    for config in settings:
        saes = {}
        for path in PATHS:
            saes[path], n_steps, dead = trained(source, config, parts["train"], path, epochs)
            most_dead = max(most_dead, dead)
        lines += [
            f"| {name} | {config.seed} | {path} | {judged(sae, part)} |"
            for name, part in tokens.items()
            for path, sae in saes.items()
        ]
    sizes = ", ".join(f"{len(rows)} {name}" for name, rows in parts.items())
    first = settings[0]
    head = (
        f"{sizes} images of {cache.tokens_per_image} tokens, d = {cache.d_model}, "
        f"C = {first.width}, k = {first.k}, {n_steps} steps, atoms dead after "
        f"{first.dead_after} tokens, at most {most_dead} dead in a step"
    )
    return "\n".join([head, "", *lines])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tokens", type=int, nargs="+", default=[4096, 12544])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--freed", choices=["kept", "returned"], default="kept")
    parser.add_argument("--store")
    parser.add_argument("--dataset", default="surface")
    parser.add_argument("--backbone", default="timm:vit_tiny_patch16_224")
    parser.add_argument("--seeds", type=int, nargs="+", default=[111, 112, 113])
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--dead-after", type=int, default=200_000)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.freed == "kept":
        keep_freed_memory()
    if options.store is not None:
        cache = open_dataset(open_store(options.store), options.dataset, options.backbone).cache
        settings = [
            SaeConfig(
                width=options.width,
                k=options.k,
                dead_after=options.dead_after,
                seed=seed,
            )
            for seed in options.seeds
        ]
        print(compare_paths(cache, settings, options.epochs))
        return
    clock = time.perf_counter if options.clock == "wall" else time.process_time
    config = SaeConfig()
    setting = f"torch {torch.__version__}, {options.threads} threads, {options.clock} clock"
    setting += f", freed memory {options.freed}"
    by = time_libraries(config.width, D_MODEL)
    print(f"{device_name(torch.device('cpu'))}; {setting}; products by {by}\n")
    for n_tokens in options.tokens:
        tokens = torch.randn((n_tokens, D_MODEL))
        print(table(best_seconds(build(config), tokens, options.rounds, clock), n_tokens, config))
        print(flush=True)


if __name__ == "__main__":
    main()

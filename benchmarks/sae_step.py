"""Time one SAE training step on the CPU, ours beside dense autograd and public SAE libraries.

    python benchmarks/sae_step.py [--tokens 4096 12544] [--rounds 5] [--threads 2] [--clock wall]

Interleaved: every round runs each contender once, so a busy machine is busy for all. The figure is
the best round. `--clock cpu` counts the process's own processor seconds, which other processes
disturb less; use it with `--threads 1`. Libraries take part where they import (overcomplete,
sae-lens, eai-sparsify; the last needs SPARSIFY_DISABLE_TRITON=1 on a CPU). Each runs its own
model, loss and, where it has one, decoder normalisation, then torch.optim.Adam; no dead atoms.
"""

import argparse
import importlib
import os
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from spg_core.sae import inner_products
from spg_core.sae_config import initial_weights
from spg_core.sae_step import SaeStepConfig, SaeTrainer

Step = Callable[[Tensor], object]
BASELINE = "dense autograd + Adam"
FLOOR_MM = "one encoder product, torch.mm"
FLOOR_ONEDNN = "one encoder product, oneDNN"


def ours_sparse(config: SaeStepConfig) -> Step:
    return SaeTrainer(config, path="sparse").step


def ours_dense(config: SaeStepConfig) -> Step:
    return SaeTrainer(config, path="dense").step


def plain(config: SaeStepConfig) -> Step:
    """The released loop: dense latents, autograd, torch.optim.Adam as it comes."""
    encoder, dictionary = (weights.requires_grad_() for weights in initial_weights(config))
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


def overcomplete(config: SaeStepConfig) -> Step:
    library = importlib.import_module("overcomplete.sae")
    model = library.TopKSAE(config.d_model, nb_concepts=config.n_latents, top_k=config.k)
    adam = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step(tokens: Tensor) -> None:
        _, _, reconstruction = model(tokens)
        update(adam, (tokens - reconstruction).square().mean())

    return step


def sae_lens(config: SaeStepConfig) -> Step:
    topk = importlib.import_module("sae_lens.saes.topk_sae")
    base = importlib.import_module("sae_lens.saes.sae")
    model = topk.TopKTrainingSAE(
        topk.TopKTrainingSAEConfig(d_in=config.d_model, d_sae=config.n_latents, k=config.k)
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


def sparsify(config: SaeStepConfig) -> Step:
    os.environ.setdefault("SPARSIFY_DISABLE_TRITON", "1")
    library = importlib.import_module("sparsify.sparse_coder")
    model = library.SparseCoder(
        config.d_model, library.SparseCoderConfig(num_latents=config.n_latents, k=config.k)
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


def floor_mm(config: SaeStepConfig) -> Step:
    encoder, _ = initial_weights(config)
    return lambda tokens: tokens @ encoder.T


def floor_onednn(config: SaeStepConfig) -> Step:
    encoder, _ = initial_weights(config)
    # In the chunks a step uses, the faster way.
    return lambda tokens: [inner_products(chunk, encoder) for chunk in torch.split(tokens, 1024)]


CONTENDERS: dict[str, Callable[[SaeStepConfig], Step]] = {
    FLOOR_MM: floor_mm,
    FLOOR_ONEDNN: floor_onednn,
    "ours, sparse": ours_sparse,
    "ours, dense": ours_dense,
    BASELINE: plain,
    "eai-sparsify": sparsify,
    "overcomplete": overcomplete,
    "sae-lens": sae_lens,
}


def build(config: SaeStepConfig) -> dict[str, Step]:
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
            start = clock()
            step(tokens)
            best[name] = min(best[name], clock() - start)
    return best


def table(best: dict[str, float], n_tokens: int, config: SaeStepConfig) -> str:
    floor = min(best[FLOOR_MM], best[FLOOR_ONEDNN])
    lines = [
        f"B = {n_tokens}, d = {config.d_model}, C = {config.n_latents}, k = {config.k}; "
        f"floor {2e-9 * n_tokens * config.d_model * config.n_latents / floor:.0f} GFLOP/s",
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


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tokens", type=int, nargs="+", default=[4096, 12544])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clock = time.perf_counter if options.clock == "wall" else time.process_time
    config = SaeStepConfig(d_model=1024)
    print(f"torch {torch.__version__}, {options.threads} threads, {options.clock} clock\n")
    for n_tokens in options.tokens:
        tokens = torch.randn((n_tokens, config.d_model))
        print(table(best_seconds(build(config), tokens, options.rounds, clock), n_tokens, config))
        print(flush=True)


if __name__ == "__main__":
    main()

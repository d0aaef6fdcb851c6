"""An SAE's step on a GPU: one device, products in bfloat16, and nobody waits."""

from dataclasses import replace
from typing import Literal

import pytest
import torch

from spg_core.sae_config import SaeConfig
from spg_core.sae_core import measure
from spg_core.sae_step import SaeTrainer
from tests.pretended_gpu import needs_cuda_build, pretend_card, pretended_gpu

pytestmark = needs_cuda_build

D = 20
RELEASED = SaeConfig(width=48, k=5)
SAES = {
    "released": RELEASED,
    "paper": replace(RELEASED, loss="sum", auxk=0, unit_norm=False, tied_init=False, clamp=False),
    "relu": replace(RELEASED, sparsifier="relu", l1=0.02),
}
MORTAL = replace(RELEASED, dead_after=30, auxk=8)
N_TOKENS = 33


@pytest.fixture(autouse=True)
def card(monkeypatch: pytest.MonkeyPatch) -> None:
    """An H100 that is not there."""
    pretend_card(monkeypatch)


def batch() -> torch.Tensor:
    return torch.empty((N_TOKENS, D), dtype=torch.float16, device="cuda")


@pytest.mark.parametrize("name", SAES)
def test_a_step_waits_for_nothing_and_multiplies_in_bfloat16(name: str) -> None:
    with pretended_gpu() as gpu:
        trainer = SaeTrainer(SAES[name], D, "cuda", compiler="none")
        tokens = batch()
        gpu.waits.clear()
        steps = [trainer.step(tokens) for _ in range(3)]

    assert gpu.waits == []
    assert gpu.products == {torch.bfloat16}
    assert gpu.wide == []
    for stats in steps:
        assert {one.device.type for one in vars(stats).values()} == {"cuda"}
        assert stats.loss.dtype == torch.float32


@pytest.mark.parametrize("name", SAES)
def test_the_residual_and_all_gradients_stay_in_float32(name: str) -> None:
    with pretended_gpu():
        trainer = SaeTrainer(SAES[name], D, "cuda", compiler="none")
        state = trainer._weights, trainer._idle_tokens
        measured = measure(SAES[name], trainer.way, *state, batch().float())

    found = measured.found
    some = [found.encoder, found.dictionary, found.loss, found.squared_error, measured.fvu]
    assert {one.dtype for one in [*some, *found.residual_panels]} == {torch.float32}


@pytest.mark.parametrize(("n_dead", "n_choices"), [(3, 1), (20, 2)])
def test_auxk_asks_once_how_many_atoms_are_dead(n_dead: int, n_choices: int) -> None:
    """Few dead atoms all reconstruct, of many the strongest; either way the host waits once."""
    with pretended_gpu(n_found=n_dead) as gpu:
        trainer = SaeTrainer(MORTAL, D, "cuda", compiler="none")
        tokens = batch()
        gpu.waits.clear()
        trainer.step(tokens)

    assert len(gpu.waits) == 1
    assert gpu.waits[0].startswith("aten.nonzero.default at sae_step.py")
    assert gpu.products == {torch.bfloat16}
    assert gpu.operations["aten.topk.default"] == n_choices


def test_before_an_atom_can_be_dead_nobody_asks() -> None:
    with pretended_gpu() as gpu:
        trainer = SaeTrainer(
            replace(MORTAL, dead_after=2 * N_TOKENS + 1), D, "cuda", "dense", "auto"
        )
        tokens = batch()
        gpu.waits.clear()
        for _ in range(2):
            trainer.step(tokens)

    assert gpu.waits == []


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_products_are_made_in_the_precision_asked_for(
    precision: Literal["float32", "bfloat16"],
) -> None:
    with pretended_gpu() as gpu:
        SaeTrainer(RELEASED, D, "cuda", precision=precision, compiler="none").step(batch())

    assert gpu.products == {getattr(torch, precision)}

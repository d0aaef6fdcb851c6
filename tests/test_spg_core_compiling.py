"""Steps through torch.compile: one graph, no recompilation, the eager numbers, a way back.

`aot_eager` captures as on CUDA and needs no compiler; it runs the captured operations as they are.
"""

import gc
import shutil
from dataclasses import replace

import pytest
import torch
from torch._dynamo.utils import counters

from spg_core import compiling
from spg_core.adam import Rates, adam_step
from spg_core.anomaly_map import map_operator
from spg_core.compiling import Compiled, backend_for
from spg_core.errors import ConfigError
from spg_core.guide_config import GuideConfig
from spg_core.guide_step import GuideFit, GuideTrainer
from spg_core.sae_config import SaeConfig
from spg_core.sae_step import SaeTrainer
from spg_core.types import PatchGrid

D = 20
SMALL = SaeConfig(width=48, k=5)
SAES = {
    "released": SMALL,
    # atoms die after 60 tokens, so that AuxK adds to the captured gradients
    "auxk": replace(SMALL, dead_after=60, auxk=4, dead_threshold=1.8),
    "paper": replace(SMALL, loss="sum", auxk=0, beta1=0.9, unit_norm=False, clamp=False),
    "relu": replace(SMALL, sparsifier="relu", l1=0.02),
}
GUIDES = GuideConfig(topk_guides=2, ema=0.9, seed=0)
needs_a_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="inductor needs a C++ compiler (g++) on the CPU"
)


@pytest.fixture(autouse=True)
def fresh_counters():
    """Count from nothing, with nothing compiled before."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()
    torch.set_num_threads(n_threads)


def token_batches(n_steps, n_tokens=37):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn((n_tokens, 20), generator=generator) for _ in range(n_steps)]


def guide_batches(n_steps):
    generator = torch.Generator().manual_seed(1)
    for _ in range(n_steps):
        tokens = torch.randn((3, 6, 5), generator=generator)
        yield tokens, (torch.rand((3, 12, 10), generator=generator) > 0.8).to(torch.uint8)


def guide_trainer(compiler, free=False, **changes):
    dictionary = torch.randn((7, 5), generator=torch.Generator().manual_seed(2))
    alive = torch.ones(7, dtype=torch.bool)
    alive[3] = False
    fit = GuideFit(dictionary=dictionary, alive=alive, config=replace(GUIDES, **changes), free=free)
    operator = map_operator(PatchGrid(3, 2), 12, 10, sigma=0)
    return GuideTrainer(fit, operator=operator, compiler=compiler)


def n_graphs():
    return counters["stats"]["unique_graphs"]


@pytest.mark.parametrize("n_steps", [1, 7])
def test_adam_is_that_of_torch(n_steps):
    generator = torch.Generator().manual_seed(4)
    start = torch.randn((3, 4), generator=generator, dtype=torch.float64)
    theirs, ours = start.clone().requires_grad_(), start.clone()
    optimizer = torch.optim.Adam([theirs], lr=0.1, betas=(0.8, 0.99), eps=1e-6)
    mean, square = torch.zeros_like(ours), torch.zeros_like(ours)

    for step in range(1, n_steps + 1):
        gradient = torch.randn((3, 4), generator=generator, dtype=torch.float64)
        theirs.grad = gradient.clone()
        optimizer.step()
        ours, mean, square = adam_step(
            ours, gradient, mean, square, torch.tensor(step, dtype=torch.float64),
            Rates(0.1, 0.8, 0.99), eps=1e-6,
        )  # fmt: skip

    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", SAES)
def test_a_captured_sae_step_gives_the_eager_numbers(name):
    eager = SaeTrainer(SAES[name], D, path="dense", precision="float64", compiler="none")
    captured = SaeTrainer(SAES[name], D, path="dense", precision="float64", compiler="aot_eager")

    for tokens in token_batches(6):
        expected, found = eager.step(tokens), captured.step(tokens)

        torch.testing.assert_close(found.loss, expected.loss, rtol=1e-9, atol=0)
        torch.testing.assert_close(found.fvu, expected.fvu, rtol=1e-9, atol=0)
        assert (found.l0, found.n_dead) == (expected.l0, expected.n_dead)

    assert captured.remark is None
    assert n_graphs() == 2  # one that measures, one that updates
    assert sum(counters["graph_break"].values()) == 0
    expected_state = eager.state()
    for key, tensor in captured.state().items():
        torch.testing.assert_close(tensor, expected_state[key], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    "rule",
    [{"sparsity": "relu"}, {"sparsity": "softplus"}, {"sparsity": "topk"}, {"free": True}],
)
def test_a_captured_guide_step_gives_the_eager_numbers(rule):
    eager = guide_trainer("none", **rule)
    captured = guide_trainer("aot_eager", **rule)

    for batch in guide_batches(6):
        torch.testing.assert_close(captured.step(*batch), eager.step(*batch))

    assert captured.remark is None
    assert n_graphs() == 2
    assert sum(counters["graph_break"].values()) == 0
    for name, tensor in eager.state().items():
        torch.testing.assert_close(captured.state()[name], tensor, rtol=1e-5, atol=1e-6)


def test_steps_do_not_compile_again_but_for_another_size_of_batch():
    trainer = SaeTrainer(SMALL, D, path="dense", compiler="aot_eager")
    whole, last = token_batches(9), token_batches(2, n_tokens=11)

    for tokens in whole[:4]:
        trainer.step(tokens)
    after_one_size = n_graphs()
    trainer.step(last[0])
    for tokens in [*whole[4:], last[1]]:
        trainer.step(tokens)

    assert after_one_size == 2
    assert n_graphs() == 3  # the update does not depend on the batch


def test_points_of_a_grid_share_one_graph_and_each_keeps_its_rates():
    rates = [
        {"learning_rate": 1e-3},
        {"learning_rate": 3e-2, "beta1": 0.9},
        {"beta2": 0.9, "auxk": 7, "auxk_weight": 0.5, "tied_init": False},
    ]
    configs = [replace(SMALL, seed=seed, **one) for seed, one in enumerate(rates)]
    eager = [SaeTrainer(one, D, precision="float64", compiler="none") for one in configs]
    captured = [SaeTrainer(one, D, precision="float64", compiler="aot_eager") for one in configs]

    for tokens in token_batches(5):
        for expected, found in zip(eager, captured, strict=True):
            torch.testing.assert_close(
                found.step(tokens).loss, expected.step(tokens).loss, rtol=1e-9, atol=0
            )

    assert n_graphs() == 2
    for expected, found in zip(eager, captured, strict=True):
        torch.testing.assert_close(found.sae().encoder, expected.sae().encoder)


def test_guides_of_a_grid_share_one_graph_and_each_keeps_its_numbers():
    numbers = [
        {},
        {"learning_rate": 0.1, "beta1": 0.9},
        {"ema": 0.5, "seed": 4},
        {"temperature": 0.5},
        {"sparsity": "relu", "beta": 0.3},
        {"sparsity": "relu", "beta": 0.0, "temperature": 0.2},
        {"lambda_dice": 4.0},
        {"lambda_dice": 0.0},
    ]
    eager = [guide_trainer("none", **one) for one in numbers]
    captured = [guide_trainer("aot_eager", **one) for one in numbers]

    for batch in guide_batches(5):
        for expected, found in zip(eager, captured, strict=True):
            torch.testing.assert_close(found.step(*batch), expected.step(*batch))

    assert n_graphs() == 2
    for expected, found in zip(eager, captured, strict=True):
        torch.testing.assert_close(found.ema, expected.ema, rtol=1e-5, atol=1e-6)


def test_what_is_baked_in_is_shared_with_nobody_and_graphs_go_with_their_trainers():
    first, other = (SaeTrainer(replace(SMALL, k=k), D, compiler="aot_eager") for k in (5, 6))
    [tokens] = token_batches(1)
    for trainer in (first, other):
        trainer.step(tokens)

    assert n_graphs() == 4
    before = len(compiling._shared)
    del first, other, trainer
    gc.collect()
    assert len(compiling._shared) < before


def test_a_state_is_gone_on_from_without_compiling_again():
    trainer = SaeTrainer(SMALL, D, path="dense", compiler="aot_eager")
    tokens = token_batches(3)
    trainer.step(tokens[0])
    state = trainer.state()
    trainer.step(tokens[1])
    ahead = trainer.state()

    trainer.load_state(state)
    trainer.step(tokens[1])

    assert n_graphs() == 2
    assert all(torch.equal(ahead[name], tensor) for name, tensor in trainer.state().items())


def test_many_trainers_of_other_shapes_do_not_drive_each_others_graphs_out():
    n_trainers = torch._dynamo.config.recompile_limit + 2
    trainers = [
        SaeTrainer(replace(SMALL, width=16 + i), D, path="dense", compiler="aot_eager")
        for i in range(n_trainers)
    ]

    for tokens in token_batches(2):
        for trainer in trainers:
            trainer.step(tokens)

    assert [trainer.remark for trainer in trainers] == [None] * n_trainers
    assert n_graphs() == 2 * n_trainers


def test_without_a_working_compiler_the_step_runs_as_it_is_and_says_so_once(monkeypatch):
    def broken(*args, **kwargs):
        def fail(*args, **kwargs):
            raise RuntimeError("Failed to find C compiler.\nPlease set CC.")

        return fail

    monkeypatch.setattr(torch, "compile", broken)
    plain = SaeTrainer(SMALL, D, path="dense", compiler="none")
    fallen_back = SaeTrainer(SMALL, D, path="dense", compiler="inductor")

    for tokens in token_batches(3):
        plain.step(tokens)
        fallen_back.step(tokens)

    assert fallen_back.remark == (
        "the step runs uncompiled: torch.compile failed (Failed to find C compiler.)"
    )
    assert plain.remark is None
    expected = plain.state()
    assert all(torch.equal(expected[name], tensor) for name, tensor in fallen_back.state().items())


def test_an_error_after_the_first_call_is_not_taken_for_a_missing_compiler():
    added = Compiled(_add, "aot_eager")
    assert torch.equal(added(torch.ones(2), torch.ones(2)), torch.full((2,), 2.0))

    with pytest.raises(RuntimeError):
        added(torch.ones(2), torch.ones(3))

    assert added.is_compiled


def _add(one, other):
    return one + other


def test_auto_compiles_on_cuda_only():
    assert backend_for("auto", torch.device("cuda")) == "inductor"
    assert backend_for("auto", torch.device("cpu")) is None
    assert backend_for("none", torch.device("cuda")) is None
    assert not Compiled(_add, backend_for("auto", torch.device("cpu"))).is_compiled


def test_another_compiler_is_refused():
    with pytest.raises(ConfigError, match="'tvm' is not one of auto, none, inductor, aot_eager"):
        SaeTrainer(SMALL, D, compiler="tvm")


@pytest.mark.slow
@needs_a_compiler
@pytest.mark.filterwarnings("default")  # what inductor warns of is not ours
def test_inductors_sae_and_guide_steps_give_the_eager_numbers():
    sae = {name: SaeTrainer(SMALL, D, path="dense", compiler=name) for name in ("none", "inductor")}
    guides = {name: guide_trainer(name) for name in ("none", "inductor")}

    for tokens in token_batches(4):
        losses = [trainer.step(tokens).loss for trainer in sae.values()]
        torch.testing.assert_close(*losses, rtol=1e-5, atol=0)
    for batch in guide_batches(4):
        torch.testing.assert_close(*(one.step(*batch) for one in guides.values()))

    assert sae["inductor"].remark is None
    assert guides["inductor"].remark is None

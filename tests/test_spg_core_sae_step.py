"""The training step against plain autograd and torch.optim.Adam, and its own laws."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from spg_core.errors import ArtifactError, ConfigError, FitError
from spg_core.sae import Sae
from spg_core.sae_config import SaeConfig
from spg_core.sae_gradients import LossTerms, gradients
from spg_core.sae_panels import COLUMNS, sum_rows
from spg_core.sae_step import SaeTrainer
from spg_core.sae_weights import initial_weights

D = 20
SMALL = SaeConfig(width=48, k=5)
# Atoms die after 60 tokens, so that some do within a few steps.
MORTAL = replace(SMALL, dead_after=60, auxk=4, dead_threshold=1.8)
RECIPES = {
    "released": SMALL,
    "auxk": MORTAL,
    "auxk of fewer dead atoms than it may take": replace(MORTAL, auxk=512),
    "free atoms": replace(MORTAL, unit_norm=False),
    "untied": replace(MORTAL, tied_init=False),
    "no clamp": replace(SMALL, clamp=False, k=30),
    "paper": replace(SMALL, loss="sum", auxk=0, beta1=0.9, unit_norm=False, clamp=False),
    "every latent": replace(SMALL, k=48),
}
RELU_RECIPES = {
    "relu": replace(SMALL, sparsifier="relu", l1=0.02),
    "relu with auxk": replace(MORTAL, sparsifier="relu", l1=0.02),
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors gain nothing from threads, and lose much on a busy machine."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


def batches(n_steps: int, n_tokens: int = 37, d_model: int = 20, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn((n_tokens, d_model), generator=generator) for _ in range(n_steps)]


class PlainTrainer:
    """The released training loop, as short as autograd allows."""

    def __init__(self, config: SaeConfig, dtype: torch.dtype) -> None:
        self.config = config
        self.encoder, self.dictionary = (
            weights.requires_grad_() for weights in initial_weights(config, D, dtype)
        )
        self.adam = torch.optim.Adam(
            [self.encoder, self.dictionary],
            lr=config.learning_rate,
            betas=(config.beta1, config.beta2),
        )
        self.idle_tokens = torch.zeros(config.width, dtype=torch.int64)

    def step(self, tokens: Tensor) -> float:
        loss = self.loss(tokens.to(self.encoder.dtype))
        self.adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.adam.step()
        if self.config.unit_norm:
            with torch.no_grad():
                self.dictionary /= self.dictionary.norm(dim=1, keepdim=True)
        return loss.item()

    def loss(self, tokens: Tensor) -> Tensor:
        config, atoms = self.config, self.dictionary
        if config.unit_norm:
            atoms = atoms / atoms.norm(dim=1, keepdim=True)
        pre = tokens @ self.encoder.T
        if config.sparsifier == "relu":
            latents = pre.relu()
        else:
            values, indices = pre.topk(config.k, dim=1)
            values = values.clamp_min(0) if config.clamp else values
            latents = torch.zeros_like(pre).scatter(1, indices, values)
        residual = tokens - latents @ atoms
        loss = self.reduce(residual) + config.l1 * latents.sum(1).mean()

        self.idle_tokens += len(tokens)
        self.idle_tokens[(latents > config.dead_threshold).any(0)] = 0
        dead = self.idle_tokens >= config.dead_after
        if config.auxk and dead.any():
            values, indices = (pre * dead).topk(min(config.auxk, config.width), dim=1)
            auxk_latents = torch.zeros_like(pre).scatter(1, indices, values.clamp_min(0))
            rest = residual.detach() - auxk_latents @ atoms
            loss = loss + config.auxk_weight * self.reduce(rest)
        return loss

    def reduce(self, residual: Tensor) -> Tensor:
        squared = residual.square()
        return (squared.mean(1) if self.config.loss == "mean" else squared.sum(1)).mean()


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm().clamp_min(1e-30))


def test_one_step_of_one_atom_by_hand() -> None:
    config = SaeConfig(width=1, k=1, loss="sum", auxk=0, learning_rate=0.1)
    trainer = SaeTrainer(config, 2, path="sparse")
    state = trainer.state()
    state["encoder"] = torch.tensor([[1.0, 1.0]])
    state["dictionary"] = torch.tensor([[1.0, 0.0]])
    trainer.load_state(state)

    stats = trainer.step(torch.tensor([[1.0, 2.0]]))

    # z = 3, residual (1, 2) - (3, 0) = (-2, 2), loss 8; dz = -2 <r, D> = 4, so dW = (4, 8);
    # dD = -2 z r = (12, -12), tangential (0, -12). Adam's first step is the sign times 0.1.
    assert stats.loss.item() == pytest.approx(8)
    sae = trainer.sae()
    torch.testing.assert_close(sae.encoder, torch.tensor([[0.9, 0.9]]))
    atom = torch.tensor([[1.0, 0.1]])
    torch.testing.assert_close(sae.dictionary, atom / atom.norm())


@pytest.mark.parametrize(
    ("name", "path"),
    [
        *((name, path) for name in RECIPES for path in ("dense", "sparse")),
        *((name, "dense") for name in RELU_RECIPES),
    ],
)
def test_steps_equal_autograd_and_adam_in_float64(
    name: str, path: Literal["dense", "sparse"]
) -> None:
    config = (RECIPES | RELU_RECIPES)[name]
    plain = PlainTrainer(config, torch.float64)
    trainer = SaeTrainer(config, D, path=path, precision="float64")

    most_dead = 0
    for tokens in batches(8):
        loss = plain.step(tokens)
        stats = trainer.step(tokens)

        most_dead = max(most_dead, int(stats.n_dead))
        assert stats.loss.item() == pytest.approx(loss, rel=1e-9)
        sae = trainer.sae()
        torch.testing.assert_close(sae.encoder, plain.encoder.detach(), rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(sae.dictionary, plain.dictionary.detach(), rtol=1e-6, atol=1e-9)

    if config.dead_after == 60:
        assert most_dead > 4  # AuxK had work to do, and dead atoms to leave out


@pytest.mark.parametrize("name", [*RECIPES, *RELU_RECIPES])
def test_steps_equal_autograd_and_adam_in_float32(name: str) -> None:
    config = (RECIPES | RELU_RECIPES)[name]
    plain = PlainTrainer(config, torch.float32)
    trainer = SaeTrainer(config, D, path="dense" if name in RELU_RECIPES else "sparse")

    for tokens in batches(8):
        loss = plain.step(tokens)
        stats = trainer.step(tokens)

        assert stats.loss.item() == pytest.approx(loss, rel=1e-5)

    # Adam turns rounding of a gradient near 0 into a step of up to the learning rate.
    assert relative_error(trainer.sae().encoder, plain.encoder.detach()) < 1e-4
    assert relative_error(trainer.sae().dictionary, plain.dictionary.detach()) < 1e-4


@settings(max_examples=25, deadline=None)
@given(
    n_tokens=st.sampled_from([1, 2, 37, 1025]),
    shape=st.sampled_from([(1, 3), (7, 5), (64, 24), (257, 16), (65, 150)]),
    share=st.floats(0, 1),
    clamp=st.booleans(),
    seed=st.integers(0, 99),
)
def test_sparse_and_dense_gradients_agree(
    n_tokens: int, shape: tuple[int, int], share: float, clamp: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    encoder, dictionary = torch.randn((2, *shape), generator=generator)
    sae = Sae(encoder, dictionary, k=max(1, round(share * shape[0])), clamp=clamp)
    tokens = torch.randn((n_tokens, shape[1]), generator=generator)
    terms = LossTerms(scale=1 / n_tokens, l1=0.0, threshold=0.1)

    sparse = gradients("sparse", sae, tokens, terms)
    dense = gradients("dense", sae, tokens, terms)

    assert relative_error(sparse.encoder, dense.encoder) < 1e-5
    assert relative_error(sparse.dictionary, dense.dictionary) < 1e-5
    assert relative_error(sparse.loss, dense.loss) < 1e-5
    assert torch.equal(sparse.active, dense.active)
    assert sparse.n_nonzero == dense.n_nonzero


@pytest.mark.parametrize("width", [1, COLUMNS - 1, COLUMNS, 2 * COLUMNS + 22])
def test_rows_added_up_by_panels_are_the_bits_of_whole_rows(width: int) -> None:
    generator = torch.Generator().manual_seed(0)
    table = torch.randn((70, width), generator=generator)
    weights, indices = torch.randn((33, 70), generator=generator).topk(9, dim=1)

    whole = functional.embedding_bag(indices, table, per_sample_weights=weights, mode="sum")

    assert torch.equal(sum_rows(table, indices, weights), whole)


@pytest.mark.parametrize("path", ["dense", "sparse"])
def test_a_run_cut_in_two_gives_the_bits_of_one_go(path: Literal["dense", "sparse"]) -> None:
    data = batches(9)
    whole = SaeTrainer(MORTAL, D, path=path)
    first = SaeTrainer(MORTAL, D, path=path)
    second = SaeTrainer(MORTAL, D, path="dense")  # takes the path over with the state

    for tokens in data:
        whole.step(tokens)
    for tokens in data[:4]:
        first.step(tokens)
    second.load_state(first.state())
    for tokens in data[4:]:
        second.step(tokens)

    expected, found = whole.state(), second.state()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_state_and_sae_are_copies_of_the_moment() -> None:
    trainer = SaeTrainer(SMALL, D)
    sae, state = trainer.sae(), trainer.state()
    before = sae.encoder.clone()

    trainer.step(batches(1)[0])

    assert torch.equal(sae.encoder, before)
    assert torch.equal(state["encoder"], before)
    assert not torch.equal(trainer.sae().encoder, before)


def test_the_same_seed_gives_the_same_bits_and_another_seed_others() -> None:
    def train(seed: int) -> Tensor:
        trainer = SaeTrainer(replace(MORTAL, seed=seed), D, path="sparse")
        for tokens in batches(5):
            trainer.step(tokens)
        return trainer.sae().dictionary

    assert torch.equal(train(1), train(1))
    assert not torch.equal(train(1), train(2))


def test_atoms_keep_length_one_and_the_tied_encoder_starts_as_the_dictionary() -> None:
    trainer = SaeTrainer(SMALL, D)
    assert torch.equal(trainer.sae().encoder, trainer.sae().dictionary)

    for tokens in batches(5):
        trainer.step(tokens)

    torch.testing.assert_close(trainer.sae().dictionary.norm(dim=1), torch.ones(48))
    assert not torch.equal(trainer.sae().encoder, trainer.sae().dictionary)


def test_an_untied_encoder_starts_within_its_bound() -> None:
    encoder, dictionary = initial_weights(replace(SMALL, tied_init=False), D)

    assert encoder.abs().max() <= 20**-0.5
    assert not torch.equal(encoder, dictionary)


def test_training_lowers_the_unexplained_variance() -> None:
    tokens = batches(1, n_tokens=200)[0]
    trainer = SaeTrainer(replace(SMALL, learning_rate=1e-2), D)

    first = trainer.step(tokens)
    for _ in range(60):
        last = trainer.step(tokens)

    assert last.fvu < 0.5 * first.fvu
    assert 0 < last.l0 <= 5


def test_an_atom_counts_as_dead_after_its_idle_tokens_and_revives() -> None:
    config = SaeConfig(width=2, k=1, dead_after=3, auxk=0)
    trainer = SaeTrainer(config, 2, path="sparse")
    state = trainer.state()
    state["encoder"] = state["dictionary"] = torch.eye(2)
    trainer.load_state(state)
    towards_first, towards_second = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])

    dead = [int(trainer.step(towards_first).n_dead) for _ in range(3)]
    dead.append(int(trainer.step(towards_second).n_dead))

    assert dead == [0, 0, 1, 0]


def test_half_precision_tokens_train_as_their_float32_values() -> None:
    tokens = batches(1)[0].half()
    ours, theirs = SaeTrainer(SMALL, D, path="sparse"), SaeTrainer(SMALL, D, path="sparse")

    ours.step(tokens)
    theirs.step(tokens.float())

    assert torch.equal(ours.sae().encoder, theirs.sae().encoder)


@pytest.mark.parametrize("path", ["dense", "sparse"])
def test_bfloat16_products_come_close_to_float32(path: Literal["dense", "sparse"]) -> None:
    # What CUDA runs; here on the CPU. TopK may pick other latents where two are nearly equal.
    tokens = batches(1, n_tokens=300)[0]
    coarse = SaeTrainer(SMALL, D, path=path, precision="bfloat16")
    fine = SaeTrainer(SMALL, D, path=path)

    for _ in range(20):
        coarse_stats, fine_stats = coarse.step(tokens), fine.step(tokens)

    assert coarse.sae().encoder.dtype == torch.float32
    assert coarse_stats.fvu.item() == pytest.approx(fine_stats.fvu.item(), rel=0.02)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("path", ["dense", "sparse"])
def test_cuda_steps_equal_the_cpu(path: Literal["dense", "sparse"]) -> None:
    cpu = SaeTrainer(MORTAL, D, path=path)
    cuda = SaeTrainer(MORTAL, D, device="cuda", path=path, precision="float32")

    for tokens in batches(8):
        cpu.step(tokens)
        cuda.step(tokens)

    assert relative_error(cuda.sae().encoder.cpu(), cpu.sae().encoder) < 1e-3


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("path", ["dense", "sparse"])
def test_tokens_that_are_not_finite_are_refused_with_the_step(
    bad: float, path: Literal["dense", "sparse"]
) -> None:
    trainer = SaeTrainer(SMALL, D, path=path)
    tokens = batches(1)[0]
    trainer.step(tokens)
    before = trainer.state()
    broken = tokens.clone()
    broken[3, 4] = bad

    with pytest.raises(FitError, match=r"step 2: the loss is (nan|inf), expected finite tokens"):
        trainer.step(broken)

    after = trainer.state()
    assert all(torch.equal(before[name], after[name]) for name in before)
    trainer.step(tokens)  # and training can go on


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(FitError, match="step 1 got a batch of 0 tokens"):
        SaeTrainer(SMALL, D).step(torch.zeros(0, 20))


def test_tokens_of_another_width_are_refused() -> None:
    with pytest.raises(ArtifactError, match=r"tokens of shape \(4, 7\), expected \(n, 20\)"):
        SaeTrainer(SMALL, D).step(torch.zeros(4, 7))


def test_the_state_of_another_configuration_is_refused() -> None:
    with pytest.raises(ArtifactError, match=r"\(32,? ?(20)?\) as .*; resume with the "):
        SaeTrainer(SMALL, D).load_state(SaeTrainer(replace(SMALL, width=32), D).state())


def test_impossible_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="k = 49 latents a token of 48 atoms; choose k from 1"):
        replace(SMALL, k=49)
    with pytest.raises(ConfigError, match=r"l1 = 0.1 with sparsifier topk, which has no l1 term"):
        replace(SMALL, l1=0.1)
    with pytest.raises(ConfigError, match="--sparsifier is 'jump'; it must be topk or relu"):
        replace(SMALL, sparsifier="jump")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="--loss is 'max'; it must be mean or sum"):
        replace(SMALL, loss="max")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="path 'fast' is not one of dense, sparse"):
        SaeTrainer(SMALL, D, path="fast").step(batches(1)[0])  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="precision 'half' is not one of"):
        SaeTrainer(SMALL, D, precision="half")  # type: ignore[arg-type]


def test_relu_has_no_sparse_path() -> None:
    config = RELU_RECIPES["relu"]

    with pytest.raises(ConfigError, match="the sparse path needs topk without l1"):
        SaeTrainer(config, D, path="sparse").step(batches(1)[0])

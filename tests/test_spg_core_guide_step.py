import pytest
import torch

from spg_core.anomaly_map import map_operator
from spg_core.errors import FitError
from spg_core.guide_loss import dice_loss, focal_loss
from spg_core.guide_step import GuideFit, GuideTrainer
from spg_core.guides import initial_coefficients
from spg_core.types import PatchGrid

GRID, HEIGHT, WIDTH, D = PatchGrid(3, 2), 12, 10, 5


def fit(n_latents=7, seed=0, **changes):
    generator = torch.Generator().manual_seed(n_latents + seed)
    fields = {
        "dictionary": torch.randn(n_latents, D, generator=generator),
        "alive": torch.ones(n_latents, dtype=torch.bool),
        "sparsity": "relu",
        "topk": 2,
        "beta": 2.5e-4,
        "learning_rate": 1e-2,
        "beta1": 0.5,
        "beta2": 0.999,
        "seed": seed,
    }
    return GuideFit(**{**fields, **changes})


def trainer(*fits, ema=0.999):
    operator = map_operator(GRID, HEIGHT, WIDTH, sigma=0)
    return GuideTrainer(fits, operator=operator, temperature=0.07, dice="both", ema=ema)


def batches(n_steps, n_images=3):
    generator = torch.Generator().manual_seed(1)
    for _ in range(n_steps):
        tokens = torch.randn(n_images, 6, D, generator=generator)
        masks = (torch.rand(n_images, HEIGHT, WIDTH, generator=generator) > 0.8).to(torch.uint8)
        yield tokens, masks


def test_steps_are_those_of_plain_autograd_and_adam():
    one = fit()
    ours = trainer(one)

    raw = initial_coefficients(7, 0).requires_grad_()
    adam = torch.optim.Adam([raw], lr=1e-2, betas=(0.5, 0.999))
    for tokens, masks in batches(4):
        got = ours.step(tokens, masks)
        z = torch.relu(raw)
        cosines = torch.nn.functional.cosine_similarity(
            tokens[:, :, None], (z @ one.dictionary)[None, None], dim=-1
        )
        p = torch.softmax(cosines / 0.07, dim=-1)[..., 1].reshape(-1, 1, 3, 2)
        p = torch.nn.functional.interpolate(p, (HEIGHT, WIDTH), mode="bilinear")[:, 0]
        y = masks.float()
        loss = focal_loss(p, y) + dice_loss(p, y) + dice_loss(1 - p, 1 - y) + 2.5e-4 * z.sum()
        adam.zero_grad()
        loss.backward()
        adam.step()
        torch.testing.assert_close(got[0], loss.detach(), rtol=1e-4, atol=1e-5)

    torch.testing.assert_close(ours.raw[0], raw, rtol=1e-3, atol=1e-4)


def test_many_fits_at_once_give_what_each_gives_alone():
    fits = [fit(7), fit(11, seed=3), fit(4, sparsity="topk", learning_rate=1e-3)]
    together, alone = trainer(*fits), [trainer(one) for one in fits]

    for tokens, masks in batches(5):
        together.step(tokens, masks)
        for single in alone:
            single.step(tokens, masks)

    for i, single in enumerate(alone):
        torch.testing.assert_close(together.raw[i], single.raw[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(together.ema[i], single.ema[0], rtol=1e-4, atol=1e-5)


def test_going_on_from_a_saved_state_is_bit_identical_to_one_go():
    whole, first = trainer(fit(), fit(9)), trainer(fit(), fit(9))
    steps = list(batches(6))
    for batch in steps:
        whole.step(*batch)
    for batch in steps[:2]:
        first.step(*batch)

    second = trainer(fit(), fit(9))
    second.load_state({name: tensor.clone() for name, tensor in first.state().items()})
    for batch in steps[2:]:
        second.step(*batch)

    assert second.n_steps == whole.n_steps
    for name, tensor in whole.state().items():
        assert torch.equal(tensor, second.state()[name]), name


def test_the_first_average_is_a_copy_and_later_ones_decay():
    ours = trainer(fit(), ema=0.75)
    (first, second) = batches(2)

    ours.step(*first)
    after_one = ours.raw[0].detach().clone()
    torch.testing.assert_close(ours.ema[0], after_one)
    ours.step(*second)

    torch.testing.assert_close(ours.ema[0], 0.75 * after_one + 0.25 * ours.raw[0].detach())


def test_dead_atoms_stay_out_of_the_guides():
    alive = torch.tensor([True] * 6 + [False])
    ours = trainer(fit(alive=alive))
    for batch in batches(3):
        ours.step(*batch)

    assert float(ours.coefficients(0, ours.raw[0].detach())[:, 6].abs().max()) == 0


def test_a_fit_that_diverges_does_not_touch_the_others():
    bad = fit(dictionary=torch.full((7, D), torch.nan))
    ours, alone = trainer(fit(), bad), trainer(fit())

    for batch in batches(2):
        losses = ours.step(*batch)
        alone.step(*batch)

    assert bool(torch.isfinite(losses[0]))
    assert not bool(torch.isfinite(losses[1]))
    torch.testing.assert_close(ours.raw[0], alone.raw[0])


def test_a_loss_that_is_not_finite_is_refused_with_its_step():
    ours = trainer(fit())

    with pytest.raises(FitError, match="not finite at step 1"):
        ours.step(torch.full((1, 6, D), torch.nan), torch.ones(1, HEIGHT, WIDTH))

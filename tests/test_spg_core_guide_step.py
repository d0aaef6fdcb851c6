import pytest
import torch

from spg_core.anomaly_map import map_operator
from spg_core.errors import ArtifactError, FitError
from spg_core.guide_config import GuideConfig
from spg_core.guide_loss import dice_loss, focal_loss
from spg_core.guide_step import GuideFit, GuideTrainer, guide_batch
from spg_core.guides import initial_coefficients
from spg_core.types import PatchGrid

GRID, HEIGHT, WIDTH, D = PatchGrid(3, 2), 12, 10, 5


OPERATOR = map_operator(GRID, HEIGHT, WIDTH, sigma=0)


def fit(n_latents=7, seed=0, dictionary=None, alive=None, free=False, **changes):
    generator = torch.Generator().manual_seed(n_latents + seed)
    drawn = torch.randn(n_latents, D, generator=generator)
    return GuideFit(
        dictionary=drawn if dictionary is None else dictionary,
        alive=torch.ones(n_latents, dtype=torch.bool) if alive is None else alive,
        config=GuideConfig(**{"topk_guides": 2, "seed": seed, **changes}),
        free=free,
    )


RULES = {
    "relu": {"sparsity": "relu"},
    "softplus": {"sparsity": "softplus"},
    "topk": {"sparsity": "topk"},
    "free": {"free": True},
}


def trainer(fit, compiler="auto"):
    return GuideTrainer(fit, operator=OPERATOR, compiler=compiler)


def batches(n_steps, n_images=3):
    generator = torch.Generator().manual_seed(1)
    for _ in range(n_steps):
        tokens = torch.randn(n_images, 6, D, generator=generator)
        masks = (torch.rand(n_images, HEIGHT, WIDTH, generator=generator) > 0.8).to(torch.uint8)
        yield tokens, masks


def coefficients(raw, fit):
    """What raw parameters stand for, with the gradient autograd finds."""
    if fit.free:
        return raw
    positive = torch.relu(raw)
    if fit.config.sparsity == "softplus":
        return (1 + raw.exp()).log()
    if fit.config.sparsity == "relu":
        return positive
    # the authors' straight-through TopK: of relu, not of what is below 0
    lowest = positive.topk(fit.config.topk_guides).values[:, -1:]
    return positive + (torch.where(positive >= lowest, positive, 0.0) - positive).detach()


@pytest.mark.parametrize("dice", ["anomaly", "both"])
@pytest.mark.parametrize("rule", ["relu", "softplus", "topk", "free"])
def test_steps_are_those_of_plain_autograd_and_adam(rule, dice):
    one = fit(dice=dice, **RULES[rule], lambda_dice=0.3)
    ours = trainer(one)
    # half of them at or below 0, where relu and topk give no gradient
    start = initial_coefficients(7, 0) * torch.tensor([1.0, -1.0] * 7).view(2, 7)
    ours.load_state({**ours.state(), "raw": start})

    raw = start.clone().requires_grad_()
    adam = torch.optim.Adam([raw], lr=1e-2, betas=(0.5, 0.999))
    for tokens, masks in batches(4):
        got = ours.step(tokens, masks)
        z = coefficients(raw, one)
        cosines = torch.nn.functional.cosine_similarity(
            tokens[:, :, None], (z @ one.dictionary)[None, None], dim=-1
        )
        p = torch.softmax(cosines / 0.07, dim=-1)[..., 1].reshape(-1, 1, 3, 2)
        p = torch.nn.functional.interpolate(p, (HEIGHT, WIDTH), mode="bilinear")[:, 0]
        y = masks.float()
        overlap = dice_loss(p, y) + (dice_loss(1 - p, 1 - y) if dice == "both" else 0)
        loss = focal_loss(p, y) + 0.3 * overlap
        if rule in ("relu", "softplus"):
            loss = loss + 2.5e-4 * z.sum()
        adam.zero_grad()
        loss.backward()
        adam.step()
        torch.testing.assert_close(got, loss.detach(), rtol=1e-4, atol=1e-5)

    torch.testing.assert_close(ours.raw, raw.detach(), rtol=1e-3, atol=1e-4)
    stays = start <= 0 if rule in ("relu", "topk") else torch.zeros_like(start, dtype=torch.bool)
    assert torch.equal(ours.raw == start, stays)


def test_a_batch_prepared_once_serves_many_fits_with_the_bits_of_each_alone():
    fits = [fit(7), fit(11, seed=3), fit(4, sparsity="topk", learning_rate=1e-3)]
    together, alone = [trainer(one) for one in fits], [trainer(one) for one in fits]

    for tokens, masks in batches(5):
        shared = guide_batch(OPERATOR, tokens, masks)
        for one, other in zip(together, alone, strict=True):
            one.step_on(shared)
            other.step(tokens, masks)

    for one, other in zip(together, alone, strict=True):
        assert torch.equal(one.raw, other.raw)
        assert torch.equal(one.ema, other.ema)


def test_preparing_a_batch_leaves_the_tokens_alone():
    tokens, masks = next(batches(1))
    before = tokens.clone()

    batch = guide_batch(OPERATOR, tokens, masks)

    assert torch.equal(tokens, before)
    torch.testing.assert_close(batch.tokens.norm(dim=-1), torch.ones(3, 6))


def test_going_on_from_a_saved_state_is_bit_identical_to_one_go():
    whole, first = trainer(fit()), trainer(fit())
    steps = list(batches(6))
    for batch in steps:
        whole.step(*batch)
    for batch in steps[:2]:
        first.step(*batch)

    second = trainer(fit())
    second.load_state(first.state())
    for batch in steps[2:]:
        second.step(*batch)

    assert second.n_steps == whole.n_steps == 6
    for name, tensor in whole.state().items():
        assert torch.equal(tensor, second.state()[name]), name


def test_the_first_average_is_a_copy_and_later_ones_decay():
    ours = trainer(fit(ema=0.75))
    (first, second) = batches(2)

    ours.step(*first)
    after_one = ours.raw.clone()
    assert torch.equal(ours.ema, after_one)
    ours.step(*second)

    torch.testing.assert_close(ours.ema, 0.75 * after_one + 0.25 * ours.raw)


def test_dead_atoms_stay_out_of_the_guides():
    alive = torch.tensor([True] * 6 + [False])
    ours = trainer(fit(alive=alive))
    start = ours.raw.clone()
    for batch in batches(3):
        ours.step(*batch)

    assert float(ours.coefficients(ours.raw)[:, 6].abs().max()) == 0
    assert torch.equal(ours.raw[:, :6] == start[:, :6], torch.zeros(2, 6, dtype=torch.bool))


def test_a_loss_that_is_not_finite_is_refused_with_its_step_and_changes_nothing():
    ours = trainer(fit())
    ours.step(*next(batches(1)))
    before = ours.state()

    with pytest.raises(FitError, match="step 2: the loss is nan, expected finite tokens"):
        ours.step(torch.full((1, 6, D), torch.nan), torch.ones(1, HEIGHT, WIDTH))

    assert all(torch.equal(before[name], tensor) for name, tensor in ours.state().items())


def test_the_state_of_another_fit_is_refused():
    with pytest.raises(ArtifactError, match="resume with the configuration and version"):
        trainer(fit(7)).load_state(trainer(fit(9)).state())

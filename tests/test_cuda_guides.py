"""Guides, maps and pooling on a GPU: one device, float32 products, and nobody waits."""

from dataclasses import replace

import pytest
import torch

from spg_core.anomaly_map import image_scores, map_operator
from spg_core.atom_patches import atom_activations
from spg_core.guide_config import GuideConfig
from spg_core.guide_step import GuideFit, GuideTrainer, guide_batch, label_batch
from spg_core.memory import coreset, nearest_distances
from spg_core.pooling import Pooling
from spg_core.sae import Sae
from spg_core.types import PatchGrid
from tests.pretended_gpu import PretendedGpu, needs_cuda_build, pretend_card, pretended_gpu

pytestmark = needs_cuda_build

GRID, HEIGHT, WIDTH, D, N_ATOMS, N_IMAGES = PatchGrid(3, 2), 12, 10, 5, 7, 4
RULES: dict[str, GuideConfig] = {
    "relu": GuideConfig(),
    "softplus": GuideConfig(sparsity="softplus"),
    "topk": GuideConfig(sparsity="topk", topk_guides=2),
    "paper": GuideConfig(dice="anomaly", beta=0.01, beta1=0.9, ema=0.0),
}


@pytest.fixture(autouse=True)
def card(monkeypatch: pytest.MonkeyPatch) -> None:
    """An H100 that is not there."""
    pretend_card(monkeypatch)


def trainer(config: GuideConfig, free: bool = False) -> GuideTrainer:
    fit = GuideFit(
        dictionary=torch.randn(N_ATOMS, D),
        alive=torch.ones(N_ATOMS, dtype=torch.bool),
        config=replace(config, seed=0),
        free=free,
    )
    operator = map_operator(GRID, HEIGHT, WIDTH, sigma=0)
    return GuideTrainer(fit, operator=operator, device="cuda", compiler="none")


def require_quiet(gpu: PretendedGpu) -> None:
    assert gpu.waits == []
    assert gpu.products == {torch.float32}
    assert gpu.wide == []


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("rule", RULES)
def test_a_step_waits_for_nothing(rule: str, free: bool) -> None:
    with pretended_gpu() as gpu:
        made = trainer(RULES[rule], free)
        tokens = torch.empty((N_IMAGES, 6, D), dtype=torch.float16, device="cuda")
        masks = torch.empty((N_IMAGES, HEIGHT, WIDTH), dtype=torch.uint8, device="cuda")
        gpu.waits.clear()
        batch = guide_batch(made.operator, tokens, masks)
        losses = [made.step_on(batch) for _ in range(3)]
        pair = made.coefficients(made.ema)

    require_quiet(gpu)
    assert [(one.device.type, one.dtype) for one in losses] == [("cuda", torch.float32)] * 3
    assert pair.shape == (2, N_ATOMS)


def test_a_step_on_labels_waits_for_nothing() -> None:
    with pretended_gpu() as gpu:
        made = trainer(GuideConfig())
        tokens = torch.empty((N_IMAGES, D), dtype=torch.float16, device="cuda")
        labels = torch.empty(N_IMAGES, dtype=torch.int64, device="cuda")
        gpu.waits.clear()
        loss = made.step_on(label_batch(tokens, labels))

    require_quiet(gpu)
    assert (loss.device.type, loss.dtype) == ("cuda", torch.float32)


@pytest.mark.parametrize("sigma", [0.0, 2.0])
@pytest.mark.parametrize(
    "pooling", [Pooling(tau=0), Pooling(tau=0.02), Pooling(tau=float("inf")), Pooling(top=0.1)]
)
def test_maps_and_their_scores_stay_on_the_gpu(pooling: Pooling, sigma: float) -> None:
    with pretended_gpu() as gpu:
        operator = map_operator(GRID, HEIGHT, WIDTH, sigma).to("cuda")
        patches = torch.empty((N_IMAGES, 6), device="cuda")
        gpu.waits.clear()
        maps = operator(patches)
        scores = image_scores(maps, pooling)

    require_quiet(gpu)
    assert (maps.device.type, maps.shape) == ("cuda", (N_IMAGES, HEIGHT, WIDTH))
    assert (scores.device.type, scores.dtype, scores.shape) == ("cuda", torch.float32, (N_IMAGES,))


def test_a_memory_is_asked_and_thinned_out_without_a_wait() -> None:
    with pretended_gpu() as gpu:
        tokens = torch.empty((N_IMAGES, 6, D), device="cuda")
        memory = torch.empty((1500, D), dtype=torch.float16, device="cuda")
        distances = nearest_distances(tokens, memory)
        scores = image_scores(distances, Pooling(top=0.01, of="patches"))
        kept = coreset(tokens.flatten(0, 1), 5)

    require_quiet(gpu)
    assert (distances.device.type, distances.shape) == ("cuda", (N_IMAGES, 6))
    assert (scores.device.type, scores.dtype) == ("cuda", torch.float32)
    assert (kept.device.type, kept.dtype, kept.shape) == ("cuda", torch.int64, (5,))


@pytest.mark.parametrize("n_found", [0, 3])
def test_atoms_ask_once_a_block_which_patches_fire(n_found: int) -> None:
    with pretended_gpu(n_found) as gpu:
        weights = torch.empty((N_ATOMS, D), device="cuda")
        sae = Sae(weights, weights, k=2)
        tokens, atoms = torch.empty((9, D), device="cuda"), torch.arange(3).to("cuda")
        gpu.waits.clear()
        found = atom_activations(sae, tokens, atoms)

    assert [one.split(" ")[0] for one in gpu.waits] == ["aten.nonzero.default"]
    assert (found.device.type, found.shape) == ("cuda", (3, 9))

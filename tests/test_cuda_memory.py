"""A GPU's memory: what is planned with it, who shares it, and what happens when it runs out."""

import gc
import shutil
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cache.objects import Objects
from cache.reader import TokenCache
from cache.store import open_store
from pipeline.atoms.find import find_atoms
from pipeline.atoms.survey import survey_sae
from pipeline.backbones.on_cpu import Taken
from pipeline.backbones.on_gpu import GpuForward
from pipeline.configs import AtomsConfig, FitSaeConfig, ScoreConfig
from pipeline.detection import values as values_module
from pipeline.detection.load import make_detector
from pipeline.detection.parts import GuidesPart
from pipeline.detection.values import compute_maps
from pipeline.fitting import sae as sae_stage
from pipeline.fitting import tokens as tokens_module
from pipeline.fitting.budget import memory_budget, plan_groups
from pipeline.fitting.fastest import fastest_way
from pipeline.fitting.guides import fit_guide_group
from pipeline.fitting.sae import fit_saes, sae_id
from pipeline.fitting.tokens import TokenSource
from pipeline.inputs import open_dataset
from pipeline.machine import device as device_module
from pipeline.machine.device import Place, free_bytes
from pipeline.prediction.model import judge, load_model, specs_of
from pipeline.sweep import estimate as estimate_module
from pipeline.sweep.estimate import estimate, trial_tokens
from spg_core import atom_counts, atom_patches
from spg_core.errors import BackboneError, FitError, MetricError
from spg_core.guide_step import GuideBatch, GuideTrainer
from spg_core.sae import Latents, Sae, encode
from spg_core.sae_config import SaeConfig
from spg_core.sae_step import SaeTrainer, StepStats
from tests.pretended_gpu import needs_cuda_build, pretend_card, pretended_gpu
from tests.small_store import GUIDES, SAE, SmallStore

CUDA = torch.device("cuda")
MVTEC = cast(
    TokenCache,
    SimpleNamespace(
        n_images=1725,
        tokens_per_image=784,
        n_tokens=1725 * 784,
        d_model=1024,
        tokens_bytes=1725 * 784 * 1024 * 2,
    ),
)
"""MVTec AD through a ViT-L at 448 pixels: 2.8 GB of tokens."""
GRID = {f"C {c}, k {k}": FitSaeConfig(width=c, k=k) for c in (4096, 16384, 65536) for k in (16, 64)}
LACKING = "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of ..."


# --- what there is --------------------------------------------------------------------------------


@pytest.mark.parametrize(("free_gb", "sizes"), [(8, [4, 1, 1]), (24, [4, 1, 1]), (80, [6])])
def test_a_grid_is_split_to_fit_the_gpu(
    monkeypatch: pytest.MonkeyPatch, free_gb: float, sizes: list[int]
) -> None:
    pretend_card(monkeypatch, free_gb=free_gb)

    groups = plan_groups(MVTEC, GRID, memory_budget(CUDA))

    assert [len(group) for group in groups] == sizes


@pytest.mark.parametrize(("free_gb", "stays"), [(5, False), (8, True), (24, True), (80, True)])
def test_tokens_stay_on_a_gpu_that_holds_them_twice(
    monkeypatch: pytest.MonkeyPatch, free_gb: float, stays: bool
) -> None:
    pretend_card(monkeypatch, free_gb=free_gb)

    assert tokens_module._fits(MVTEC, CUDA) is stays
    assert not tokens_module._fits(MVTEC, torch.device("cpu"))


def test_what_an_earlier_stage_left_with_the_allocator_is_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pretend_card(monkeypatch, free_gb=2, held_gb=70)

    assert free_bytes(CUDA) == 72 * 10**9
    assert tokens_module._fits(MVTEC, CUDA)


@pytest.mark.parametrize(
    ("n_workers", "n_gpus", "shares"), [(1, 1, [1]), (2, 1, [2, 2]), (3, 2, [2, 1, 2])]
)
def test_workers_that_share_a_gpu_share_its_memory(
    monkeypatch: pytest.MonkeyPatch, n_workers: int, n_gpus: int, shares: list[int]
) -> None:
    pretend_card(monkeypatch, free_gb=60, n_gpus=n_gpus)
    found = []
    for number in range(n_workers):
        monkeypatch.setattr(device_module, "place", Place(number, n_workers))
        found.append(free_bytes(device_module.resolve_device("auto")))

    assert found == [60 * 10**9 // share for share in shares]


def test_a_worker_of_dask_cuda_has_its_gpu_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_card(monkeypatch, free_gb=60, n_gpus=2)
    monkeypatch.setattr(device_module, "place", Place(1, 2))
    monkeypatch.setitem(sys.modules, "dask_cuda", cast(Any, object()))

    assert free_bytes(CUDA) == 60 * 10**9


# --- how it is used -------------------------------------------------------------------------------


def test_on_a_gpu_the_dense_path_is_taken_without_a_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_card(monkeypatch)

    # a trial would ask for a GPU, which is not there
    assert fastest_way(SaeConfig(), 1024, CUDA).path == "dense"


@needs_cuda_build
@pytest.mark.parametrize(
    ("capability", "dtype"),
    [((7, 5), torch.float32), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)],
)
def test_products_are_bfloat16_where_the_gpu_multiplies_it(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], dtype: torch.dtype
) -> None:
    pretend_card(monkeypatch, capability=capability)

    with pretended_gpu() as gpu:
        trainer = SaeTrainer(SaeConfig(width=48, k=5), 20, "cuda", compiler="none")
        trainer.step(torch.empty((9, 20), device="cuda"))

    assert gpu.products == {dtype}


@needs_cuda_build
def test_a_sweeps_estimate_compiles_nothing_and_times_batches_as_they_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pretend_card(monkeypatch)
    made: list[tuple[Any, list[int]]] = []

    class Watched(SaeTrainer):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.sizes: list[int] = []
            made.append((kwargs.get("compiler"), self.sizes))

        def step(self, tokens: Tensor) -> StepStats:
            self.sizes.append(len(tokens))
            return super().step(tokens)

    monkeypatch.setattr(estimate_module, "SaeTrainer", Watched)
    config = FitSaeConfig()
    waited: list[int] = []  # what the host had waited for as the clock was read

    with pretended_gpu() as gpu:

        def clock() -> float:
            waited.append(sum("scalar" in one for one in gpu.waits))
            return float(len(waited))

        monkeypatch.setattr(estimate_module, "perf_counter", clock)
        found = estimate(MVTEC, [["one"]], {"one": config}, CUDA)

    (compiler, sizes), *others = made
    assert (compiler, others) == ("none", [])
    assert sorted({*sizes}) == [12544 // 4, 12544]
    assert trial_tokens(config, MVTEC, torch.device("cpu")) == (128, 640)
    # each step is over when its time is taken, not only told to the GPU
    assert waited == [one for step in range(6) for one in (step, step + 1)]
    assert found.seconds == found.n_steps


# --- when it runs out -----------------------------------------------------------------------------


def test_an_sae_that_does_not_fit_fails_alone_and_lets_its_memory_go(
    fresh: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = open_dataset(fresh, "aux", "gabor")
    small, large = (FitSaeConfig(width=c, k=4, epochs=1, images_per_step=4) for c in (32, 96))
    held: list[weakref.ref[Tensor]] = []
    real = SaeTrainer.step

    def step(self: SaeTrainer, tokens: Tensor) -> StepStats:
        if self.config.width == 96:
            activations = torch.zeros(9)
            held.append(weakref.ref(activations))
            raise torch.OutOfMemoryError(LACKING)
        return real(self, tokens)

    monkeypatch.setattr(SaeTrainer, "step", step)

    found = fit_saes(fresh, data, [small, large])

    failed = found[sae_id(data, large)]
    assert isinstance(failed, FitError)
    assert "does not fit the GPU (CUDA out of memory); lower --width" in str(failed)
    assert not isinstance(found[sae_id(data, small)], Exception)
    gc.collect()
    assert [one() for one in held] == [None]


@pytest.mark.parametrize("where", ["weights", "batch"])
def test_what_does_not_fit_before_the_first_step_is_an_error_of_ours(
    fresh: Objects, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def lacking(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError(LACKING)

    if where == "weights":
        monkeypatch.setattr(sae_stage, "SaeTrainer", lacking)
    else:
        monkeypatch.setattr(sae_stage, "sae_batches", lacking)

    (failed,) = fit_saes(fresh, open_dataset(fresh, "aux", "gabor"), [SAE]).values()

    assert isinstance(failed, FitError)
    assert "does not fit the GPU" in str(failed)


def test_guides_that_do_not_fit_fail_alone(
    small_store: SmallStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = open_store(shutil.copytree(small_store.url, tmp_path / "store"))
    configs = [type(GUIDES)(**{**vars(GUIDES), "seed": seed}) for seed in (1, 2)]
    real, trained = GuideTrainer.step_on, list[int]()

    def step_on(self: GuideTrainer, batch: GuideBatch) -> Tensor:
        trained.append(self._config.seed)
        if self._config.seed == 2:
            raise torch.OutOfMemoryError(LACKING)
        return real(self, batch)

    monkeypatch.setattr(GuideTrainer, "step_on", step_on)

    found = fit_guide_group(store, [(small_store.sae, config) for config in configs])

    assert [isinstance(one, FitError) for one in found.values()].count(True) == 1
    assert {*trained} <= {1, 2}


def test_tokens_that_do_not_fit_after_all_are_streamed(
    small_store: SmallStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lacking(*_: object) -> Tensor:
        raise torch.OutOfMemoryError(LACKING)

    monkeypatch.setattr(tokens_module, "_load", lacking)
    cache = open_dataset(open_store(small_store.url), "aux", "gabor").cache

    source = TokenSource(cache, torch.device("cpu"), resident=True)

    assert not source.is_resident
    assert "tokens are streamed" in capsys.readouterr().err
    assert len(next(iter(source.batches("images", 2, seed=0, epoch=0)))) == 2 * 36


@pytest.mark.parametrize("free_gb", [80.0, 0.0003])
@needs_cuda_build
def test_masks_are_decoded_once_where_the_gpu_has_room_for_them(
    small_store: SmallStore, monkeypatch: pytest.MonkeyPatch, free_gb: float
) -> None:
    pretend_card(monkeypatch, free_gb=free_gb)
    cache = open_dataset(open_store(small_store.url), "aux", "gabor").cache
    real, read = TokenCache.masks, list[int]()

    def masks(self: TokenCache, rows: Any) -> Any:
        read.extend(rows)
        return real(self, rows)

    monkeypatch.setattr(TokenCache, "masks", masks)
    with pretended_gpu() as gpu:
        source = TokenSource(cache, CUDA, resident=True)
        gpu.waits.clear()
        found = [source.masks(np.array(rows)) for rows in ([3, 1, 0, 2], [0, 5, 7, 9])]

    assert [(one.device.type, one.shape) for one in found] == [("cuda", (4, 96, 96))] * 2
    assert len(read) == (cache.n_images if free_gb == 80 else 2 * 4)
    assert gpu.waits == []


class Greedy(nn.Module):
    """Holds so many images at once, and notes how many came."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self.seen: list[int] = []

    def forward(self, pixels: Tensor) -> list[Taken]:
        """Turn `(B, 3, 4, 4)` into a layer of two tokens of 8, and a class token."""
        self.seen.append(len(pixels))
        if len(pixels) > self.most:
            raise torch.OutOfMemoryError(LACKING)
        return [(pixels[:, 0].reshape(len(pixels), 2, 8), pixels[:, 0].flatten(1))]


def test_a_batch_that_does_not_fit_is_halved_and_so_are_those_that_follow(
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = Greedy(most=3)
    forward = GpuForward(model)
    pixels = torch.randn(13, 3, 4, 4)

    [(tokens, cls)] = forward(pixels, torch.device("cpu"), "float32")
    [(again, _)] = forward(pixels[:5], torch.device("cpu"), "float32")

    assert torch.equal(tokens, pixels[:, 0].reshape(13, 2, 8))
    assert cls is not None
    assert torch.equal(cls, pixels[:, 0].flatten(1))
    assert torch.equal(again, tokens[:5])
    assert model.seen == [13, 6, 3, 3, 3, 3, 1, 3, 2]
    said = capsys.readouterr().err
    assert "13 images do not fit cpu; now 6 at a time" in said
    assert "6 images do not fit cpu; now 3 at a time" in said


def test_a_gpu_too_small_for_one_image_is_an_error_of_ours() -> None:
    forward = GpuForward(Greedy(most=0))

    with pytest.raises(
        BackboneError, match=r"one image does not fit cpu .*CUDA out of memory.*--device cpu"
    ):
        forward(torch.zeros(4, 3, 4, 4), torch.device("cpu"), "float32")


@pytest.fixture
def crowded(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Have guides hold so many images at once."""
    monkeypatch.setattr(device_module, "_most", {})
    monkeypatch.setattr(values_module, "_images_at_once", lambda _: 16)
    real = GuidesPart.values

    def hold(most: int) -> None:
        def values(self: GuidesPart, units: Tensor, category: str | None = None) -> Tensor:
            if len(units) > most:
                raise torch.OutOfMemoryError(LACKING)
            return real(self, units, category)

        monkeypatch.setattr(GuidesPart, "values", values)

    return hold


def test_scoring_goes_on_with_fewer_images_when_they_do_not_fit(
    small_store: SmallStore, crowded: Callable[[int], None], capsys: pytest.CaptureFixture[str]
) -> None:
    data = open_dataset(open_store(small_store.url), "aux", "gabor")
    detector, rows = make_detector(small_store.guides, ScoreConfig()), np.arange(16)
    expected = compute_maps(detector, data, rows)
    crowded(3)

    found = compute_maps(detector, data, rows)

    np.testing.assert_allclose(found, expected, rtol=1e-5)
    said = capsys.readouterr().err
    told = [line.partition("now ")[2] for line in said.splitlines() if "scoring" in line]
    assert told == ["2 at a time"]  # blocks are of a category: four images


def test_judging_goes_on_with_fewer_pictures_when_they_do_not_fit(
    small_store: SmallStore, crowded: Callable[[int], None]
) -> None:
    detector = make_detector(small_store.guides, ScoreConfig())
    specs = specs_of(detector)
    paths = sorted((small_store.images / "target").rglob("test/*/*.png"))[:5]
    inputs = [specs.prepare(path)[0] for path in paths]
    model = load_model(detector, specs, [], "cpu")
    expected = judge(model, inputs)
    crowded(2)

    found = judge(model, inputs)

    assert [len(one) for one in found] == [5, 5, 5]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_gpu_too_small_to_score_one_image_is_an_error_of_ours(
    small_store: SmallStore, crowded: Callable[[int], None]
) -> None:
    data = open_dataset(open_store(small_store.url), "aux", "gabor")
    crowded(0)

    with pytest.raises(MetricError, match=r"one image does not fit cpu .*CUDA out of memory"):
        compute_maps(make_detector(small_store.guides, ScoreConfig()), data, np.arange(4))


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[int]]:
    """Have an SAE encode so many tokens at once; notes how many came."""
    monkeypatch.setattr(device_module, "_most", {})
    seen: list[int] = []

    def hold(most: int) -> list[int]:
        def lacking(sae: Sae, tokens: Tensor) -> Latents:
            seen.append(len(tokens))
            if len(tokens) > most:
                raise torch.OutOfMemoryError(LACKING)
            return encode(sae, tokens)

        monkeypatch.setattr(atom_patches, "encode", lacking)
        monkeypatch.setattr(atom_counts, "encode", lacking)
        return seen

    return hold


def test_atoms_are_found_with_fewer_images_when_they_do_not_fit(
    small_store: SmallStore, narrow: Callable[[int], list[int]], capsys: pytest.CaptureFixture[str]
) -> None:
    store, config = open_store(small_store.url), AtomsConfig(top=3, patches=4)
    data, expected = find_atoms(store, small_store.guides, config)
    seen = narrow(5 * 36)

    _, found = find_atoms(store, small_store.guides, config)

    assert seen[:3] == [16 * 36, 8 * 36, 4 * 36]
    assert sum(n for n in seen if n <= 5 * 36) == data.cache.n_tokens
    assert [one.index for one in found] == [one.index for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert [patch.row for patch in one.patches] == [patch.row for patch in other.patches]
        assert one.category_spread == pytest.approx(other.category_spread)
    said = capsys.readouterr().err
    assert "finding atoms: 8 images do not fit cpu; now 4 at a time" in said


def test_atoms_are_surveyed_with_fewer_images_when_they_do_not_fit(
    small_store: SmallStore, narrow: Callable[[int], list[int]]
) -> None:
    store = open_store(small_store.url)
    expected = survey_sae(store, small_store.sae.id, AtomsConfig())
    seen = narrow(3 * 36)

    found = survey_sae(store, small_store.sae.id, AtomsConfig())

    assert seen[:4] == [16 * 36, 8 * 36, 4 * 36, 2 * 36]
    np.testing.assert_array_equal(found.counts.active, expected.counts.active)
    np.testing.assert_array_equal(found.counts.tokens, expected.counts.tokens)
    np.testing.assert_array_equal(found.strongest.row, expected.strongest.row)


def test_a_gpu_too_small_to_find_atoms_in_one_image_is_an_error_of_ours(
    small_store: SmallStore, narrow: Callable[[int], list[int]]
) -> None:
    narrow(35)

    with pytest.raises(MetricError, match=r"finding atoms: one image does not fit cpu .*memory"):
        find_atoms(open_store(small_store.url), small_store.guides, AtomsConfig())

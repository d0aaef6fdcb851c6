"""Nobody falls for a GPU that is too small: who goes on by halves, who fails alone, who says so."""

import re
import shutil
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cache.store import open_store
from manifests.build import build_manifest
from pipeline import cli
from pipeline.backbones.load import load_backbone
from pipeline.backbones.on_cpu import Taken
from pipeline.backbones.on_gpu import GpuForward
from pipeline.backbones.preprocess import normalise
from pipeline.backbones.spec import BackboneSpec
from pipeline.configs import FitGuidesConfig
from pipeline.extraction import compute as compute_module
from pipeline.extraction.compute import ShardArrays, compute_shard
from pipeline.extraction.model_inputs import model_inputs
from pipeline.fitting import guides as guides_stage
from pipeline.fitting.dictionaries import make_trainer
from pipeline.fitting.guides import fit_guide_group
from pipeline.fitting.over_file import _measure
from pipeline.fitting.tokens import TokenSource
from pipeline.inputs import open_dataset
from pipeline.interchange.rules import Rule, rule_of
from pipeline.machine import device as device_module
from pipeline.machine.device import by_halves, within_memory
from pipeline.prediction import familiar as familiar_module
from pipeline.prediction.familiar import Familiar
from pipeline.prediction.unlike import count_unlike
from spg_core.compiling import Compiled
from spg_core.errors import FitError
from spg_core.familiarity import strangeness
from tests.small_store import GUIDES, SmallStore

LACKING = "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of ..."
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what did not fit in an earlier test."""
    monkeypatch.setattr(device_module, "_most", {})


# --- memory is given back before it is asked for again --------------------------------------------


class Lacking:
    """Takes memory for one or fewer only; knows whether what was taken in vain is gone."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._taken: weakref.ref[Tensor] | None = None
        self.was_gone: list[bool] = []
        monkeypatch.setattr(torch.cuda, "empty_cache", self._empty)

    def take(self, n: int) -> None:
        """Raises: OutOfMemoryError for more than one."""
        activations = torch.zeros(9)
        if n > 1:
            self._taken = weakref.ref(activations)
            raise torch.OutOfMemoryError(LACKING)

    def _empty(self) -> None:
        assert self._taken is not None
        self.was_gone.append(self._taken() is None)


@pytest.fixture
def lacking(monkeypatch: pytest.MonkeyPatch) -> Lacking:
    """A GPU that holds one image."""
    return Lacking(monkeypatch)


def test_half_of_the_images_find_the_memory_that_all_of_them_took(lacking: Lacking) -> None:
    by_halves("looking", 4, 4, CPU, lambda here: lacking.take(here.stop - here.start))

    assert lacking.was_gone == [True, True]


def test_half_of_a_models_batch_finds_the_memory_that_the_whole_took(lacking: Lacking) -> None:
    class Model(nn.Module):
        def forward(self, pixels: Tensor) -> list[Taken]:
            lacking.take(len(pixels))
            return [(pixels, None)]

    GpuForward(Model())(torch.zeros(4, 3, 2, 2), CPU, "float32")

    assert lacking.was_gone == [True, True]


def test_the_next_fit_finds_the_memory_that_a_failed_one_took(lacking: Lacking) -> None:
    with pytest.raises(FitError, match="a fit does not fit the GPU"), within_memory("a fit"):
        lacking.take(2)

    assert lacking.was_gone == [True]


LIBRARIES = [
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
]


def unchanged(tokens: Tensor) -> Tensor:
    """Stand for a step; compiled are functions of a module."""
    return tokens


@pytest.mark.parametrize("said", LIBRARIES, ids=["cuBLAS", "cuDNN", "CUDA"])
def test_what_a_library_lacks_is_lack_of_memory_too(
    said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def take(n: int) -> None:
        seen.append(n)
        if n > 1:
            raise RuntimeError(said)

    class Model(nn.Module):
        def forward(self, pixels: Tensor) -> list[Taken]:
            take(len(pixels))
            return [(pixels, None)]

    def compiled(tokens: Tensor) -> Tensor:
        take(len(tokens))
        return tokens

    by_halves("looking", 2, 2, CPU, lambda here: take(here.stop - here.start))
    GpuForward(Model())(torch.zeros(2, 3, 2, 2), CPU, "float32")
    assert seen == [2, 1, 1] * 2
    first = re.escape(said.partition("\n")[0])
    with pytest.raises(FitError, match=rf"does not fit the GPU \({first}\)"), within_memory("it"):
        take(2)
    step = Compiled(unchanged, "aot_eager")
    monkeypatch.setattr(step, "_compiled", compiled)
    with pytest.raises(torch.OutOfMemoryError, match=first):
        step(torch.zeros(2))
    assert step.is_compiled


def test_another_error_of_the_runtime_stays_what_it_is() -> None:
    def broken(_: slice) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="illegal memory access") as found:
        by_halves("looking", 2, 2, CPU, broken)
    assert not isinstance(found.value, torch.OutOfMemoryError)


# --- fits -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["weights", "batch"])
def test_guides_that_lack_memory_before_their_first_step_fail_alone(
    small_store: SmallStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, where: str
) -> None:
    store = open_store(shutil.copytree(small_store.url, tmp_path / "store"))
    configs = [FitGuidesConfig(**{**vars(GUIDES), "seed": seed}) for seed in (1, 2)]
    real = make_trainer

    def too_large(*given: object) -> object:
        config = next(one for one in given if isinstance(one, FitGuidesConfig))
        if config.seed == 2:
            raise torch.OutOfMemoryError(LACKING)
        return real(*given)  # type: ignore[arg-type]

    def masks(self: TokenSource, rows: object) -> Tensor:
        raise torch.OutOfMemoryError(LACKING)

    if where == "weights":
        monkeypatch.setattr(guides_stage, "make_trainer", too_large)
    else:
        monkeypatch.setattr(TokenSource, "masks", masks)

    found = fit_guide_group(store, [(small_store.sae, config) for config in configs])

    failed = [one for one in found.values() if isinstance(one, Exception)]
    assert len(failed) == (1 if where == "weights" else 2)
    for one in failed:
        assert isinstance(one, FitError)
        assert "does not fit the GPU (CUDA out of memory)" in str(one)


# --- passes over a cache --------------------------------------------------------------------------


def require_at_most(most: int, n_images: int, seen: list[int]) -> None:
    """Note how many images came. Raises: OutOfMemoryError for more than fit."""
    seen.append(n_images)
    if n_images > most:
        raise torch.OutOfMemoryError(LACKING)


def test_images_are_compared_with_good_parts_by_halves(
    small_store: SmallStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = open_dataset(open_store(small_store.url), "aux", "gabor")
    known = torch.from_numpy(data.cache.tokens(np.arange(2))).flatten(0, 1)
    familiar = Familiar("parts", known, limit=1e-4, aspects=(1.0, 1.0), images=2)
    expected = count_unlike(data, familiar, "cpu")
    seen: list[int] = []

    def few(tokens: Tensor, known: Tensor) -> Tensor:
        require_at_most(5, len(tokens), seen)
        return strangeness(tokens, known)

    monkeypatch.setattr(familiar_module, "strangeness", few)

    assert count_unlike(data, familiar, "cpu") == expected
    assert 0 < expected.total() < data.cache.n_images
    assert seen[:4] == [16, 8, 4, 4]


def test_an_sae_of_others_is_measured_by_halves(
    small_store: SmallStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = open_dataset(open_store(small_store.url), "aux", "gabor")
    decoder = small_store.sae.tensors["dictionary"]
    tensors = {"W_enc": decoder.T.contiguous(), "W_dec": decoder}
    rule = rule_of({"architecture": "topk", "k": 3}, tensors, decoder)
    assert rule is not None
    active, unexplained = _measure(rule, data, CPU)
    real, seen = Rule.latents, list[int]()

    def few(self: Rule, tokens: Tensor) -> Tensor:
        require_at_most(5, len(tokens) // 36, seen)
        return real(self, tokens)

    monkeypatch.setattr(Rule, "latents", few)

    again, also_unexplained = _measure(rule, data, CPU)

    assert torch.equal(again, active)
    assert also_unexplained == pytest.approx(unexplained, rel=1e-6)
    assert seen[:4] == [16, 8, 4, 4]


def test_images_that_do_not_fit_before_they_reach_the_model_go_there_by_halves(
    small_store: SmallStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = small_store.images / "target"
    built = build_manifest(root, layout="mvtec", dataset="x", split="test", workers=1)
    backbone = load_backbone("gabor", image_size=96)

    def extracted() -> ShardArrays:
        inputs = model_inputs(built.manifest, root, backbone.specs, 7, None)
        [shard] = compute_shard([backbone], inputs, built.manifest.n_images, lambda _: None)
        return shard

    expected, seen = extracted(), list[int]()

    def few(pixels: Tensor, spec: BackboneSpec) -> Tensor:
        require_at_most(2, len(pixels), seen)
        return normalise(pixels, spec)

    monkeypatch.setattr(compute_module, "normalise", few)
    found = extracted()

    assert seen[:5] == [7, 3, 1, 1, 1]
    np.testing.assert_allclose(found.tokens, expected.tokens, rtol=2e-3)
    assert np.array_equal(found.masks, expected.masks)
    assert "extracting gabor: 7 images do not fit cpu; now 3 at a time" in capsys.readouterr().err


# --- what is left ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (torch.OutOfMemoryError(LACKING), "CUDA out of memory"),
        (RuntimeError(LIBRARIES[2]), "CUDA error: out of memory"),
    ],
    ids=["PyTorch", "CUDA"],
)
def test_what_nobody_foresaw_is_a_line_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: RuntimeError,
    told: str,
) -> None:
    def lacking(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("cache.store.open_store", lacking)

    with pytest.raises(SystemExit) as ended:
        cli.main(["table", "--scores", "x"])

    assert ended.value.code == 1
    said = " ".join(capsys.readouterr().err.split())
    assert said == f"error: {told}; free the GPU's memory, or use --device cpu"

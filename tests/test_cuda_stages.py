"""Whole stages on a GPU that is not there: from a real store's tokens to stored artifacts.

What comes back from the GPU is ones, so nothing is said of the numbers. What is: every operation of
these stages finds its operands on one device and in types that fit, and inside the loops nobody
waits but where it is meant.
"""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from cache.objects import Objects
from cache.store import open_store
from cache.stream import Order
from pipeline.atoms.find import find_atoms
from pipeline.configs import AtomsConfig, ScoreConfig
from pipeline.detection.load import make_detector
from pipeline.fitting import train
from pipeline.fitting.guides import fit_guides
from pipeline.fitting.sae import fit_sae
from pipeline.fitting.tokens import TokenSource
from pipeline.inputs import open_dataset
from pipeline.prediction.model import judge, load_model, specs_of
from pipeline.scoring.score import score
from tests.pretended_gpu import PretendedGpu, needs_cuda_build, pretend_card, pretended_gpu
from tests.small_store import GUIDES, SAE, SmallStore

pytestmark = needs_cuda_build

CUDA = torch.device("cuda")


@pytest.fixture(autouse=True)
def card(monkeypatch: pytest.MonkeyPatch) -> None:
    """An H100 that is not there."""
    pretend_card(monkeypatch)


@pytest.fixture
def store(small_store: SmallStore, tmp_path: Path) -> Objects:
    """A copy of the small store."""
    return open_store(shutil.copytree(small_store.url, tmp_path / "store"))


def waits_at(gpu: PretendedGpu) -> set[str]:
    """Give the files in which the host waited for the GPU."""
    return {one.rpartition(" ")[2].partition(":")[0] for one in gpu.waits}


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("order", ["sequential", "images", "tokens"])
def test_batches_reach_the_gpu_without_a_wait(store: Objects, order: Order, resident: bool) -> None:
    cache = open_dataset(store, "aux", "gabor").cache
    batch = 100 if order != "images" else 3

    with pretended_gpu() as gpu:
        source = TokenSource(cache, CUDA, resident=resident)
        gpu.waits.clear()
        found = list(source.batches(order, batch, seed=0, epoch=0))
        rows = np.array([4, 2])
        images, masks = source.images(rows), source.masks(rows)

    assert gpu.waits == []
    assert {(one.device.type, one.dtype) for one in found} == {("cuda", torch.float32)}
    assert sum(len(one) for one in found) == cache.n_tokens
    assert (images.device.type, images.dtype) == ("cuda", torch.float16)
    assert (masks.device.type, masks.dtype, masks.shape) == ("cuda", torch.uint8, (2, 96, 96))


@pytest.mark.parametrize("order", ["images", "tokens"])
def test_an_sae_is_fitted_checkpointed_and_measured(
    store: Objects, order: Literal["images", "tokens"], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "pause_after", lambda seconds: 0.0)
    config = replace(SAE, device="cuda", order=order, seed=5, dead_after=100)

    with pretended_gpu(n_found=9) as gpu:
        made = fit_sae(store, open_dataset(store, "aux", "gabor"), config)

    training = made.document.training
    assert (training.path, training.device) == ("dense", "a pretended GPU")
    assert gpu.products == {torch.bfloat16, torch.float32}  # trained, measured
    # at the start; which atoms are dead; checkpoints and the guard before them; held log lines
    assert waits_at(gpu) == {
        *("tokens.py", "sae_step.py", "checkpoint.py", "training_guard.py", "member.py"),
        *("quality.py", "content.py", "bodies.py"),  # at the end
    }
    assert sum("sae_step.py" in one and "nonzero" in one for one in gpu.waits) <= training.steps


def test_guides_are_fitted(store: Objects, small_store: SmallStore) -> None:
    with pretended_gpu() as gpu:
        made = fit_guides(store, small_store.sae.id, replace(GUIDES, device="cuda", seed=5))

    assert made.document.training.steps > 0
    assert gpu.products == {torch.float32}
    # at the start; the guard and held log lines; the coefficients at the end
    assert waits_at(gpu) == {
        *("tokens.py", "guide_step.py", "anomaly_map.py", "training_guard.py", "member.py"),
        "guide_files.py",
    }


def test_a_target_is_scored(store: Objects, small_store: SmallStore) -> None:
    with pretended_gpu() as gpu:
        made = score(store, small_store.guides.id, "target", ScoreConfig(device="cuda", tau=0.3))

    assert made.document.config.device == "cuda"
    assert gpu.products == {torch.float32}
    # metrics are counted on the CPU: tokens go there, patches come back, maps are drawn there too
    assert waits_at(gpu) == {"values.py", "anomaly_map.py", "parts.py"}


def test_atoms_are_found(store: Objects, small_store: SmallStore) -> None:
    with pretended_gpu(n_found=0) as gpu:
        _, atoms = find_atoms(store, small_store.guides, AtomsConfig(device="cuda", top=3))

    assert atoms
    assert waits_at(gpu) == {"find.py", "atom_patches.py"}


@pytest.fixture
def images(small_store: SmallStore) -> list[Path]:
    """Three images."""
    return sorted((small_store.images / "target").rglob("test/*/*.png"))[:3]


def test_images_are_judged(small_store: SmallStore, images: list[Path]) -> None:
    detector = make_detector(small_store.guides, ScoreConfig())
    specs = specs_of(detector)
    inputs = [specs.prepare(path)[0] for path in images]

    with pretended_gpu() as gpu:
        maps, scores, _ = judge(load_model(detector, specs, [], "cuda"), inputs)

    assert maps.shape == (3, 96, 96)
    assert scores.shape == (3,)
    assert gpu.products == {torch.float32}
    assert not any("scalar" in one or "nonzero" in one for one in gpu.waits)

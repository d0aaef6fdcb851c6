"""Whole stages on a GPU that is not there: from a real store's tokens to stored artifacts.

What comes back from the GPU is ones, so nothing is said of the numbers. What is: every operation of
these stages finds its operands on one device and in types that fit, and inside the loops nobody
waits but where it is meant.
"""

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, cast

import numpy as np
import pytest
import torch

from cache.objects import Objects
from cache.store import open_store
from cache.stream import Order
from pipeline.atoms.find import find_atoms
from pipeline.atoms.survey import survey_sae
from pipeline.configs import (
    AtomsConfig,
    CombineConfig,
    FitMemoryConfig,
    FitMemorySource,
    ScoreConfig,
)
from pipeline.detection.combine import find_or_combine
from pipeline.detection.fit import sample_pixels
from pipeline.detection.load import make_detector
from pipeline.detection.parts import part_of
from pipeline.extraction.extract import extract
from pipeline.fitting import train
from pipeline.fitting.guides import fit_guides
from pipeline.fitting.member import Line, Member
from pipeline.fitting.memory import _remember, fit_memory
from pipeline.fitting.normal_images import open_normal_images
from pipeline.fitting.over_file import _measure
from pipeline.fitting.sae import fit_sae
from pipeline.fitting.tokens import TokenSource
from pipeline.inputs import CachedDataset, open_dataset
from pipeline.interchange.rules import rule_of
from pipeline.prediction.familiar import Familiar
from pipeline.prediction.model import judge, load_model, specs_of
from pipeline.prediction.unlike import count_unlike
from pipeline.scoring.score import score
from tests.pretended_gpu import PretendedGpu, needs_cuda_build, pretend_card, pretended_gpu
from tests.small_store import GUIDES, SAE, SmallStore, extract_config

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


KINDS = {"_to_copy": "copy", "copy_": "copy", "_local_scalar_dense": "number", "nonzero": "places"}


def waits_at(gpu: PretendedGpu) -> Counter[str]:
    """Count what the host waited for, and in which file: `copy values.py`."""
    found: Counter[str] = Counter()
    for wait in gpu.waits:
        operation, _, place = wait.partition(" at ")
        found[f"{KINDS[operation.split('.')[1]]} {place.partition(':')[0]}"] += 1
    return found


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("order", ["sequential", "images", "tokens"])
def test_batches_reach_the_gpu_without_a_wait(store: Objects, order: Order, resident: bool) -> None:
    cache = open_dataset(store, "aux", "gabor").cache
    batch = 100 if order != "images" else 3

    with pretended_gpu() as gpu:
        source = TokenSource(cache, CUDA, resident=resident)
        gpu.waits.clear()
        gpu.sent.clear()
        found = list(source.batches(order, batch, seed=0, epoch=0))
        rows = np.array([4, 2])
        images = source.images(rows)
        sent = dict(gpu.sent)
        masks = source.masks(rows)

    assert gpu.waits == []
    # of tokens that are there, indices alone are sent; of others each, as float16
    assert sent.keys() <= {torch.int64 if resident else torch.float16}
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
    waits, n_steps = waits_at(gpu), training.steps
    at_the_end = {"copy bodies.py", "number content.py", "copy quality.py", "number quality.py"}
    assert waits.keys() >= at_the_end
    assert {where: n for where, n in waits.items() if where not in at_the_end} == {
        "copy tokens.py": 1,  # a shard of tokens
        "copy sae_step.py": 2,  # the first weights
        "places sae_step.py": n_steps,  # which atoms are dead
        "number member.py": 4 * n_steps,  # of lines, held before each checkpoint
        "copy checkpoint.py": 7 * (n_steps - 1),
        "number training_guard.py": n_steps - 1 + 3,  # before each; before what is kept at last
    }


def test_lines_of_a_log_wait_for_each_other() -> None:
    written: list[Line] = []
    member = Member("one", "", cast(Any, None), cast(Any, SimpleNamespace(add=written.append)))

    with pretended_gpu() as gpu:
        for step in range(49):
            member.add({"step": step, "loss": torch.zeros((), device="cuda")})
        before = len(written), list(gpu.waits)
        member.add({"step": 49, "loss": torch.zeros((), device="cuda")})

    assert before == (0, [])
    assert [line["step"] for line in written] == [*range(50)]


def test_guides_are_fitted(store: Objects, small_store: SmallStore) -> None:
    with pretended_gpu() as gpu:
        made = fit_guides(store, small_store.sae.id, replace(GUIDES, device="cuda", seed=5))

    assert made.document.training.steps > 0
    assert gpu.products == {torch.float32}
    n_steps = made.document.training.steps
    assert waits_at(gpu) == {
        **{"copy tokens.py": 1, "copy guide_step.py": 3, "copy anomaly_map.py": 2},  # at the start
        "number member.py": n_steps + 8,  # a loss a step, and counts at the end
        **{"number training_guard.py": 1, "copy guide_files.py": 2},  # at the end
    }


def test_a_target_is_scored(store: Objects, small_store: SmallStore) -> None:
    with pretended_gpu() as gpu:
        made = score(store, small_store.guides.id, "target", ScoreConfig(device="cuda", tau=0.3))

    assert made.document.config.device == "cuda"
    assert gpu.products == {torch.float32}
    # metrics are counted on the CPU: tokens go there, patches come back, maps are drawn there too
    n_blocks = len(made.document.categories)
    assert waits_at(gpu) == {
        **{"copy parts.py": 1, "copy anomaly_map.py": 2},
        "copy values.py": 4 * n_blocks,
    }
    assert gpu.wide == []


def test_atoms_are_found(store: Objects, small_store: SmallStore) -> None:
    with pretended_gpu(n_found=0) as gpu:
        _, atoms = find_atoms(store, small_store.guides, AtomsConfig(device="cuda", top=3))

    assert atoms
    # an SAE's two matrices and the atoms' numbers; a block's tokens, which patches fire, how much
    assert waits_at(gpu) == {"copy find.py": 2 + 1 + 1 + 1, "places atom_patches.py": 1}
    assert gpu.wide == []


def test_atoms_are_surveyed(store: Objects, small_store: SmallStore) -> None:
    with pretended_gpu(n_found=3) as gpu:
        found = survey_sae(store, small_store.sae.id, AtomsConfig(device="cuda"))

    assert len(found.atoms) == SAE.width
    assert waits_at(gpu) == {
        **{"copy find.py": 2, "copy survey.py": 2},
        **{"places atom_counts.py": 1, "copy atom_counts.py": 3},  # a block
    }
    assert gpu.wide == []


@pytest.fixture
def normal(store: Objects, small_store: SmallStore) -> CachedDataset:
    """The target's images to remember: one a category."""
    config = replace(extract_config(small_store.images, "target"), split="train", device="cpu")
    extract(store, config)
    return open_normal_images(store, FitMemorySource(dataset="target"))


def test_a_memory_is_thinned_out(normal: CachedDataset) -> None:
    config = FitMemoryConfig(shots=1, coreset=0.5, device="cuda")

    with pretended_gpu() as gpu:
        kept = _remember(normal, np.array([0]), config)

    assert kept.tokens.shape == (18, 160)
    assert gpu.products == {torch.float32}
    assert waits_at(gpu) == {"copy memory.py": 2}
    assert gpu.wide == []


def test_a_memory_and_guides_are_put_on_one_scale_and_score_together(
    store: Objects, small_store: SmallStore, normal: CachedDataset
) -> None:
    memory = fit_memory(store, normal, FitMemoryConfig(shots=1, device="cpu"))
    aux = open_dataset(store, "aux", "gabor")

    with pretended_gpu() as gpu:
        parts = [part_of(one, "ema").to(CUDA) for one in (small_store.guides, memory)]
        gpu.waits.clear()
        pixels = sample_pixels(parts, aux)
        sampled = waits_at(gpu)
        asked = CombineConfig(scale="none", device="cuda")
        detector = find_or_combine(store, [small_store.guides.id, memory.id], asked)
        gpu.waits.clear()
        scoring = ScoreConfig(device="cuda")
        made = score(store, detector, "target", scoring, key=small_key(small_store))

    assert len(pixels.values) == 2
    assert {where.partition(" ")[0] for where in sampled} == {"copy"}
    assert gpu.products == {torch.float32}
    n_blocks = len(made.document.categories)
    assert waits_at(gpu) == {
        **{"copy parts.py": 1, "copy memory_part.py": 1, "copy anomaly_map.py": 4},
        "copy values.py": (1 + 2 + 2 + 1) * n_blocks,  # two parts of one cache
    }
    assert gpu.wide == []


def small_key(small_store: SmallStore) -> str:
    """Give the key of the target's test split."""
    return open_dataset(open_store(small_store.url), "target", "gabor").cache.key


def test_images_are_compared_with_good_parts(store: Objects) -> None:
    data = open_dataset(store, "aux", "gabor")
    known = torch.from_numpy(data.cache.tokens(np.arange(2))).flatten(0, 1)
    familiar = Familiar("parts", known, limit=1.0, aspects=(0.1, 10.0), images=2)

    with pretended_gpu() as gpu:
        found = count_unlike(data, familiar, "cuda")

    assert not found
    assert waits_at(gpu) == {
        **{"copy unlike.py": 1, "copy familiar.py": 1},
        "number familiar.py": data.cache.n_images,
    }


@pytest.mark.parametrize("name", ["topk", "relu", "jumprelu"])
def test_an_sae_of_others_is_measured(store: Objects, small_store: SmallStore, name: str) -> None:
    data, decoder = open_dataset(store, "aux", "gabor"), small_store.sae.tensors["dictionary"]
    tensors = {"W_enc": decoder.T, "W_dec": decoder, "threshold": torch.ones(len(decoder))}
    rule = rule_of({"architecture": name, "k": 3}, tensors, decoder)
    assert rule is not None

    with pretended_gpu() as gpu:
        active, _ = _measure(rule, data, CUDA)

    assert active.shape == (len(decoder),)
    assert waits_at(gpu) == {
        **{
            "copy rules.py": 6,
            "copy tokens.py": 1,
            "copy over_file.py": 1,
            "number over_file.py": 1,
        }
    }


@pytest.fixture
def images(small_store: SmallStore) -> list[Path]:
    """Three images."""
    return sorted((small_store.images / "target").rglob("test/*/*.png"))[:3]


def test_images_are_judged(small_store: SmallStore, images: list[Path]) -> None:
    detector = make_detector(small_store.guides, ScoreConfig())
    specs = specs_of(detector)
    inputs = [specs.prepare(path)[0] for path in images]

    with pretended_gpu() as gpu:
        maps, scores, tokens = judge(load_model(detector, specs, [], "cuda"), inputs)

    assert maps.shape == (3, 96, 96)
    assert scores.shape == (3,)
    assert (tokens.device.type, tokens.dtype) == ("cuda", torch.float16)  # as a cache holds them
    assert gpu.products == {torch.float32}
    # pixels go there; values, maps and their scores come back
    waits = waits_at(gpu)
    assert {kind.partition(" ")[0] for kind in waits} == {"copy"}
    assert waits["copy on_gpu.py"] == 1
    assert waits["copy model.py"] == 2
    assert gpu.wide == []

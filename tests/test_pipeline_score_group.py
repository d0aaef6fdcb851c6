"""Many guides scored in one pass: the bits of each alone, tokens read once, failures kept apart."""

import shutil
import weakref
from collections import Counter
from dataclasses import replace
from math import exp
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.reader import TokenCache
from cache.store import open_store
from pipeline.artifacts import list_artifacts, save_artifact
from pipeline.configs import ScoreConfig
from pipeline.detection.detector import Detector
from pipeline.detection.load import load_detector
from pipeline.detection.parts import GuidesPart
from pipeline.detection.values import compute_maps, part_values
from pipeline.inputs import open_dataset
from pipeline.scoring import blocks, categories
from pipeline.scoring.score import score, score_group
from spg_core.anomaly_map import map_operator
from spg_core.errors import CorruptStore, MetricError, NotInStore, StoreError
from spg_core.pooling import Pooling
from spg_core.types import PatchGrid
from tests.artifact_samples import forge_tensors


@pytest.fixture
def copy(small_store, tmp_path):
    """A store of its own, without scores, with guides `g0` .. `g4`."""
    ignore = shutil.ignore_patterns("scores", "sweeps")
    store = open_store(shutil.copytree(small_store.url, tmp_path / "store", ignore=ignore))
    for seed in range(5):
        _save_guides(store, small_store.guides, f"g{seed}-0", _random_pair(seed))
    return store


def _random_pair(seed):
    return torch.randn(2, 21, generator=torch.Generator().manual_seed(seed))


def _save_guides(store, like, identifier, pair, **config):
    width = like.tensors["guides_ema"].shape[1]
    pair = pair[:, :1].expand(2, width) if pair.shape[1] < width else pair[:, :width]
    tensors = {**like.tensors, "guides_ema": pair.contiguous(), "guides_raw": 1 - pair}
    changed = replace(like.document.config, **config)
    save_artifact(store, replace(like.document, id=identifier, config=changed), tensors)


def _content(made):
    tables = ("images.parquet", "categories.parquet")
    return replace(made.document, created=""), [
        Path(made.path, name).read_bytes() for name in tables
    ]


def _detector(pair, identifier="x"):
    spec = SimpleNamespace(height=4, width=6, d_model=pair.shape[1])
    part = GuidesPart(identifier, spec, pair, 0.5)
    return Detector(identifier, (part,), (map_operator(PatchGrid(2, 3), 4, 6, 1.0),), Pooling())


def _data(tokens):
    taken = {"tokens_per_image": tokens.shape[1], "tokens": lambda rows: tokens[rows]}
    data = SimpleNamespace(cache=SimpleNamespace(key="0", **taken))
    data.of = lambda _: data
    return data


def test_patches_of_two_detectors_are_the_sigmoids_of_their_cosines():
    tokens = np.array([[[3, 0], [0, 2]]], np.float16)
    one = torch.tensor([[1.0, 0.0], [0.0, 1.0]])

    both = [_detector(one, "a"), _detector(one.flip(0), "b")]
    found = list(part_values(both, _data(tokens), np.array([0])).values())

    low, high = 1 / (1 + exp(2)), 1 / (1 + exp(-2))  # cosines 0 and 1, temperature 0.5
    np.testing.assert_allclose(found, [[[low, high]], [[high, low]]], rtol=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    d_model=st.sampled_from([3, 64, 193, 384]),
    chosen=st.lists(st.integers(0, 8), min_size=1, max_size=9),
    n_images=st.integers(1, 19),
)
def test_a_detectors_bits_do_not_depend_on_its_company(seed, d_model, chosen, n_images):
    made = torch.Generator().manual_seed(seed)
    tokens = torch.randn(20, 6, d_model, generator=made).half().numpy()
    every = [_detector(torch.randn(2, d_model, generator=made), str(i)) for i in range(9)]
    whole = part_values(every, _data(tokens), np.arange(20))

    part = part_values([every[i] for i in chosen], _data(tokens), np.arange(n_images))

    assert len(part) == len(set(chosen))
    for key, values in part.items():
        np.testing.assert_array_equal(values, whole[key][:n_images])


def test_scores_of_a_group_are_those_of_each_alone_to_the_last_bit(small_store, copy, tmp_path):
    alone = open_store(shutil.copytree(copy.where, tmp_path / "alone"))
    plain = ScoreConfig()
    wanted = [(f"g{seed}-0", plain) for seed in range(5)]
    wanted += [
        ("g0-0", replace(plain, tau=0.1)),
        ("g0-0", replace(plain, aupro="clip200")),
        ("g0-0", replace(plain, tau=0.1, aupro="clip200")),
        ("g0-0", replace(plain, sigma=0.0)),
        ("g0-0", replace(plain, coefficients="raw")),
        (small_store.guides.id, plain),
    ]

    together = score_group(copy, wanted, "target")

    assert len({one.id for one in together}) == len(wanted) == len(list_artifacts(copy, "scores"))
    for (guides, config), made in zip(wanted, together, strict=True):
        assert _content(made) == _content(score(alone, guides, "target", config))
    assert together[0].document.mean != together[1].document.mean


def test_a_group_reads_each_token_and_mask_once_and_maps_serve_every_tau(copy, monkeypatch):
    read, drawn = Counter(), Counter()
    real_rows = TokenCache.read_rows

    def counted(cache, name, rows):
        read.update((name, int(row)) for row in rows)
        return real_rows(cache, name, rows)

    monkeypatch.setattr(TokenCache, "read_rows", counted)
    real_maps = blocks.draw_maps

    def draw(detector, values):
        maps = real_maps(detector, values)
        drawn[detector.id] += len(maps)
        return maps

    monkeypatch.setattr(blocks, "draw_maps", draw)
    plain = ScoreConfig()
    taus = [("g0-0", replace(plain, tau=tau)) for tau in (0.0, 0.1, 1.0)]

    made = score_group(copy, [*taus, ("g1-0", plain), ("g2-0", plain)], "target")

    n_images = sum(1 for kind, _ in read if kind == "tokens")
    assert set(read.values()) == {1}
    assert drawn == {"g0-0": n_images, "g1-0": n_images, "g2-0": n_images}
    scores = [one.document.config.tau for one in made]
    assert scores == [0.0, 0.1, 1.0, 0.0, 0.0]


def test_maps_of_one_category_and_detector_are_held_at_a_time(copy, monkeypatch):
    held, most = [], []
    real = blocks.draw_maps

    def draw(detector, values):
        most.append(sum(len(one()) for one in held if one() is not None))
        maps = real(detector, values)
        held.append(weakref.ref(maps))
        return maps

    monkeypatch.setattr(blocks, "draw_maps", draw)
    monkeypatch.setattr(blocks, "BLOCK_IMAGES", 3)

    score_group(copy, [(f"g{seed}-0", ScoreConfig()) for seed in range(5)], "target")

    sizes = Counter(open_dataset(copy, "target", "gabor").manifest.table["category"].to_pylist())
    assert max(most) < max(sizes.values())
    assert len(most) > 5 * len(sizes)


def _nan_of(identifier):
    """Draw maps as ever, but those of one detector as NaN."""
    drawn = blocks.draw_maps

    def draw(detector, values):
        maps = drawn(detector, values)
        return maps * np.float32("nan") if detector.id == identifier else maps

    return draw


def test_guides_that_cannot_score_sink_only_themselves(small_store, copy, monkeypatch):
    like = small_store.guides
    _save_guides(copy, like, "nan-0", _random_pair(8))
    forge_tensors(copy, "guides", "nan-0", lambda pair: pair * float("nan"))
    _save_guides(copy, like, "cold-0", _random_pair(9))
    monkeypatch.setattr(blocks, "draw_maps", _nan_of("cold-0"))
    names = ["g0-0", "nan-0", "absent-0", "cold-0", "g1-0"]

    first, nan, absent, cold, last = score_group(
        copy, [(name, ScoreConfig()) for name in names], "target"
    )

    assert isinstance(nan, CorruptStore)
    assert "nan-0/guides.safetensors: coefficients_ema holds values that are not finite" in str(nan)
    assert isinstance(absent, NotInStore)
    assert isinstance(cold, MetricError)
    assert sorted(list_artifacts(copy, "scores")) == sorted([first.id, last.id])
    for name, error in (("nan-0", CorruptStore), ("cold-0", MetricError)):
        with pytest.raises(error):
            score(copy, name, "target", ScoreConfig())


def test_a_shard_that_cannot_be_read_fails_all_of_a_group(copy, monkeypatch):
    def broken(*_):
        raise CorruptStore("shard 0 is torn")

    monkeypatch.setattr(TokenCache, "tokens", broken)

    made = score_group(copy, [("g0-0", ScoreConfig()), ("g1-0", ScoreConfig())], "target")

    assert [str(one) for one in made] == ["shard 0 is torn"] * 2
    with pytest.raises(CorruptStore, match="shard 0 is torn"):
        score(copy, "g0-0", "target", ScoreConfig())


def test_what_is_there_is_found_and_what_is_asked_twice_is_made_once(copy, monkeypatch):
    config = ScoreConfig()
    before = score(copy, "g0-0", "target", config)
    asked = []
    real = categories.submit_category

    def submit(workers, inputs, which, advance):
        asked.append(which)
        return real(workers, inputs, which, advance)

    monkeypatch.setattr(categories, "submit_category", submit)

    found, one, again = score_group(
        copy, [("g0-0", config), ("g1-0", config), ("g1-0", config)], "target"
    )

    assert found.document == before.document
    assert one is again
    assert set(asked) == {0}


def test_a_store_that_cannot_be_written_is_refused_before_the_work(copy, monkeypatch):
    monkeypatch.setattr("pipeline.scoring.score._score_all", lambda *_: pytest.fail("it began"))

    with pytest.raises(StoreError, match="read-only"):
        score_group(open_store(copy.where, read_only=True), [("g0-0", ScoreConfig())], "target")


def test_the_library_detector_draws_the_maps_of_a_group(copy):
    data = open_dataset(copy, "target", "gabor")
    detector = load_detector(copy, "g3-0")
    rows = np.array([4, 1, 2])

    maps = compute_maps(detector, data, rows)

    by_hand = detector.maps(torch.from_numpy(data.cache.tokens(rows)))
    np.testing.assert_allclose(maps, by_hand.numpy(), atol=1e-6)

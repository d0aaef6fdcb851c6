"""Fit-sae and fit-guides: the same bits again, after a kill and in company; what they refuse."""

import json
import math
import resource
import shutil
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cache.store import open_store
from cache.stream import token_batches
from pipeline.artifacts import load_artifact, save_artifact, to_json
from pipeline.configs import FitGuidesConfig, FitSaeConfig
from pipeline.fitting import train
from pipeline.fitting.budget import require_fit, split_by_memory
from pipeline.fitting.fastest import fastest_way
from pipeline.fitting.guides import fit_guide_group, fit_guides
from pipeline.fitting.log import read_log
from pipeline.fitting.quality import measure_saes
from pipeline.fitting.sae import fit_sae, fit_saes, load_sae
from pipeline.fitting.tokens import TokenSource
from pipeline.inputs import open_dataset
from pipeline.recipes import from_recipe
from spg_core.errors import ArtifactError, ConfigError, CorruptStore, FitError, StoreError
from spg_core.guide_step import GuideTrainer
from spg_core.sae import Sae
from spg_core.sae_config import SaeConfig
from spg_core.sae_step import SaeTrainer

SAE = FitSaeConfig(width=48, k=6, epochs=2, images_per_step=4, order="tokens")
GUIDES = FitGuidesConfig(epochs=2, images_per_step=4)


class Killed(BaseException):
    """Stands for a signal: nothing catches it."""


@pytest.fixture
def checkpoints_at_every_step(monkeypatch):
    monkeypatch.setattr(train, "pause_after", lambda seconds: 0.0)


def aux(store):
    return open_dataset(store, "aux", "gabor")


def die_at(monkeypatch, trainer, method, step):
    """Let the process die when a trainer is about to take a step."""
    whole = getattr(trainer, method)
    taken = iter(range(1, 10_000))

    def dying(self, *batch):
        if next(taken) == step:
            raise Killed
        return whole(self, *batch)

    monkeypatch.setattr(trainer, method, dying)


def same_tensors(one, other):
    return one.tensors.keys() == other.tensors.keys() and all(
        torch.equal(tensor, other.tensors[name]) for name, tensor in one.tensors.items()
    )


def test_fvu_of_a_perfect_and_of_an_empty_dictionary(fresh):
    source = TokenSource(aux(fresh).cache, torch.device("cpu"))
    d = source.cache.d_model
    both_signs = torch.cat([torch.eye(d), -torch.eye(d)])
    tokens = next(source.batches("sequential", source.cache.n_tokens, seed=0, epoch=0)).double()

    found = measure_saes(
        {
            "perfect": Sae(both_signs, both_signs, k=d),
            "empty": Sae(torch.zeros(3, d), torch.zeros(3, d), k=1),
        },
        source,
    )

    assert found["perfect"].numbers.fvu == pytest.approx(0, abs=1e-9)
    empty = tokens.square().sum() / (tokens - tokens.mean(0)).square().sum()
    assert found["empty"].numbers.fvu == pytest.approx(float(empty))
    assert (found["empty"].numbers.l0, found["empty"].numbers.dead_atoms) == (0, 3)


@pytest.mark.parametrize("order", ["images", "tokens"])
def test_an_sae_is_that_of_a_trainer_fed_the_stated_batches(fresh, order):
    data, config = aux(fresh), replace(SAE, order=order)
    way = fastest_way(config, data.cache.d_model, torch.device("cpu"))
    trainer = SaeTrainer(
        SaeConfig(width=48, k=6), data.cache.d_model, path=way.path, libraries=way.libraries
    )
    batch = 4 if order == "images" else 4 * data.cache.tokens_per_image
    for epoch in range(2):
        for tokens in token_batches(data.cache, order=order, batch=batch, seed=111, epoch=epoch):
            trainer.step(torch.from_numpy(tokens))

    made = fit_sae(fresh, data, config)

    assert torch.equal(made.tensors["encoder"], trainer.sae().encoder)
    assert torch.equal(made.tensors["dictionary"], trainer.sae().dictionary)


@pytest.mark.parametrize("order", ["sequential", "images", "tokens"])
def test_tokens_kept_on_a_device_come_in_the_batches_of_the_stream(fresh, order):
    cache = aux(fresh).cache
    batch = 5 if order == "images" else 77
    resident = TokenSource(cache, torch.device("cpu"), resident=True)
    streamed = TokenSource(cache, torch.device("cpu"), resident=False)

    pairs = zip(
        resident.batches(order, batch, seed=3, epoch=1, start_step=2),
        streamed.batches(order, batch, seed=3, epoch=1, start_step=2),
        strict=True,
    )

    assert resident.is_resident
    assert all(torch.equal(one, other) for one, other in pairs)
    rows = np.array([7, 0, 7])
    assert torch.equal(resident.images(rows), streamed.images(rows))


@pytest.mark.parametrize("start", [0, 9])
def test_tokens_shuffled_in_windows_are_selected_where_they_are_kept(fresh, start, monkeypatch):
    cache = aux(fresh).cache
    cache.memory_bytes = cache.tokens_bytes // 2
    resident = TokenSource(cache, torch.device("cpu"), resident=True)
    with monkeypatch.context() as patch:
        patch.setattr(type(cache), "gather_sorted", None)  # nothing is read any more
        patch.setattr(type(cache), "touch_sorted", None)

        got = list(resident.batches("tokens", 20, seed=3, epoch=1, start_step=start))

    expected = token_batches(cache, order="tokens", batch=20, seed=3, epoch=1, start_step=start)
    for one, other in zip(got, expected, strict=True):
        assert torch.equal(one, torch.from_numpy(other).float())


def test_the_same_request_finds_the_artifact_and_other_stores_get_the_same_bits(fresh, tmp_path):
    first = fit_sae(fresh, aux(fresh), SAE)
    guides = fit_guides(fresh, first.id, GUIDES)
    written = (tmp_path / "store" / "saes" / first.id / "sae.json").stat().st_mtime_ns
    again = fit_sae(fresh, aux(fresh), SAE)
    ignore = shutil.ignore_patterns("saes", "guides")
    other = open_store(shutil.copytree(tmp_path / "store", tmp_path / "other", ignore=ignore))

    second = fit_sae(other, aux(other), SAE)
    guides_again = fit_guides(other, second.id, GUIDES)

    assert (tmp_path / "store" / "saes" / again.id / "sae.json").stat().st_mtime_ns == written
    assert second.id == first.id
    assert same_tensors(second, first)
    assert guides_again.id == guides.id
    assert same_tensors(guides_again, guides)


@pytest.mark.parametrize("step", [1, 4, 6])
@pytest.mark.usefixtures("checkpoints_at_every_step")
def test_an_sae_killed_at_a_step_ends_as_in_one_go(small_store, fresh, monkeypatch, step):
    config = replace(SAE, images_per_step=7)
    with monkeypatch.context() as dying:
        die_at(dying, SaeTrainer, "step", step)
        with pytest.raises(Killed):
            fit_sae(fresh, aux(fresh), config)

    resumed = fit_sae(fresh, aux(fresh), config)

    store = open_store(small_store.url)
    whole = fit_sae(store, aux(store), config)
    assert same_tensors(resumed, whole)
    place = f"saes/{whole.id}"
    assert read_log(fresh, place) == read_log(store, place)
    assert fresh.size(f"{place}/checkpoint.safetensors") is None


@pytest.mark.parametrize("step", [1, 4, 6])
@pytest.mark.usefixtures("checkpoints_at_every_step")
def test_guides_killed_at_a_step_end_as_in_one_go(small_store, tmp_path, monkeypatch, step):
    config = replace(GUIDES, images_per_step=7, seed=step)
    copy = shutil.copytree(small_store.url, tmp_path / "copy")
    store, fresh = open_store(small_store.url), open_store(copy)
    with monkeypatch.context() as dying:
        die_at(dying, GuideTrainer, "step_on", step)
        with pytest.raises(Killed):
            fit_guides(fresh, small_store.sae.id, config)

    resumed = fit_guides(fresh, small_store.sae.id, config)

    whole = fit_guides(store, small_store.sae.id, config)
    assert same_tensors(resumed, whole)
    assert read_log(fresh, f"guides/{whole.id}") == read_log(store, f"guides/{whole.id}")


def killed_sae(monkeypatch, store, step=4):
    """Leave the checkpoint of an SAE that was killed, and give the file."""
    with monkeypatch.context() as dying:
        die_at(dying, SaeTrainer, "step", step)
        with pytest.raises(Killed):
            fit_sae(store, aux(store), SAE)
    (path,) = Path(store.where).glob("saes/*/checkpoint.safetensors")
    return path


@pytest.mark.usefixtures("checkpoints_at_every_step")
def test_a_fit_with_a_damaged_checkpoint_says_so_and_starts_anew(
    small_store, fresh, monkeypatch, capsys
):
    path = killed_sae(monkeypatch, fresh)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)

    made = fit_sae(fresh, aux(fresh), SAE)

    said = capsys.readouterr().err.replace("\n", " ")
    assert "checkpoint.safetensors is damaged" in said
    assert "starts anew" in said
    store = open_store(small_store.url)
    assert same_tensors(made, fit_sae(store, aux(store), SAE))
    log = read_log(fresh, f"saes/{made.id}")
    assert [line["step"] for line in log] == list(range(1, len(log) + 1))


@contextmanager
def small_files(n_bytes):
    """Let no file grow beyond a size, as a full disk does.

    Only in the block: a test runner whose output goes to a file writes between tests, too.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("checkpoints_at_every_step")
def test_a_checkpoint_that_finds_no_room_is_an_error_and_the_last_one_stays(
    small_store, fresh, monkeypatch
):
    path = killed_sae(monkeypatch, fresh)
    kept = path.read_bytes()

    no_room = pytest.raises(StoreError, match=r"no room for .*checkpoint\.safetensors.*run again")
    with no_room, small_files(20_000):
        fit_sae(fresh, aux(fresh), SAE)

    assert path.read_bytes() == kept
    store = open_store(small_store.url)
    assert same_tensors(fit_sae(fresh, aux(fresh), SAE), fit_sae(store, aux(store), SAE))


def test_a_log_that_finds_no_room_is_an_error_that_names_it(fresh):
    no_room = pytest.raises(StoreError, match=r"cannot write .*training\.jsonl .*run again")
    with no_room, small_files(700):
        fit_sae(fresh, aux(fresh), replace(SAE, epochs=8))


@pytest.mark.usefixtures("checkpoints_at_every_step")
def test_members_that_were_cut_at_different_steps_meet_again(small_store, fresh, monkeypatch):
    configs = [replace(SAE, k=k) for k in (2, 5)]
    with monkeypatch.context() as dying:
        die_at(dying, SaeTrainer, "step", 4)
        with pytest.raises(Killed):
            fit_sae(fresh, aux(fresh), configs[0])
    with monkeypatch.context() as dying:
        die_at(dying, SaeTrainer, "step", 7)
        with pytest.raises(Killed):
            fit_sae(fresh, aux(fresh), configs[1])

    together = fit_saes(fresh, aux(fresh), configs)

    store = open_store(small_store.url)
    for config in configs:
        alone = fit_sae(store, aux(store), config)
        assert same_tensors(together[alone.id], alone)


def test_guides_fitted_together_are_those_fitted_alone_bit_for_bit(small_store, tmp_path):
    copy = open_store(shutil.copytree(small_store.url, tmp_path / "copy"))
    store = open_store(small_store.url)
    sae = load_artifact(store, "saes", small_store.sae.id)
    configs = [
        replace(GUIDES, beta=1e-3),
        replace(GUIDES, dictionary="pca"),
        replace(GUIDES, sparsity="topk", topk_guides=5),
    ]

    together = fit_guide_group(copy, [(sae, config) for config in configs])

    assert len(together) == 3
    for config in configs:
        alone = fit_guides(store, sae.id, config)
        assert same_tensors(together[alone.id], alone)


def test_an_sae_of_another_format_does_not_keep_the_others_from_being_fitted(fresh):
    foreign, other = replace(SAE, k=3), replace(SAE, k=4)
    made = fit_sae(fresh, aux(fresh), foreign)
    path = Path(fresh.where) / "saes" / made.id / "sae.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))

    found = fit_saes(fresh, aux(fresh), [foreign, other])

    assert isinstance(found[made.id], CorruptStore)
    (left,) = found.keys() - {made.id}
    assert found[left].document.config == other


def test_the_document_says_which_path_and_how_many_steps(fresh):
    made = fit_sae(fresh, aux(fresh), SAE)

    training = made.document.training
    assert training.path in ("dense", "sparse")
    assert training.steps == len(read_log(fresh, f"saes/{made.id}"))
    stored = json.loads(fresh.get(f"saes/{made.id}/sae.json"))
    assert stored == {"format": 2, "kind": "saes", **to_json(made.document)}


def test_a_plan_splits_what_does_not_fit_and_keeps_the_order():
    needs = {"a": (30, 10), "b": (30, 40), "c": (30, 10), "d": (90, 50)}

    assert split_by_memory(needs, 1000) == [["a", "b", "c", "d"]]
    assert split_by_memory(needs, 100) == [["a", "b"], ["c"], ["d"]]


def test_a_stated_budget_that_holds_no_fit_is_refused_with_both_numbers():
    with pytest.raises(ConfigError, match=r"d needs 3\.00 GB to train, allowed are 1\.00 GB"):
        require_fit({"d": (2_000_000_000, 1_000_000_000)}, 1_000_000_000)


def test_a_loss_that_is_not_finite_is_refused_with_its_step(fresh, monkeypatch):
    batches = TokenSource.batches

    def broken(self, *args, **kwargs):
        return (tokens * math.inf for tokens in batches(self, *args, **kwargs))

    monkeypatch.setattr(TokenSource, "batches", broken)

    with pytest.raises(FitError, match="step 1: the loss is"):
        fit_sae(fresh, aux(fresh), SAE)


@pytest.mark.parametrize("ema", [-0.1, 1.0, math.nan])
def test_an_ema_that_is_no_decay_is_refused_before_the_fit(ema):
    with pytest.raises(
        ConfigError, match=r"--ema is .*; it must be a number, 0 or more and below 1"
    ):
        replace(GUIDES, ema=ema)


def test_an_sae_that_diverged_is_warned_of(fresh, capsys):
    fit_sae(fresh, aux(fresh), replace(SAE, learning_rate=100.0))
    assert "farther from the tokens than their mean is" in capsys.readouterr().err.replace(
        "\n", " "
    )

    fit_sae(fresh, aux(fresh), SAE)
    assert "farther from the tokens" not in capsys.readouterr().err


def test_an_all_zero_guide_is_refused_with_the_remedy(small_store, tmp_path):
    store = open_store(shutil.copytree(small_store.url, tmp_path / "copy"))
    config = replace(GUIDES, learning_rate=0.5, beta=1e6, ema=0.0)

    with pytest.raises(FitError, match=r"guide has no coefficient above 0 .*--beta"):
        fit_guides(store, small_store.sae.id, config)


def test_an_auxiliary_set_without_defects_is_refused(small_store, tmp_path, monkeypatch):
    store = open_store(shutil.copytree(small_store.url, tmp_path / "copy"))
    data = aux(store)
    without = data.manifest.table.set_column(
        data.manifest.table.column_names.index("mask_pixels"),
        data.manifest.table.schema.field("mask_pixels"),
        [np.zeros(data.cache.n_images, np.int64)],
    )
    clean = replace(data, manifest=replace(data.manifest, table=without))
    monkeypatch.setattr("pipeline.fitting.guides.open_dataset", lambda *_: clean)

    with pytest.raises(FitError, match=r"none with a defect mask.*--split test"):
        fit_guides(store, small_store.sae.id, replace(GUIDES, seed=77))


def test_an_sae_of_other_tokens_is_refused(small_store, tmp_path):
    copy = open_store(shutil.copytree(small_store.url, tmp_path / "copy"))
    own = small_store.sae
    backbone = replace(own.document.backbone, covers=own.document.backbone.covers | {"layer": 3})
    save_artifact(copy, replace(own.document, id="other-tokens", backbone=backbone), own.tensors)

    with pytest.raises(ArtifactError, match="tokens of different backbones or settings"):
        fit_guides(copy, "other-tokens", replace(GUIDES, seed=78))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k": 49}, "k = 49 latents a token of 48 atoms"),
        ({"l1": 0.1}, "l1 = 0.1 with sparsifier topk"),
        ({"order": "rows"}, "--order is 'rows'; it must be images or tokens"),
        ({"loss": "max"}, "--loss is 'max'; it must be mean or sum"),
    ],
)
def test_an_impossible_sae_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        replace(SAE, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sparsity": "l0"}, "--sparsity is 'l0'; it must be relu"),
        ({"dictionary": "ica"}, "--dictionary is 'ica'; it must be sae, pca, random or none"),
        ({"dice": "none"}, "--dice is 'none'; it must be both or anomaly"),
    ],
)
def test_impossible_guides_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        replace(GUIDES, **changes)


def test_an_unknown_recipe_is_refused():
    with pytest.raises(ConfigError, match="recipe is 'released' or 'paper', got 'mine'"):
        from_recipe(FitSaeConfig, "mine", {})


def test_a_loaded_sae_is_the_saved_one(small_store):
    artifact, sae = load_sae(open_store(small_store.url), small_store.sae.id)

    assert torch.equal(sae.dictionary, artifact.tensors["dictionary"])
    assert (sae.k, sae.sparsifier, sae.clamp) == (8, "topk", True)

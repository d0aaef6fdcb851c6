"""Control dictionaries: what they hold, how guides use them, and that reports show them."""

import shutil
from dataclasses import replace

import pytest
import torch

from cache.store import open_store
from pipeline.artifacts import to_json
from pipeline.configs import FitGuidesConfig, ScoreConfig
from pipeline.fitting.dictionaries import (
    make_dictionary,
    of_sae,
    principal_directions,
    random_atoms,
)
from pipeline.fitting.guides import fit_guides
from pipeline.inputs import open_dataset
from pipeline.scoring.controls import control_rows
from pipeline.scoring.score import score

GUIDES = FitGuidesConfig(epochs=2, images_per_step=4)


@pytest.fixture(scope="module")
def data(small_store):
    return open_dataset(open_store(small_store.url), "aux", "gabor")


@pytest.fixture(scope="module")
def tokens(data):
    return torch.from_numpy(data.cache.resident_tokens()).double()


def test_principal_directions_are_those_of_the_covariance_with_both_signs(data, tokens):
    centred = tokens - tokens.mean(0)
    _, _, right = torch.linalg.svd(centred, full_matrices=False)

    atoms = principal_directions(data, 12).double()

    assert atoms.shape == (12, data.cache.d_model)
    assert torch.equal(atoms[0::2], -atoms[1::2])
    aligned = (atoms[0::2] * right[:6]).sum(1).abs()
    torch.testing.assert_close(aligned, torch.ones(6, dtype=torch.float64), atol=1e-4, rtol=0)


def test_both_signs_of_all_directions_reach_every_vector_with_non_negative_coefficients(data):
    d = data.cache.d_model
    atoms = principal_directions(data, 10 * d)
    wanted = torch.randn(d, generator=torch.Generator().manual_seed(0))

    coefficients = (atoms @ wanted).clamp_min(0)

    assert atoms.shape == (2 * d, d)
    torch.testing.assert_close(coefficients @ atoms, wanted, atol=1e-4, rtol=1e-4)


def test_random_atoms_follow_their_seed_and_have_length_one():
    atoms = random_atoms(50, 7, seed=3)

    torch.testing.assert_close(atoms.norm(dim=1), torch.ones(50))
    assert torch.equal(atoms, random_atoms(50, 7, seed=3))
    assert not torch.equal(atoms, random_atoms(50, 7, seed=4))


@pytest.mark.parametrize(
    ("kind", "n_atoms", "free"),
    [("sae", 64, False), ("pca", 64, False), ("random", 64, False), ("none", None, True)],
)
def test_each_control_has_its_size_and_rule(small_store, data, kind, n_atoms, free):
    made = make_dictionary(of_sae(small_store.sae), data, replace(GUIDES, dictionary=kind))

    assert len(made.atoms) == (n_atoms or data.cache.d_model)
    assert len(made.alive) == len(made.atoms)
    assert made.free == free
    assert kind == "sae" or bool(made.alive.all())


def test_free_guides_take_one_plain_adam_step_without_relu_and_l1(small_store, tmp_path):
    store = open_store(shutil.copytree(small_store.url, tmp_path / "store"))
    config = replace(GUIDES, dictionary="none", learning_rate=1.0, beta=1e3)

    made = fit_guides(store, small_store.sae.id, config)

    raw = made.tensors["coefficients_raw"]
    # an l1 weight of 1000 would have driven every coefficient to 0; ReLU would allow none below
    assert bool((raw < 0).any())
    assert bool((raw > 0).any())
    torch.testing.assert_close(made.tensors["guides_raw"], raw)


def test_ids_and_documents_say_which_dictionary(small_store, tmp_path):
    store = open_store(shutil.copytree(small_store.url, tmp_path / "store"))

    made = fit_guides(store, small_store.sae.id, replace(GUIDES, dictionary="random"))

    assert "-random-" in made.id
    assert to_json(made.document.dictionary) == {"kind": "random", "atoms": 64}
    assert made.document.parents.sae == small_store.sae.id
    assert small_store.guides.document.dictionary.kind == "sae"


def test_controls_of_the_same_request_are_rows_of_the_report(small_store, tmp_path):
    store = open_store(shutil.copytree(small_store.url, tmp_path / "store"))
    by_kind = {}
    for kind in ("pca", "none"):
        guides = fit_guides(store, small_store.sae.id, replace(GUIDES, dictionary=kind))
        by_kind[kind] = score(store, guides.id, "target", ScoreConfig())
    # another way of scoring is no control of this one
    score(store, by_kind["pca"].document.parents.guides, "target", ScoreConfig(sigma=1.0))

    main = score(store, small_store.guides.id, "target", ScoreConfig(), report=True)

    rows = control_rows(store, main.document, small_store.guides)
    assert set(rows) == {"pca", "none"}
    for kind, row in rows.items():
        assert row.values["pixel_auroc"] == by_kind[kind].document.mean.pixel_auroc
    page = (tmp_path / "store" / "scores" / main.id / "report.html").read_text()
    assert "pca" in page


def test_two_controls_of_one_kind_are_told_apart_by_their_ids(small_store, tmp_path):
    store = open_store(shutil.copytree(small_store.url, tmp_path / "store"))
    ids = []
    for seed in (1, 2):
        config = replace(GUIDES, dictionary="random", seed=seed, epochs=1)
        ids.append(fit_guides(store, small_store.sae.id, config).id)
        score(store, ids[-1], "target", ScoreConfig())
    main = score(store, small_store.guides.id, "target", ScoreConfig())

    rows = control_rows(store, main.document, small_store.guides)

    assert set(rows) == {f"random ({identifier})" for identifier in ids}

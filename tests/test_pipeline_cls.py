"""Guides on CLS tokens, and layers of one ViT: how they are fitted, score, predict and export."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import timm
import torch
import zarr
from safetensors.torch import save_file

from cache.store import open_store
from pipeline.artifacts import load_artifact, save_artifact
from pipeline.backbones.load import Backbone
from pipeline.configs import CombineConfig, FitSaeConfig, PredictConfig, ScoreConfig
from pipeline.detection.combine import combine
from pipeline.extraction.extract import extract
from pipeline.fitting.guides import fit_guides
from pipeline.fitting.log import read_log
from pipeline.fitting.sae import fit_sae
from pipeline.inputs import open_dataset
from pipeline.prediction.export import export
from pipeline.prediction.inputs import find_images
from pipeline.prediction.predict import predict
from pipeline.scoring.methods import labels, method_of
from pipeline.scoring.score import score
from spg_core.errors import ArtifactError, FitError
from tests.small_store import GUIDES, extract_config

SAE = FitSaeConfig(width=32, k=4, epochs=2, images_per_step=4)


@pytest.fixture(scope="module")
def vit(small_store, tmp_path_factory):
    """A store with tokens of two layers of a random ViT; guides on both, and a pair on CLS."""
    place = tmp_path_factory.mktemp("vit")
    torch.manual_seed(0)
    weights = place / "test_vit.safetensors"
    save_file(timm.create_model("test_vit", pretrained=False).state_dict(), weights)
    store = open_store(place / "store")
    keys = {}
    for which in ("aux", "target"):
        config = replace(extract_config(small_store.images, which), backbone=("timm:test_vit",))
        extract(store, replace(config, weights=(str(weights),), layer=("2", "-1")))
    for key in Path(store.where, "tokens/aux/timm-test_vit").iterdir():
        data = open_dataset(store, "aux", "timm:test_vit", key.name)
        keys[data.spec.layer] = fit_sae(store, data, SAE).id
    patches = [fit_guides(store, keys[layer], GUIDES).id for layer in (2, None)]
    on_cls = fit_guides(store, keys[None], replace(GUIDES, on="cls", epochs=20, ema=0.5))
    return store, patches, on_cls, str(weights)


def _maps(made):
    return np.asarray(zarr.open_array(f"{made.path}/maps.zarr", mode="r")[:])


def _scores(made):
    return pq.read_table(f"{made.path}/images.parquet")["score"].to_numpy()


def test_the_pair_learns_the_labels_and_is_not_the_latest_which_is_said(vit, capsys):
    store, patches, on_cls, _ = vit

    losses = [line["loss"] for line in read_log(store, f"guides/{on_cls.id}")]

    assert on_cls.document.config.on == "cls"
    assert np.mean(losses[-4:]) < np.mean(losses[:4])
    assert load_artifact(store, "guides", "latest").id == patches[-1]
    fit_guides(store, on_cls.document.parents.sae, on_cls.document.config)
    told = " ".join(capsys.readouterr().err.split())
    assert "`latest` stays what it is: these guides are on CLS tokens, which draw no map" in told


def test_an_image_score_is_of_the_map_the_cls_token_or_both(vit):
    store, patches, on_cls, _ = vit
    made = combine(store, [patches[1], on_cls.id], CombineConfig())
    alone = score(store, patches[1], "target", ScoreConfig())

    by = {
        kind: score(store, made, "target", ScoreConfig(image_score=kind))
        for kind in ("map", "cls", "both")
    }

    key = alone.document.parents.cache.key
    tokens = torch.from_numpy(
        open_dataset(store, "target", "timm:test_vit", key).cache.cls(slice(None))
    )
    pair = on_cls.tensors["guides_ema"]
    cosines = torch.nn.functional.cosine_similarity(tokens.float()[:, None], pair[None], dim=-1)
    expected = torch.softmax(cosines / 0.07, dim=-1)[:, 1].numpy()
    np.testing.assert_array_equal(_scores(by["map"]), _scores(alone))
    np.testing.assert_allclose(_scores(by["cls"]), expected, atol=1e-5)
    both = (_scores(by["map"]) + _scores(by["cls"])) / 2
    np.testing.assert_allclose(_scores(by["both"]), both, atol=1e-6)
    for one in by.values():
        assert one.document.mean.pixel_aupro == alone.document.mean.pixel_aupro


def test_the_report_says_what_a_part_without_a_map_gives(vit):
    store, patches, on_cls, _ = vit
    made = combine(store, [patches[1], on_cls.id], CombineConfig())
    config = ScoreConfig(image_score="cls", tau=0.5)

    scores = score(store, made, "target", config, report=True)

    page = Path(scores.path, "report.html").read_text()
    of_whole = [f"it gives the whole image {value:.3f}." for value in _scores(scores)]
    said = re.findall(
        r"The part on CLS tokens \(last layer\) draws no map; (it gives .*?\.)</p>", page
    )
    assert said
    assert {*said} <= {*of_whole}


def test_a_table_heads_parts_that_meet_as_such(vit):
    store, patches, on_cls, _ = vit
    names = {}
    for how, parts in (("mean", patches), ("max", patches), ("mean", [patches[1], on_cls.id])):
        made = combine(store, parts, CombineConfig(combine=how, scale="none"))
        scores = score(store, made, "target", ScoreConfig()).document
        [label] = labels([method_of(store, scores)])
        names[how, parts[-1]] = label

    mean, maximum, with_cls = names.values()
    assert mean == "mean of SPG, layer 2+last"
    assert maximum == "maximum of SPG, layer 2+last"
    assert with_cls.startswith("mean of SPG, ")
    assert "guides on patches+cls" in with_cls


def test_layers_are_predicted_from_one_forward_and_score_as_cached(vit, small_store, monkeypatch):
    store, patches, on_cls, weights = vit
    made = combine(store, [*patches, on_cls.id], CombineConfig())
    scoring = ScoreConfig(image_score="both", pool="patches:0.1")
    table = pq.read_table(
        f"{score(store, made, 'target', scoring).path}/images.parquet"
    ).to_pydict()
    paths = [str(small_store.images / "target" / path) for path in table["image_path"][:5]]
    forwards = []
    real = Backbone.layers
    monkeypatch.setattr(
        Backbone,
        "layers",
        lambda model, pixels: forwards.append(len(pixels)) or real(model, pixels),
    )

    found = list(predict(made, find_images(paths), scoring, PredictConfig(weights=(weights,))))

    assert forwards == [5]
    np.testing.assert_allclose([one.score for one in found], table["score"][:5], atol=1e-4)


def test_weights_are_learned_over_two_backbones(vit, small_store, tmp_path):
    mixed = open_store(shutil.copytree(vit[0].where, tmp_path / "mixed"))
    for kind in ("tokens", "saes", "guides"):
        shutil.copytree(Path(small_store.url, kind), tmp_path / "mixed" / kind, dirs_exist_ok=True)
    # guides that find something: an average of few steps is mostly its start, and tokens of random
    # weights tell nothing but which way round is better than chance
    learned = fit_guides(mixed, small_store.sae.id, replace(GUIDES, epochs=20, ema=0.5))
    random = load_artifact(mixed, "guides", vit[1][1])
    turned = {name: tensor.flip(0) for name, tensor in random.tensors.items()}
    save_artifact(mixed, replace(random.document, id="turned"), turned)
    parts = [learned.id, "turned"]

    made = combine(mixed, parts, CombineConfig(combine="learned"))

    weights = [part.weight for part in made.document.parts]
    assert sum(weights) == pytest.approx(1)
    assert min(weights) >= 0
    assert made.document.parents.cache.dataset == "aux"
    scored = score(mixed, made, "target", ScoreConfig(), save_maps=True)
    maps = [_maps(score(mixed, one, "target", ScoreConfig(), save_maps=True)) for one in parts]
    scales = [part.scale for part in made.document.parts]
    scaled = [
        1 / (1 + np.exp(-s.slope * one - s.shift)) for s, one in zip(scales, maps, strict=True)
    ]
    expected = sum(weight * one for weight, one in zip(weights, scaled, strict=True))
    np.testing.assert_allclose(_maps(scored), expected, atol=1e-4)
    assert {one.backbone for one in scored.document.parents.others} == {"timm:test_vit"}


def test_one_file_holds_all_layers_and_the_cls_pair(vit, tmp_path):
    pytest.importorskip("onnxruntime", reason="the `export` extra is not installed")
    store, patches, on_cls, weights = vit
    made = combine(store, [*patches, on_cls.id], CombineConfig())

    scoring = ScoreConfig(image_score="both", pool="patches:0.1")

    written = export(made, str(tmp_path / "a.onnx"), scoring, [weights])

    assert written.document.check.score_max_abs_difference <= 1e-4


def test_what_has_no_map_or_no_cls_part_is_refused(vit, small_store, tmp_path):
    store, patches, on_cls, _ = vit
    own = open_store(shutil.copytree(small_store.url, tmp_path / "own"))

    with pytest.raises(ArtifactError, match="draws no map; combine it with guides on patches"):
        score(store, on_cls.id, "target", ScoreConfig())
    with pytest.raises(ArtifactError, match="no part on CLS tokens; make one"):
        score(store, patches[0], "target", ScoreConfig(image_score="cls"))
    with pytest.raises(FitError, match="holds no CLS tokens, gabor gives none"):
        fit_guides(own, small_store.sae.id, replace(GUIDES, on="cls"))

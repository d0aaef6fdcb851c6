"""SAEs to sae-lens and from others: the same latents there, and their atoms here."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import safetensors.torch
import torch

import spg_pipe
from cache.store import open_store
from pipeline.artifacts import load_artifact, save_artifact
from pipeline.configs import FitGuidesConfig, FitSaeConfig
from pipeline.fitting.over_file import _alive
from pipeline.fitting.sae import load_sae
from pipeline.inputs import open_dataset
from pipeline.interchange.foreign import read_sae
from pipeline.interchange.rules import rule_of
from pipeline.interchange.saelens import export_saelens
from spg_core.errors import ArtifactError, ConfigError, StoreError
from spg_core.sae import encode, to_dense
from tests.artifact_samples import sae_document, sae_tensors
from tests.test_pipeline_registry import run, run_json

ATOMS, D_MODEL = 4, 3
READ_BACK = """
import json, sys, torch
from safetensors.torch import load_file
from sae_lens import SAE
sae = SAE.load_from_disk(sys.argv[1])
tokens = load_file(sys.argv[2])["tokens"]
latents = sae.encode(tokens)
print(json.dumps({"latents": latents.tolist(), "decoded": sae.decode(latents).tolist(),
                  "architecture": sae.cfg.architecture()}))
"""


def exported(tmp_path, **config):
    """An SAE of 4 atoms in a store, written for sae-lens; store, artifact, folder."""
    store = open_store(tmp_path / "store")
    document = replace(sae_document(), config=FitSaeConfig(width=ATOMS, k=2, **config))
    made = save_artifact(store, document, sae_tensors())
    export_saelens(made, str(tmp_path / "saelens"))
    return store, made, tmp_path / "saelens"


def sae_lens_python():
    """A Python that has sae-lens: this one, or the one named in $SPG_TEST_SAELENS_PYTHON."""
    python = os.environ.get("SPG_TEST_SAELENS_PYTHON", sys.executable)
    found = subprocess.run([python, "-c", "import sae_lens"], capture_output=True, check=False)
    if found.returncode:
        pytest.skip("sae-lens is not installed; name a Python with it: SPG_TEST_SAELENS_PYTHON")
    return python


@pytest.mark.parametrize("sparsifier", ["topk", "relu"])
def test_sae_lens_reads_the_folder_and_gives_the_same_latents(tmp_path, sparsifier):
    python = sae_lens_python()
    store, made, folder = exported(tmp_path, sparsifier=sparsifier)
    tokens = torch.randn(50, D_MODEL, generator=torch.Generator().manual_seed(1))
    safetensors.torch.save_file({"tokens": tokens}, tmp_path / "tokens.safetensors")

    said = subprocess.run(
        [python, "-c", READ_BACK, str(folder), str(tmp_path / "tokens.safetensors")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip

    theirs = json.loads(said.stdout.splitlines()[-1])
    _, sae = load_sae(store, made.id)
    ours = to_dense(encode(sae, tokens), ATOMS)
    torch.testing.assert_close(torch.tensor(theirs["latents"]), ours, atol=1e-6, rtol=0)
    torch.testing.assert_close(
        torch.tensor(theirs["decoded"]), ours @ sae.dictionary, atol=1e-6, rtol=0
    )
    assert theirs["architecture"] == {"topk": "topk", "relu": "standard"}[sparsifier]


def test_the_folder_has_the_layout_that_sae_lens_reads(tmp_path):
    _, made, folder = exported(tmp_path)

    config = json.loads((folder / "cfg.json").read_text())
    tensors = safetensors.torch.load_file(folder / "sae_weights.safetensors")
    assert (config["architecture"], config["k"], config["d_in"], config["d_sae"]) == (
        *("topk", 2),
        *(D_MODEL, ATOMS),
    )
    assert {name: tuple(one.shape) for name, one in tensors.items()} == {
        "W_enc": (D_MODEL, ATOMS),
        "W_dec": (ATOMS, D_MODEL),
        "b_enc": (ATOMS,),
        "b_dec": (D_MODEL,),
    }
    assert torch.equal(tensors["W_enc"].T, made.tensors["encoder"])
    assert not tensors["b_enc"].any()


def test_latents_below_0_have_no_counterpart_and_are_refused(tmp_path):
    with pytest.raises(ArtifactError, match="keeps negative latents"):
        exported(tmp_path, clamp=False)

    assert not (tmp_path / "saelens").exists()


def test_an_export_replaces_its_own_files_and_no_others(tmp_path):
    _, made, folder = exported(tmp_path)
    export_saelens(made, str(folder))
    (folder / "cfg.json").write_text('{"architecture": "topk"}')

    with pytest.raises(StoreError, match=r"cfg\.json"):
        export_saelens(made, str(folder))


def test_the_command_writes_the_folder_and_refuses_what_does_not_go_together(tmp_path):
    store, made, _ = exported(tmp_path)
    words = ("export", "--format", "saelens", "--out", tmp_path / "b", "--store", store.where)

    assert run_json(*words, "--sae", made.id)["files"] == ["cfg.json", "sae_weights.safetensors"]
    with pytest.raises(ConfigError, match="--format saelens takes --sae"):
        run_json(*words, "--guides", "x")
    with pytest.raises(ConfigError, match="--format onnx takes --guides"):
        run_json("export", "--sae", "x", "--out", "x.onnx")
    with pytest.raises(ConfigError, match=r"takes a \.onnx file"):
        run_json("export", "--guides", "x", "--out", "x.bin")


@pytest.fixture
def own(small_store, tmp_path):
    """A store of its own with the small SAE, and the folder of that SAE for sae-lens."""
    store = open_store(shutil.copytree(small_store.url, tmp_path / "own"))
    export_saelens(small_store.sae, str(tmp_path / "saelens"))
    return store, tmp_path / "saelens"


def fit_over(store, path, **more):
    words = {"dataset": "aux", "backbone": "gabor", "epochs": 1, "images_per_step": 4} | more
    return spg_pipe.fit_guides(store, sae_file=path, **words)


def test_guides_over_an_exported_sae_are_those_over_the_sae(small_store, own):
    store, folder = own

    made = fit_over(store, folder, name="theirs")
    ours = spg_pipe.fit_guides(store, sae=small_store.sae.id, epochs=1, images_per_step=4)

    for name, tensor in ours.tensors.items():
        torch.testing.assert_close(made.tensors[name], tensor, atol=1e-5, rtol=1e-4)
    weights = folder / "sae_weights.safetensors"
    assert made.document.parents.file.sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert made.document.parents.file.rule == f"topk k={small_store.sae.document.config.k}"
    assert made.document.parents.sae is None
    assert load_artifact(store, "guides", "theirs").id == made.id
    assert fit_over(store, folder).id == made.id


def test_guides_over_a_file_score_report_and_travel_without_the_file(own, tmp_path):
    store, folder = own
    made = fit_over(store, folder)
    shutil.rmtree(folder)

    scores = spg_pipe.score(store, guides=made.id, dataset="target", report=True)
    run("push", scores.id, tmp_path / "team", "--store", store.where)

    assert load_artifact(open_store(tmp_path / "team"), "guides", made.id).id == made.id
    assert b"file sae_weights.safetensors" in store.get(f"scores/{scores.id}/report.html")
    with pytest.raises(ArtifactError, match=r"atoms of file sae_weights\.safetensors"):
        spg_pipe.atoms(store, guides=made.id)


def test_dead_atoms_are_those_that_the_files_own_rule_never_activates(small_store, own, capsys):
    store, folder = own
    data = open_dataset(store, "aux", "gabor")
    alive = small_store.sae.tensors["ever_active"]

    found = _alive(read_sae(str(folder), data.cache.d_model), data, FitGuidesConfig())

    assert torch.equal(found, alive)
    assert 0 < int(alive.sum()) < len(alive)
    fvu = small_store.sae.document.quality.fvu
    assert (
        f"leaves {fvu:.3g} of the variance of aux's tokens unexplained" in capsys.readouterr().err
    )


def test_an_sae_that_was_made_for_other_tokens_is_said_aloud(own, tmp_path, capsys):
    store, folder = own
    data = open_dataset(store, "aux", "gabor")
    shutil.copytree(folder, tmp_path / "other")
    weights = str(tmp_path / "other" / "sae_weights.safetensors")
    tensors = safetensors.torch.load_file(weights)
    safetensors.torch.save_file(tensors | {"W_dec": -3 * tensors["W_dec"]}, weights)

    _alive(read_sae(str(tmp_path / "other"), data.cache.d_model), data, FitGuidesConfig())

    told = " ".join(capsys.readouterr().err.split())
    assert "remark: sae_weights.safetensors leaves" in told
    assert "more than their mean would; was it made for another layer or norm?" in told


def rule(config, **tensors):
    given = {name: torch.tensor(one) for name, one in tensors.items()}
    return rule_of(config, given, torch.tensor([[1.0, 0.0], [0.0, 2.0]]))


def test_rules_of_others_by_hand():
    tokens = torch.tensor([[1.0, 0.0], [3.0, 2.0]])
    encoder, bias = [[1.0, 0.0], [0.0, 1.0]], [0.0, -1.5]

    relu = rule({"architecture": "standard"}, W_enc=encoder, b_enc=bias)
    jump = rule({"architecture": "jumprelu"}, W_enc=encoder, b_enc=bias, threshold=[5.0, 0.25])
    top = rule({"architecture": "topk", "k": 1}, W_enc=encoder, b_enc=bias)
    shifted = rule({"architecture": "standard"}, W_enc=encoder, b_enc=bias, b_dec=[9.0, 0.0])
    sparsify = rule({"k": 1, "activation": "topk"}, **{"encoder.weight": encoder})

    assert relu.latents(tokens).tolist() == [[1.0, 0.0], [3.0, 0.5]]
    assert jump.latents(tokens).tolist() == [[0.0, 0.0], [0.0, 0.5]]
    assert top.latents(tokens).tolist() == [[1.0, 0.0], [3.0, 0.0]]
    assert shifted.latents(tokens).tolist() == [[0.0, 0.0], [0.0, 0.5]]
    assert sparsify.latents(tokens).tolist() == [[1.0, 0.0], [3.0, 0.0]]
    assert relu.decode(relu.latents(tokens)).tolist() == [[1.0, 0.0], [3.0, 1.0]]
    assert shifted.decode(shifted.latents(tokens)).tolist() == [[9.0, 0.0], [9.0, 1.0]]


@pytest.mark.parametrize(
    "config",
    [{}, {"architecture": "gated"}, {"architecture": "topk"}, {"architecture": "topk", "k": 3},
     {"architecture": "standard", "normalize_activations": "layer_norm"},
     {"architecture": "jumprelu"}],
)  # fmt: skip
def test_a_rule_that_is_not_known_is_none_and_all_atoms_count(config):
    assert rule(config, W_enc=[[1.0, 0.0], [0.0, 1.0]]) is None


def write(path, **tensors):
    safetensors.torch.save_file(tensors, path)
    return str(path)


def test_each_layout_gives_the_same_atoms_of_length_1(tmp_path):
    rows = torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 2.0], [1.0, 0.0, 0.0]])
    expected = torch.tensor([[0.6, 0.8, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])

    for name, tensor in (("W_dec", rows), ("decoder.weight", rows.T), ("dictionary", rows)):
        path = write(tmp_path / f"{name}.safetensors", **{name: tensor.contiguous()})
        assert torch.equal(read_sae(path, 3).atoms, expected)


def test_files_that_are_no_sae_of_these_tokens_are_refused_by_name(tmp_path):
    (tmp_path / "pickle.pt").write_bytes(b"\x80\x02}q\x00.")
    wide = write(tmp_path / "wide.safetensors", W_dec=torch.ones(4, 5))
    other = write(tmp_path / "other.safetensors", weight=torch.ones(4, 3))
    nan = write(tmp_path / "nan.safetensors", W_dec=torch.full((4, 3), torch.nan))

    for path, said in (
        (str(tmp_path / "pickle.pt"), "cannot be read as safetensors.*pickles are not read"),
        (str(tmp_path / "missing.safetensors"), "is no file"),
        (wide, "the tokens have 3 values; was the SAE made for another backbone"),
        (other, "has no decoder under a known name.*weight"),
        (nan, "not finite"),
    ):
        with pytest.raises(ArtifactError, match=said):
            read_sae(path, 3)


def test_options_of_an_sae_and_of_a_file_do_not_mix(own):
    store, folder = own
    for words in (
        {},
        {"sae": "latest", "sae_file": folder},
        {"sae": "latest", "dataset": "aux"},
        {"sae_file": folder},
        {"sae_file": folder, "dataset": "aux", "backbone": "gabor", "dictionary": "pca"},
    ):
        with pytest.raises(ConfigError, match="--sae"):
            spg_pipe.fit_guides(store, **words)

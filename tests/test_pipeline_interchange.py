"""SAEs to sae-lens and from others: the same latents there, and their atoms here."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import safetensors.torch
import torch

from cache.store import open_store
from pipeline.artifacts import save_artifact
from pipeline.configs import FitSaeConfig
from pipeline.fitting.sae import load_sae
from pipeline.interchange.saelens import export_saelens
from spg_core.errors import ArtifactError, ConfigError, StoreError
from spg_core.sae import encode, to_dense
from tests.artifact_samples import sae_document, sae_tensors
from tests.test_pipeline_registry import run_json

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
    import os

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

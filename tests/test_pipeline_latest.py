"""What `latest` means: what the last command of its own made, never a part of something else."""

import shutil

import pytest

from cache.store import open_store
from pipeline.artifacts import list_artifacts, load_artifact
from pipeline.configs import (
    FigureConfig,
    FitGuidesConfig,
    ReproduceConfig,
    ScoreConfig,
    SweepConfig,
)
from pipeline.fitting.guides import fit_guides
from pipeline.fitting.sae import fit_sae
from pipeline.inputs import open_dataset
from pipeline.reproduce.figures import fig3, fig_s1
from pipeline.scoring.score import score
from pipeline.sweep.run import sweep
from spg_core.errors import CorruptStore, NotInStore, StoreError
from tests.small_store import GUIDES, SAE

SMALL = ReproduceConfig(
    aux="aux", target="target", backbone="gabor", width=SAE.width, k=SAE.k, sae_epochs=1,
    guide_epochs=1, seed=5,
)  # fmt: skip
VARIED = FigureConfig(guide_ks=(8,), taus=(0.5,))


@pytest.fixture
def own(small_store, tmp_path):
    """A store of its own, where the small SAE and guides are what was asked for last."""
    kept = {small_store.sae.id, small_store.guides.id}

    def others(folder, names):
        """What other tests have made in the store they share."""
        of_artifacts = folder.rpartition("/")[2] in ("saes", "guides", "scores")
        return set(names) - kept if of_artifacts else ()

    url = shutil.copytree(small_store.url, tmp_path / "store", ignore=others)
    store = open_store(url)
    fit_sae(store, open_dataset(store, "aux", "gabor"), SAE)
    fit_guides(store, small_store.sae.id, GUIDES)
    return store


def test_ablations_and_figures_do_not_become_latest(small_store, own):
    before = score(own, small_store.guides.id, "target", ScoreConfig(tau=0.125))

    fig_s1(own, SMALL, VARIED)
    fig3(own, SMALL, VARIED)

    assert len(list_artifacts(own, "guides")) > 1
    assert load_artifact(own, "saes", "latest").id == small_store.sae.id
    assert load_artifact(own, "guides", "latest").id == small_store.guides.id
    assert load_artifact(own, "scores", "latest").id == before.id
    assert len(list_artifacts(own, "sweeps")) == 2
    with pytest.raises(NotInStore, match="no sweep 'latest'"):
        load_artifact(own, "sweeps", "latest")


def test_the_points_of_a_sweep_do_not_become_latest(small_store, own):
    point = SweepConfig(
        aux="aux", target="target", backbone="gabor", width=(24,), k=(2,),
        vary=("sae.epochs=1", "guides.epochs=1", "guides.images_per_step=4"),
    )  # fmt: skip

    made = sweep(own, point)

    assert load_artifact(own, "sweeps", "latest").id == made.id
    assert load_artifact(own, "scores", str(made.rows[0]["scores"]))
    assert load_artifact(own, "saes", "latest").id == small_store.sae.id
    assert load_artifact(own, "guides", "latest").id == small_store.guides.id
    with pytest.raises(NotInStore, match="no scores 'latest'"):
        load_artifact(own, "scores", "latest")


def test_controls_do_not_become_latest_and_that_is_said(small_store, own, capsys):
    control = FitGuidesConfig(epochs=1, images_per_step=4, dictionary="random")

    capsys.readouterr()
    fit_guides(own, small_store.sae.id, control)

    told = " ".join(capsys.readouterr().err.split())
    assert "`latest` stays what it is: these guides are a control" in told
    fit_guides(own, small_store.sae.id, control, direct=False)
    assert "`latest`" not in capsys.readouterr().err
    assert load_artifact(own, "guides", "latest").id == small_store.guides.id


def test_what_is_asked_for_again_becomes_latest_though_it_is_there_already(small_store, own):
    other = fit_guides(own, small_store.sae.id, FitGuidesConfig(epochs=1, images_per_step=4))
    assert load_artifact(own, "guides", "latest").id == other.id

    fit_guides(own, small_store.sae.id, GUIDES)

    assert load_artifact(own, "guides", "latest").id == small_store.guides.id


def test_a_reference_is_answered_with_what_it_means(small_store, own, capsys):
    load_artifact(own, "guides", "latest")
    load_artifact(own, "guides", small_store.guides.id[:-2])
    load_artifact(own, "guides", small_store.guides.id)

    said = "".join(capsys.readouterr().err.split())
    assert said.count(small_store.guides.id) == 2
    assert f"guideslatest:{small_store.guides.id}" in said


def test_a_latest_that_was_removed_is_named(small_store, own):
    shutil.rmtree(own.local_path(f"guides/{small_store.guides.id}"))
    with pytest.raises(NotInStore, match=f"were {small_store.guides.id}, which are not in"):
        load_artifact(own, "guides", "latest")


@pytest.mark.parametrize("torn", [b'{"id": 3', b'{"format": 1, "kind": "latest"}', None])
def test_a_latest_that_cannot_be_read_is_named_with_what_to_give_instead(small_store, own, torn):
    own.delete("latest/guides.json")
    if torn is None:
        own.local_path("latest/guides.json").mkdir()
    else:
        own.replace("latest/guides.json", [torn])

    with pytest.raises(
        StoreError,
        match=rf"latest/guides\.json.*; give an id instead: .*{small_store.guides.id}.*fit-guides",
    ) as refusal:
        load_artifact(own, "guides", "latest")
    assert isinstance(refusal.value, CorruptStore)


def test_a_store_that_is_only_read_keeps_its_latest(small_store, own, tmp_path):
    read = open_store(own.where, read_only=True)

    assert fit_guides(read, small_store.sae.id, GUIDES).id == small_store.guides.id

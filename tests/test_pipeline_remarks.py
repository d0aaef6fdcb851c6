"""What people would be fooled by is said: dead atoms nobody watched, images seen in the fit."""

import shutil
from dataclasses import replace

import pytest

from cache.store import open_store
from pipeline.artifacts.terms import CacheParent
from pipeline.configs import FitSaeConfig
from pipeline.fitting.sae_files import training_remark
from pipeline.inputs import open_dataset
from pipeline.scoring.overlap import n_shared, remark_seen

LINES = [{"step": 1, "loss": 0.5, "dead": 0}]


@pytest.fixture
def datasets(small_store):
    store = open_store(small_store.url)
    return [open_dataset(store, name, "gabor") for name in ("aux", "target")]


def test_no_dead_atom_is_said_to_mean_nothing_before_any_could_die(datasets):
    cache = datasets[0].cache
    few, enough = (FitSaeConfig(width=24, k=4, epochs=2, dead_after=n) for n in (10**7, 100))

    told = training_remark(LINES, few, cache)

    assert f"of {2 * cache.n_tokens} tokens in training none could show an atom dead" in told
    assert "so AuxK never acted" in told
    assert "AuxK" not in training_remark(LINES, replace(few, auxk=0), cache)
    assert training_remark(LINES, enough, cache) == (
        "remark: no atom died in training, so AuxK never acted"
    )
    assert training_remark([{"step": 1, "dead": 3}], enough, cache) is None


def test_images_of_the_target_that_were_seen_in_the_fit_are_counted(
    datasets, small_store, tmp_path, capsys
):
    aux, target = datasets
    store = open_store(small_store.url)
    parent = CacheParent(dataset="aux", backbone="gabor", key=aux.cache.key)

    remark_seen(store, parent, target)
    assert capsys.readouterr().err == ""
    assert n_shared(aux, target) == 0

    # the manifest of the target, beside the tokens of the auxiliary set: half its images are known
    ids = [*aux.manifest.column("image_id")[:5], *target.manifest.column("image_id")[5:]]
    at = target.manifest.table.column_names.index("image_id")
    table = target.manifest.table
    mixed = type(target.manifest)(
        table.set_column(at, table.schema.field(at), [ids]).replace_schema_metadata(
            table.schema.metadata
        )
    )
    remark_seen(store, parent, replace(target, manifest=mixed))
    assert "warning: 5 of 20 images of target are also in aux" in capsys.readouterr().err

    remark_seen(store, parent, aux)
    assert "the guides are fitted on aux" in capsys.readouterr().err

    empty = open_store(shutil.copytree(small_store.images, tmp_path / "elsewhere"))
    remark_seen(empty, parent, target)
    assert capsys.readouterr().err == ""

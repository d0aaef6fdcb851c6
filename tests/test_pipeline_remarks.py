"""What people would be fooled by is said: dead atoms nobody watched, images seen in the fit."""

import shutil
from dataclasses import replace

import pytest

from cache.store import open_store
from pipeline.artifacts.terms import CacheParent
from pipeline.configs import FitGuidesConfig, FitSaeConfig, ScoreConfig
from pipeline.fitting.sae_files import training_remark
from pipeline.fitting.start_remark import remark_start
from pipeline.inputs import open_dataset
from pipeline.scoring.overlap import n_shared, remark_seen
from pipeline.sweep.grid import Point
from pipeline.sweep.remarks import remark_points

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


def test_averages_that_hold_their_start_are_counted_in_one_line(capsys):
    remark_start([0.001, 0.005])
    remark_start([])
    assert capsys.readouterr().err == ""

    remark_start([0.87])
    assert capsys.readouterr().err.startswith(
        "remark: the averaged coefficients still hold 87% of their random start"
    )

    remark_start([0.5, 0.87, 0.001])
    assert " of 2 of 3 fits still hold 50% to 87% of" in capsys.readouterr().err


def test_a_sweep_says_where_its_averages_or_its_ranking_would_fool_a_reader(capsys):
    average, last = (
        Point(FitSaeConfig(), FitGuidesConfig(), ScoreConfig(coefficients=kind), {})
        for kind in ("ema", "raw")
    )
    rows = [
        {"ema_start_share": 0.9, "image_auroc": 0.25},
        {"ema_start_share": 0.9, "image_auroc": 0.75},
        {"ema_start_share": None, "image_auroc": None},
    ]

    remark_points([last, last, last], rows[1:] + rows[2:])
    assert capsys.readouterr().err == ""

    remark_points([average, last, average], rows)
    said = capsys.readouterr().err
    assert "the averaged coefficients still hold 90% of their random start" in said
    assert "image AUROC is below chance in 1 of 2 points, down to 25.0 %" in said


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

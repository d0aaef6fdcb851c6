"""The scores of a sweep: one pass over the target for all points, a failure its own row."""

import math
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from cache.reader import TokenCache
from pipeline.artifacts import list_artifacts, load_artifact
from pipeline.configs import FigureConfig, ReproduceConfig, SweepConfig
from pipeline.inputs import open_dataset
from pipeline.reproduce.figures import fig3
from pipeline.scoring import requests as scoring
from pipeline.sweep import left
from pipeline.sweep.run import sweep
from pipeline.tables.metrics import METRICS
from spg_core.errors import ArtifactError
from spg_core.pooling import Pooling

SHORT = ("sae.epochs=1", "sae.images_per_step=4", "guides.epochs=1", "guides.images_per_step=4")
SMALL = SweepConfig(
    aux="aux", target="target", backbone="gabor", width=(24,), k=(2, 5), vary=SHORT, seed=(1, 2)
)


@pytest.fixture
def target_reads(fresh, monkeypatch):
    """Count how often each row of the target's tokens and masks is read, but for the estimate's."""
    key = open_dataset(fresh, "target", "gabor").cache.key
    read, real = Counter(), TokenCache.read_rows

    def counted(cache, name, rows):
        if cache.key == key:
            read.update((name, int(row)) for row in rows)
        return real(cache, name, rows)

    monkeypatch.setattr(TokenCache, "read_rows", counted)
    monkeypatch.setattr(left, "score_seconds", lambda *_: 0.0)
    return read


def test_all_points_of_a_sweep_are_scored_in_one_pass_over_the_target(fresh, target_reads):
    taus = (*SHORT, "score.tau=0,0.1")

    made = sweep(fresh, replace(SMALL, vary=taus))

    assert len({row["scores"] for row in made.rows}) == len(made.rows) == 8
    assert {name for name, _ in target_reads} == {"tokens", "masks"}
    assert set(target_reads.values()) == {1}
    for row in made.rows:
        mean = load_artifact(fresh, "scores", row["scores"]).document.mean.values
        assert {name: row[name] for name in METRICS} == mean


def test_guides_that_cannot_score_are_a_failed_row_and_the_rest_are_scored(fresh, monkeypatch):
    whole = sweep(fresh, SMALL)
    spoilt = load_artifact(fresh, "guides", whole.rows[2]["guides"])
    shutil.rmtree(Path(fresh.where, "scores"))
    known = scoring.make_detector

    def broken(guides, config):
        if guides.id == spoilt.id:
            raise ArtifactError(f"guides {guides.id} hold vectors of shape (2, 1)")
        return known(guides, config)

    monkeypatch.setattr(scoring, "make_detector", broken)

    again = sweep(fresh, SMALL)

    assert [row["failed_at"] for row in again.rows] == [None, None, "score", None]
    assert f"guides {spoilt.id} hold vectors of shape" in again.rows[2]["reason"]
    others = [0, 1, 3]
    assert [again.rows[i] for i in others] == [whole.rows[i] for i in others]


def test_fig3_pools_one_set_of_maps_at_every_tau(fresh, target_reads):
    config = ReproduceConfig(
        aux="aux", target="target", backbone="gabor", width=24, k=2, sae_epochs=1, guide_epochs=1
    )

    rows = fig3(fresh, config, FigureConfig(taus=(0.01, 1, 100), pools=("max", "mean", "top:0.1")))

    assert [row["tau"] for row in rows] == [0.01, 1.0, 100.0, 0.0, math.inf, None]
    assert [row["pool"] for row in rows] == [*(["lse"] * 5), "top:0.1"]
    assert set(target_reads.values()) == {1}
    scores = [load_artifact(fresh, "scores", name) for name in list_artifacts(fresh, "scores")]
    by_pooling = {one.document.config.pooling: one.document.mean.values for one in scores}
    for row in rows:
        pooling = Pooling(row["tau"]) if row["pool"] == "lse" else Pooling(top=0.1)
        assert row["image_ap"] == by_pooling[pooling]["image_ap"]


def test_a_damaged_sae_or_damaged_guides_are_named_and_made_again(fresh, capsys):
    whole = sweep(fresh, SMALL)
    sae, guides = whole.rows[0]["sae"], whole.rows[-1]["guides"]
    for name in (f"saes/{sae}/sae.safetensors", f"guides/{guides}/guides.safetensors"):
        path = fresh.local_path(name)
        path.write_bytes(path.read_bytes()[:-1])
    capsys.readouterr()

    again = sweep(fresh, SMALL)

    said = capsys.readouterr().err
    assert again.rows == whole.rows
    for name, what in ((sae, "SAE"), (guides, "guides")):
        assert f"{what} {name} are made again" in said
        assert load_artifact(fresh, "saes" if what == "SAE" else "guides", name)

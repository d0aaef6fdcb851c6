"""Controls in a report: found by their names, and one that is damaged costs nothing else."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from cache.local_objects import LocalObjects
from cache.store import open_store
from pipeline.artifacts import list_artifacts, load_artifact
from pipeline.configs import ScoreConfig
from pipeline.fitting.guides import fit_guides
from pipeline.scoring import report_data
from pipeline.scoring.controls import control_rows
from pipeline.scoring.score import score
from spg_core.errors import MetricError
from tests.small_store import GUIDES


@pytest.fixture
def own(small_store, tmp_path):
    ignore = shutil.ignore_patterns("scores")
    return open_store(shutil.copytree(small_store.url, tmp_path / "store", ignore=ignore))


def control(store, small_store, kind):
    config = replace(GUIDES, dictionary=kind, epochs=1)
    guides = fit_guides(store, small_store.sae.id, config)
    return score(store, guides, "target", ScoreConfig())


def test_a_damaged_control_is_named_and_left_out_of_the_report(small_store, own, capsys):
    damaged, whole = (control(own, small_store, kind) for kind in ("random", "pca"))
    own.replace(damaged.place.name("metrics.json"), [b'{"mean": {"image_auroc": 99.9}}'])
    capsys.readouterr()

    made = score(own, small_store.guides.id, "target", ScoreConfig(), report=True)

    said = " ".join(capsys.readouterr().err.split())
    assert "the report leaves out a control: " in said
    assert f"{damaged.id}/metrics.json" in said.replace(" ", "")
    page = Path(made.path, "report.html").read_text()
    assert "pca" in page
    assert control_rows(own, made.document, small_store.guides).keys() == {"pca"}
    assert whole.id in list_artifacts(own, "scores")


def test_scores_that_are_no_control_by_their_name_are_not_read(small_store, own, monkeypatch):
    main = score(own, small_store.guides.id, "target", ScoreConfig())
    kept = control(own, small_store, "pca")
    for tau in (0.5, 1.0):
        other = score(own, small_store.guides.id, "target", ScoreConfig(tau=tau))
        own.replace(other.place.name("metrics.json"), [b"torn"])
    read, real = [], LocalObjects.get
    monkeypatch.setattr(LocalObjects, "get", lambda *of: read.append(of[1]) or real(*of))

    rows = control_rows(own, main.document, small_store.guides)

    assert rows.keys() == {"pca"}
    assert [name for name in read if name.startswith("scores/")] == [
        f"scores/{kept.id}/metrics.json"
    ]


def test_a_report_that_fails_does_not_cost_the_metrics(small_store, own, monkeypatch):
    def broken(*_):
        raise MetricError("the page cannot be drawn")

    with monkeypatch.context() as patched:
        patched.setattr(report_data, "make_report", broken)
        with pytest.raises(MetricError, match="cannot be drawn"):
            score(own, small_store.guides.id, "target", ScoreConfig(), report=True)
    [made] = list_artifacts(own, "scores")

    assert load_artifact(own, "scores", made).document.mean.image_auroc is not None
    again = score(own, small_store.guides.id, "target", ScoreConfig(), report=True)
    assert again.id == made
    assert Path(again.path, "report.html").is_file()

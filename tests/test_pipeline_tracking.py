"""Trackers get what training.jsonl holds; one that fails or hangs costs a fit nothing."""

import shutil
import threading
from pathlib import Path
from typing import ClassVar

import pytest

from cache.store import open_store
from pipeline import tracking
from pipeline.artifacts import list_artifacts, load_artifact
from pipeline.configs import FigureConfig, FitSaeConfig, ReproduceConfig, ReproduceSource
from pipeline.fitting.log import read_log
from pipeline.fitting.sae import fit_sae
from pipeline.inputs import open_dataset
from pipeline.reproduce.paper import reproduce
from pipeline.tracking import require_tracker
from spg_core.errors import ConfigError
from spg_core.sae_step import SaeTrainer

SAE = FitSaeConfig(width=24, k=4, epochs=2, images_per_step=4)


@pytest.fixture
def fresh(small_store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(Path(small_store.url) / "tokens", tmp_path / "store" / "tokens")
    return open_store(tmp_path / "store")


def fit(store, track):
    return fit_sae(store, open_dataset(store, "aux", "gabor"), SAE, track=track)


def fit_in_two(store, track, monkeypatch):
    """Fit, stopped after half of the steps and gone on with."""
    step, taken = SaeTrainer.step, iter(range(1, 10_000))

    def stopping(self, tokens):
        if next(taken) == 5:
            raise KeyboardInterrupt
        return step(self, tokens)

    with monkeypatch.context() as patch:
        patch.setattr(SaeTrainer, "step", stopping)
        with pytest.raises(KeyboardInterrupt):
            fit(store, track)
    return fit(store, track)


def test_tensorboard_holds_the_lines_of_the_log_over_a_stop(fresh, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    made = fit_in_two(fresh, "tensorboard", monkeypatch)

    events = EventAccumulator(str(tmp_path / "runs" / made.id))
    events.Reload()
    lines = read_log(fresh, f"saes/{made.id}")
    assert set(events.Tags()["scalars"]) == {"epoch", "loss", "fvu", "l0", "dead"}
    for name in ("loss", "fvu", "dead"):
        told = [(one.step, one.value) for one in events.Scalars(name)]
        expected = [(line["step"], pytest.approx(line[name], rel=1e-6)) for line in lines]
        assert told == expected


def test_mlflow_holds_the_lines_of_the_log_in_one_run_over_a_stop(fresh, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="needs mlflow-skinny, which pins other versions")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path}/mlruns")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setattr(tracking, "_LEAVING_SECONDS", 60.0)

    made = fit_in_two(fresh, "mlflow", monkeypatch)

    client = mlflow.MlflowClient()
    [run] = client.search_runs([client.get_experiment_by_name("spg-pipe").experiment_id])
    assert (run.info.status, run.info.run_name) == ("FINISHED", made.id)
    assert run.data.params["width"] == "24"
    for name in ("loss", "fvu", "dead"):
        told = [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, name)]
        assert told == [(line["step"], line[name]) for line in read_log(fresh, f"saes/{made.id}")]


class Broken:
    def __init__(self, *_):
        pass

    def log(self, lines):
        raise OSError("quota\nexceeded")

    def close(self, finished):
        pass


class Hanging(Broken):
    def log(self, lines):
        threading.Event().wait(60)


@pytest.mark.parametrize(
    ("tracker", "message"),
    [
        (Broken, "remark: wandb failed (quota); the fit goes on without it"),
        (Hanging, "remark: wandb does not answer and is not waited for"),
    ],
)
def test_a_tracker_that_fails_or_hangs_is_named_once_and_the_fit_goes_on(
    fresh, tracker, message, monkeypatch, capsys
):
    monkeypatch.setitem(tracking._OPEN, "wandb", tracker)
    monkeypatch.setattr(tracking, "_SECONDS_BETWEEN", 0.01)
    monkeypatch.setattr(tracking, "_LEAVING_SECONDS", 0.2)

    made = fit(fresh, "wandb")

    assert len(read_log(fresh, f"saes/{made.id}")) == 8
    assert capsys.readouterr().err.count(message) == 1


def test_what_a_tracker_sees_changes_no_bit(fresh, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    other = open_store(shutil.copytree(fresh.where, tmp_path / "other"))

    one, another = fit(fresh, None), fit(other, "tensorboard")

    assert one.id == another.id
    assert one.tensors["encoder"].equal(another.tensors["encoder"])


class Noting(Broken):
    seen: ClassVar[dict[str, int]] = {}

    def __init__(self, identifier, *_):
        self.id = identifier

    def log(self, lines):
        self.seen[self.id] = self.seen.get(self.id, 0) + len(lines)


def test_a_tracker_follows_every_fit_of_what_is_reproduced(fresh, monkeypatch, capsys):
    small = ReproduceConfig(
        **{"aux": "aux", "target": "target", "backbone": "gabor", "directions": "one"},
        **{"width": 24, "k": 4, "sae_epochs": 1, "guide_epochs": 1},
    )
    monkeypatch.setitem(tracking._OPEN, "wandb", Noting)
    monkeypatch.setattr(tracking, "find_spec", lambda name: name)
    varied = FigureConfig(guide_ks=(8,), taus=(0.5,), shots=(1,))

    for what in ("table1", "references", "fig3"):
        Noting.seen.clear()
        shutil.rmtree(f"{fresh.where}/saes", ignore_errors=True)
        shutil.rmtree(f"{fresh.where}/guides", ignore_errors=True)
        reproduce(fresh, ReproduceSource(what=what), small, varied, "wandb")

        made = {*list_artifacts(fresh, "saes"), *list_artifacts(fresh, "guides")}
        assert set(Noting.seen) == made
        assert all(Noting.seen.values())
    assert load_artifact(fresh, "figures", "latest").id.startswith("fig3-aux-to-target")


def test_a_tracker_that_is_not_installed_is_refused_before_anything_starts(monkeypatch):
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)

    with pytest.raises(ConfigError, match=r"pip install 'spg-pipe\[mlflow\]'"):
        require_tracker("mlflow")

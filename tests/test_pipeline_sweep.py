"""A sweep: its grid, its results beside separate fits, kills, failures, workers and figures."""

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from PIL import Image

from cache.store import open_store
from pipeline.artifacts import list_artifacts, load_artifact
from pipeline.configs import (
    ClusterConfig,
    FigureConfig,
    FitGuidesConfig,
    FitSaeConfig,
    ReproduceConfig,
    ScoreConfig,
    SweepConfig,
)
from pipeline.drawing.points import cells
from pipeline.fitting import train
from pipeline.fitting.guides import fit_guides
from pipeline.fitting.sae import fit_sae
from pipeline.inputs import open_dataset
from pipeline.reproduce.figure import check_out, save_figure, write_out
from pipeline.reproduce.figures import fig3, make_figure
from pipeline.scoring.score import score
from pipeline.sweep.grid import read_grid
from pipeline.sweep.points import OpenSweep
from pipeline.sweep.run import share_out, sweep
from pipeline.sweep.table import figures
from spg_core.errors import ConfigError, FitError
from spg_core.sae_step import SaeTrainer

SHORT = ("sae.epochs=1", "sae.images_per_step=4", "guides.epochs=1", "guides.images_per_step=4")
SMALL = SweepConfig(
    aux="aux", target="target", backbone="gabor", width=(24, 40), k=(2, 5), vary=SHORT
)


def test_a_grid_is_every_combination_with_typed_values():
    points = read_grid(replace(SMALL, seed=(1, 2), vary=("guides.beta=1e-4,1e-3",))).points

    assert len(points) == 2 * 2 * 2 * 2
    assert len({tuple(point.axes.values()) for point in points}) == 16
    last = points[-1]
    assert last.sae == FitSaeConfig(width=40, k=5, seed=2)
    assert last.guides == FitGuidesConfig(beta=1e-3, seed=2)
    assert last.axes["guides.beta"] == 1e-3


def test_a_recipe_sets_what_is_not_varied():
    (point,) = read_grid(SweepConfig(recipe=("paper",), vary=("guides.beta=0.5",))).points

    assert (point.sae.recipe, point.sae.loss, point.guides.beta) == ("paper", "sum", 0.5)
    assert point.score.sigma == 0.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": (2048, "x")}, "--width is .2048, 'x'.; it must be a list, each a whole number"),
        ({"width": (0, 2048)}, "--width is .0, 2048.; .* 1 to"),
        ({"k": ()}, "--k is ..; it must be a list"),
        ({"recipe": ("mine",)}, "--recipe is ..mine',.; it must be a list, each released or paper"),
        ({"memory_gb": float("nan")}, "--memory-gb is nan"),
        ({"vary": ("guides.bta=1",)}, "guides has temperature.*; did you mean 'beta'"),
        ({"vary": ("beta=1",)}, "--vary is STAGE.FIELD=VALUE"),
        ({"vary": ("sae.width=1",)}, "--vary is STAGE.FIELD=VALUE"),
        ({"vary": ("sae.l1=1", "sae.l1=2")}, "--vary names sae.l1 twice"),
        ({"vary": ("sae.l1=,",)}, "--vary sae.l1 has no value"),
        ({"vary": ("sae.clamp=2",)}, "--vary sae.clamp is '2'; it must be true or false"),
        ({"vary": ("guides.temperature=-1",)}, "--vary guides.temperature is '-1'; .* 0.0001 to"),
        ({"vary": ("guides.sparsity=rely",)}, "relu, softplus or topk; did you mean 'relu'"),
    ],
)
def test_an_impossible_grid_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        read_grid(SweepConfig(**options))


def test_a_sweep_gives_what_separate_commands_give_bit_for_bit(small_store, fresh):
    made = sweep(fresh, SMALL)

    store = open_store(small_store.url)
    sae = FitSaeConfig(width=40, k=5, epochs=1, images_per_step=4)
    sae_alone = fit_sae(store, open_dataset(store, "aux", "gabor"), sae)
    guides_config = FitGuidesConfig(epochs=1, images_per_step=4)
    guides_alone = fit_guides(store, sae_alone.id, guides_config)
    scores_alone = score(store, guides_alone.id, "target", ScoreConfig())
    row = made.rows[-1]
    assert (row["sae"], row["guides"], row["scores"]) == (
        sae_alone.id,
        guides_alone.id,
        scores_alone.id,
    )
    for kind, alone in (("saes", sae_alone), ("guides", guides_alone)):
        together = load_artifact(fresh, kind, alone.id)
        for name, tensor in alone.tensors.items():
            assert torch.equal(tensor, together.tensors[name]), name
    mean = scores_alone.document.mean.values
    assert {name: row[name] for name in mean if name in row} == mean
    # and the other way round: a later command finds what the sweep made
    n_saes = len(list_artifacts(fresh, "saes"))
    assert fit_sae(fresh, open_dataset(fresh, "aux", "gabor"), sae).id == sae_alone.id
    assert len(list_artifacts(fresh, "saes")) == n_saes == 4


def test_the_table_has_a_row_a_configuration_and_the_heatmaps_are_pictures(fresh):
    made = sweep(fresh, SMALL)

    table = pd.read_parquet(io.BytesIO(fresh.get(f"sweeps/{made.id}/sweep.parquet")))
    document = json.loads(fresh.get(f"sweeps/{made.id}/sweep.json"))
    picture = Image.open(io.BytesIO(fresh.get(f"sweeps/{made.id}/heatmaps.png")))
    assert list(zip(table["width"], table["k"], strict=True)) == [
        *((24, 2), (24, 5)),
        *((40, 2), (40, 5)),
    ]
    assert set(table["state"]) == {"done"}
    assert table["pixel_auroc"].between(0, 1).all()
    assert document["points"] == 4
    assert document["failed"] == []
    assert picture.width > picture.height


def test_a_point_that_fails_is_listed_and_the_rest_come_through(fresh):
    made = sweep(fresh, replace(SMALL, width=(24,), k=(2, 30), vary=(*SHORT, "guides.beta=0")))

    assert [row["state"] for row in made.rows] == ["done", "failed"]
    (failed,) = made.failed
    assert failed["failed_at"] == "fit-sae"
    assert "k = 30 latents a token of 24 atoms" in failed["reason"]
    assert len(list_artifacts(fresh, "scores")) == 1


def test_guides_that_die_sink_only_their_own_point(fresh):
    dying = ("guides.learning_rate=0.5", "guides.ema=0", "guides.beta=0,1e6")

    made = sweep(fresh, replace(SMALL, width=(24,), k=(2,), vary=(*SHORT, *dying)))

    assert [row["failed_at"] for row in made.rows] == [None, "fit-guides"]
    assert "no coefficient above 0" in made.rows[1]["reason"]


def test_a_sweep_of_failures_only_is_an_error_with_the_first_reason(fresh):
    with pytest.raises(FitError, match=r"none of 2 points came through.*k = 30"):
        sweep(fresh, replace(SMALL, width=(24, 25), k=(30,)))


def test_a_budget_that_holds_no_sae_is_refused_before_anything_starts(fresh):
    with pytest.raises(ConfigError, match=r"allowed are 0\.00 GB"):
        sweep(fresh, replace(SMALL, memory_gb=1e-4))
    with pytest.raises(ConfigError, match=r"allowed are 0\.00 GB"):
        sweep(fresh, replace(SMALL, memory_gb=1e-4), ClusterConfig(workers=2))

    assert list_artifacts(fresh, "saes") == []


def test_a_grid_split_by_memory_gives_the_same_saes(small_store, fresh, tmp_path):
    copy = open_store(
        shutil.copytree(fresh.where, tmp_path / "split", ignore=shutil.ignore_patterns("saes"))
    )
    whole = sweep(fresh, SMALL)

    split = sweep(copy, replace(SMALL, memory_gb=0.0009))

    assert split.id == whole.id
    for row in whole.rows:
        one, other = (load_artifact(s, "saes", row["sae"]) for s in (fresh, copy))
        assert torch.equal(one.tensors["encoder"], other.tensors["encoder"])


class Killed(BaseException):
    """Stands for a signal."""


def test_a_sweep_that_was_killed_goes_on_to_the_same_result(fresh, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "pause_after", lambda seconds: 0.0)
    copy = open_store(shutil.copytree(fresh.where, tmp_path / "killed"))
    step, taken = SaeTrainer.step, iter(range(1, 10_000))

    def dying(self, tokens):
        # the measurements before the start take steps as well
        if self.config.width == 40 and next(taken) == 16:
            raise Killed
        return step(self, tokens)

    with monkeypatch.context() as patch:
        patch.setattr(SaeTrainer, "step", dying)
        with pytest.raises(Killed):
            sweep(copy, SMALL)

    resumed = sweep(copy, SMALL)

    whole = sweep(fresh, SMALL)
    tables = [s.get(f"sweeps/{whole.id}/sweep.parquet") for s in (fresh, copy)]
    assert resumed.id == whole.id
    assert tables[0] == tables[1]


def test_points_of_one_sae_stay_together_and_work_is_shared_evenly(small_store):
    store = open_store(small_store.url)
    data = open_dataset(store, "aux", "gabor")
    config = replace(SMALL, width=(10, 20, 30, 40), k=(2,), vary=("guides.beta=0,1",))
    points = read_grid(config).points

    parts = share_out(points, 2, {None: OpenSweep(store, data, data, None)})

    assert sorted(map(tuple, parts)) == [(0, 1, 6, 7), (2, 3, 4, 5)]


@pytest.mark.slow
def test_workers_share_a_sweep_and_give_the_same_rows(fresh, tmp_path):
    copy = open_store(shutil.copytree(fresh.where, tmp_path / "workers"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        here = sweep(fresh, SMALL)
        there = sweep(copy, SMALL, ClusterConfig(workers=2))
    finally:
        torch.set_num_threads(threads)

    assert here.id == there.id
    assert [row["sae"] for row in here.rows] == [row["sae"] for row in there.rows]
    for one, other in zip(here.rows, there.rows, strict=True):
        assert one["pixel_auroc"] == pytest.approx(other["pixel_auroc"], abs=1e-6)


@pytest.mark.slow
def test_a_dead_workers_points_are_done_by_others(fresh):
    width, epochs = "24,40", "sae.epochs=60"
    words = ["sweep", "--store", fresh.where, "--aux", "aux", "--target", "target"]
    words += ["--backbone", "gabor", "--width", width, "--k", "2", "--workers", "2", "--json"]
    for text in (epochs, *SHORT[1:]):
        words += ["--vary", text]
    run = subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    logs, victim = Path(fresh.where) / "saes", None
    while victim is None and run.poll() is None:
        time.sleep(0.05)
        # whoever has a training log open is at work on a point
        if any(path.stat().st_size for path in logs.glob("*/training.jsonl")):
            victim = next((p for p in _descendants(run.pid) if _writes_below(p, logs)), None)

    assert victim is not None, run.communicate()[1]
    os.kill(victim, signal.SIGKILL)
    out, err = run.communicate(timeout=300)

    assert run.returncode == 0, err
    assert json.loads(out)["failed"] == []
    assert len(list_artifacts(fresh, "scores")) == 2


def _descendants(pid):
    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


def _writes_below(pid, folder):
    links = Path(f"/proc/{pid}/fd").glob("*")
    with contextlib.suppress(OSError):
        return any(str(folder) in str(link.readlink()) for link in links)
    return False


def test_heatmap_cells_are_means_over_seeds_and_failed_ones_empty():
    rows = [
        {"width": 8, "k": 2, "seed": 1, "image_auroc": 0.5},
        {"width": 8, "k": 2, "seed": 2, "image_auroc": 0.7},
        {"width": 16, "k": 2, "seed": 1},
    ]

    widths, ks, values = cells(rows, "image_auroc")

    assert (widths, ks) == ([8, 16], [2])
    assert values[0, 0] == pytest.approx(0.6)
    assert np.isnan(values[0, 1])


def test_every_further_axis_gets_a_figure_of_its_own():
    rows = [
        {"recipe": recipe, "width": 8, "k": 2, "order": "images", "guides.beta": beta}
        for recipe in ("released", "paper")
        for beta in (0.1, 0.2)
    ]

    drawn = figures(rows, "title")

    assert list(drawn) == ["heatmaps.png", *(f"heatmaps-{i}.png" for i in (2, 3, 4))]


REPRODUCE = ReproduceConfig(
    directions="one",
    aux="aux",
    target="target",
    backbone="gabor",
    width=24,
    k=2,
    sae_epochs=1,
    guide_epochs=1,
)


def test_fig3_at_a_small_tau_nears_the_maximum_and_scores_are_those_of_score(fresh):
    rows = fig3(fresh, REPRODUCE, FigureConfig(taus=(1e-6, 10)))

    by_tau = {row["tau"]: row for row in rows}
    guides = list_artifacts(fresh, "guides")[-1]
    pooled = score(fresh, guides, "target", ScoreConfig(tau=10.0, aupro="clip200"))
    assert by_tau[1e-6]["image_auroc"] == pytest.approx(by_tau[0.0]["image_auroc"], abs=1e-3)
    assert by_tau[10.0]["image_auroc"] == pooled.document.mean.image_auroc


def test_fig_s1_fits_topk_guides_beside_relu_ones_and_is_kept(fresh, tmp_path):
    varied = FigureConfig(guide_ks=(1, 6, 99))

    figure = make_figure("figS1", fresh, REPRODUCE, varied)
    path = save_figure(fresh, figure, REPRODUCE, varied)
    write_out(figure, str(tmp_path / "points.csv"))

    *topk, relu = figure.rows
    assert [row.get("raw_nnz_anomaly") for row in topk] == [1, 6, None]
    assert "topk-guides must lie in 1 .. 24" in topk[2]["reason"]
    assert relu["guides.sparsity"] == "relu"
    assert len(list_artifacts(fresh, "saes")) == 1
    with Image.open(f"{path}/figure.png") as picture:
        assert picture.format == "PNG"
    assert len(pd.read_csv(tmp_path / "points.csv")) == len(
        pd.read_parquet(f"{path}/points.parquet")
    )


def test_a_figure_is_written_to_known_kinds_of_file_only():
    with pytest.raises(
        ConfigError, match=r"written to \.png, \.pdf, \.svg, \.parquet, \.csv, got 'x\.tex'"
    ):
        check_out("x.tex")

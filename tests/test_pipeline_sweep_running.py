"""A sweep while it runs: its table from the first point on, its plan, its exit code, SIGTERM."""

import csv
import io
import json
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from pipeline import cli
from pipeline.configs import SweepConfig
from pipeline.inputs import open_dataset
from pipeline.registry.survey import survey
from pipeline.sweep import points
from pipeline.sweep.left import told
from pipeline.sweep.plan import plan
from pipeline.sweep.run import sweep
from tests.stopped_runs import digests, leftovers, start, stop_when

SHORT = ("sae.epochs=1", "sae.images_per_step=4", "guides.epochs=1", "guides.images_per_step=4")
SMALL = SweepConfig(
    aux="aux", target="target", backbone="gabor", width=(24, 40), k=(2, 30), vary=SHORT
)


def tables(store):
    """Give the sweep's table as it is now, from Parquet and from CSV."""
    [folder] = (Path(store.where) / "sweeps").iterdir()
    return pd.read_parquet(folder / "sweep.parquet"), pd.read_csv(folder / "sweep.csv")


def test_the_table_is_there_from_the_first_point_on_and_says_how_far_each_is(fresh, monkeypatch):
    seen = []

    def looked_at(stage, real):
        def run(*things):
            seen.append(tables(fresh)[0])
            [held] = survey(fresh, ["sweeps"]).artifacts.values()
            assert held.state == "unfinished"
            return real(*things)

        monkeypatch.setattr(points, stage, run)

    looked_at("fit_saes", points.fit_saes)
    looked_at("fit_guide_group", points.fit_guide_group)

    made = sweep(fresh, SMALL)

    before, between = seen
    assert list(before["state"]) == ["waiting", "waiting", "waiting", "failed"]
    assert list(between["state"]) == ["sae", "sae", "sae", "failed"]
    assert list(between["fvu"][:3]) == [row["fvu"] for row in made.rows[:3]]
    for table in tables(fresh):
        assert list(table["state"]) == ["done", "done", "done", "failed"]
        assert list(table["scores"][:3]) == [row["scores"] for row in made.rows[:3]]


def test_the_result_of_an_earlier_run_stays_until_the_next_is_done(fresh, monkeypatch):
    sweep(fresh, SMALL)
    before = digests(Path(fresh.where), ("sweeps",))

    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(points, "score_group", stopped)
    with pytest.raises(KeyboardInterrupt):
        sweep(fresh, SMALL)

    assert digests(Path(fresh.where), ("sweeps",)) == before


def test_a_plan_counts_points_steps_and_bytes_and_writes_nothing(fresh):
    names = sorted(path for path in Path(fresh.where).rglob("*"))

    planned = plan(fresh, SMALL)

    assert len(planned.points) == 3
    assert "k = 30" in planned.impossible[0]["reason"]
    assert planned.planned.cost.n_steps == 3 * 4
    assert planned.planned.guide_steps == 3 * 4
    assert sorted(path for path in Path(fresh.where).rglob("*")) == names
    made = sweep(fresh, SMALL)
    written = sum(path.stat().st_size for path in Path(fresh.where).rglob("*") if path.is_file())
    assert planned.planned.disk_bytes > 0
    assert written < planned.planned.disk_bytes * 3
    again = plan(fresh, SMALL)
    assert again.id == made.id
    assert (again.planned.n_saes_there, again.planned.guide_steps) == (3, 0)
    assert (again.planned.guide_seconds, again.planned.score_seconds) == (0, 0)


def test_images_that_are_fitted_on_are_counted_before_anything_is(fresh, capsys):
    planned = plan(fresh, replace(SMALL, target="aux"))

    assert planned.shared_images == open_dataset(fresh, "aux", "gabor").cache.n_images
    assert planned.to_json()["shared_images"] == planned.shared_images
    assert "the guides are fitted on aux itself" in capsys.readouterr().err


def test_the_time_of_guides_and_scores_grows_with_what_is_asked_for(fresh):
    """Measured steps times their number; how well they are met is not for a loaded machine."""
    small = plan(fresh, SMALL).planned
    longer = (*SHORT[:2], "guides.epochs=100", "guides.images_per_step=4")
    blurs = "score.sigma=1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16"

    many = plan(fresh, replace(SMALL, vary=(*longer, blurs))).planned

    assert 0 < small.guide_seconds < many.guide_seconds
    assert 0 < small.score_seconds < many.score_seconds
    assert (small.n_guides, small.n_scores, many.n_guides, many.n_scores) == (3, 3, 3, 48)
    lines = told(small)
    assert re.search(r"^3 pairs of guides: 12 steps, about \d+ s$", lines[2])
    assert re.search(r"^3 scores, about \d+ s$", lines[3])


@pytest.mark.parametrize("vary", [("guides.on=cls",), ("guides.dictionary=none,pca,random",)])
def test_guides_of_every_kind_can_be_planned(fresh, vary):
    assert plan(fresh, replace(SMALL, vary=(*SHORT, *vary))).planned.n_guides > 0


def words(store, *more):
    grid = ["--aux", "aux", "--target", "target", "--backbone", "gabor", "--width", "24,40"]
    return ["sweep", *grid, "--store", str(store), *more]


def test_points_that_failed_are_exit_code_1_and_a_way_to_go_on(fresh, capsys):
    vary = [word for one in SHORT for word in ("--vary", one)]

    with pytest.raises(SystemExit) as ended:
        cli.main([*words(fresh.where, "--k", "2,30", "--json"), *vary])

    printed = capsys.readouterr()
    assert ended.value.code == 1
    assert [row["k"] for row in json.loads(printed.out)["failed"]] == [30]
    assert "failed at fit-sae" in printed.err
    assert "1 of 4 points failed; mend what their reasons name" in printed.err


def test_a_dry_run_prints_its_plan_as_text_and_as_json(fresh, capsys):
    for more in ([], ["--json"]):
        with pytest.raises(SystemExit) as ended:
            cli.main(words(fresh.where, "--k", "2", "--dry-run", *more))
        assert ended.value.code is None or ended.value.code == 0

    printed = capsys.readouterr().out
    text, _, as_json = printed.partition("{")
    assert re.search(r"2 points, 2 SAEs, 0 of them there already", text)
    assert "of disk" in text
    assert len(json.loads("{" + as_json)["points"]) == 2


def test_names_that_a_spreadsheet_would_run_are_texts_in_the_csv(fresh):
    sweep(fresh, replace(SMALL, k=(2,)))
    [folder] = (Path(fresh.where) / "sweeps").iterdir()

    rows = list(csv.DictReader(io.StringIO((folder / "sweep.csv").read_text())))

    assert [row["width"] for row in rows] == ["24", "40"]


def test_a_sweep_stopped_by_sigterm_goes_on_to_the_same_artifacts_to_the_bit(fresh, tmp_path):
    stopped = Path(fresh.where)
    whole = Path(shutil.copytree(stopped, tmp_path / "whole"))
    more = ["--k", "4", "--vary", "sae.epochs=40", "--vary", "guides.epochs=2"]
    process = start(*words(stopped, *more), "--vary", "sae.images_per_step=2")

    def at_work():
        logs = list(stopped.glob("saes/*/training.jsonl"))
        return len(logs) == 2 and all(log.read_bytes().count(b"\n") > 20 for log in logs)

    code, errors, seconds = stop_when(process, signal.SIGTERM, at_work)

    assert code == 143, errors
    assert seconds < 10
    assert re.search(
        r"stopped at steps? \d+( to \d+)? of 320 \(2 fits\); the same command goes on", errors
    )
    assert set(tables(fresh)[0]["state"]) == {"waiting"}
    assert [name for name in leftovers(stopped) if ".tmp-" in name] == []

    resumed = start(*words(stopped, *more), "--vary", "sae.images_per_step=2")
    _, errors = resumed.communicate()
    start(*words(whole, *more), "--vary", "sae.images_per_step=2").communicate()

    assert resumed.returncode == 0, errors
    assert re.search(r"going on from steps? \d+.* of 320 \(2 fits\), checkpoint of", errors)
    assert leftovers(stopped) == []
    assert digests(stopped) == digests(whole)

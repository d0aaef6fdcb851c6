"""Watching a folder: what is taken when, and the real command until it is stopped."""

import json
import os
import shutil
import signal
import time
from contextlib import nullcontext
from pathlib import Path

import pytest

from pipeline.commands import shown
from pipeline.configs import PredictConfig, ScoreConfig
from pipeline.prediction.inputs import find_images
from pipeline.prediction.predict import predict
from pipeline.prediction.watch import EVERY, PATIENCE, Folder, watch
from spg_core.errors import DatasetError, OptionsDisagree
from tests.stopped_runs import start


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def folder(tmp_path, clock):
    return Folder(str(tmp_path / "in"), clock)


@pytest.fixture
def inbox(tmp_path):
    made = tmp_path / "in"
    made.mkdir()
    return made


def ready(folder, clock, seconds=EVERY):
    """Let time pass, and give the names of what is to be judged."""
    clock.now += seconds
    return [Path(one).name for one in folder.ready()]


def finish(folder, inbox, name, error=None):
    return folder.done(str(inbox / name), error)


def test_a_file_is_taken_once_when_it_has_stayed_as_it_is(folder, inbox, clock):
    (inbox / "a.png").write_bytes(b"one")
    assert ready(folder, clock) == []
    (inbox / "a.png").write_bytes(b"one and more")
    assert ready(folder, clock) == []
    assert ready(folder, clock) == ["a.png"]
    assert finish(folder, inbox, "a.png")
    assert ready(folder, clock, 60) == []


def test_a_file_that_is_replaced_is_taken_again(folder, inbox, clock):
    (inbox / "a.png").write_bytes(b"one")
    ready(folder, clock)
    assert ready(folder, clock) == ["a.png"]
    finish(folder, inbox, "a.png")

    (inbox / ".new").write_bytes(b"two")
    os.utime(inbox / ".new", ns=(0, (inbox / "a.png").stat().st_mtime_ns))
    (inbox / ".new").replace(inbox / "a.png")

    assert ready(folder, clock) == []
    assert ready(folder, clock) == ["a.png"]


def test_what_was_written_to_while_it_was_judged_is_judged_again(folder, inbox, clock):
    (inbox / "a.png").write_bytes(b"one")
    ready(folder, clock)
    ready(folder, clock)
    (inbox / "a.png").write_bytes(b"one and more")

    assert not finish(folder, inbox, "a.png", "cut")
    assert ready(folder, clock) == []
    assert ready(folder, clock) == ["a.png"]


def test_a_broken_file_is_an_error_only_after_some_seconds(folder, inbox, clock):
    (inbox / "a.png").write_bytes(b"one")
    ready(folder, clock)
    assert ready(folder, clock) == ["a.png"]
    assert not finish(folder, inbox, "a.png", "cut")
    assert ready(folder, clock) == []
    assert ready(folder, clock, PATIENCE) == ["a.png"]
    assert finish(folder, inbox, "a.png", "cut")
    assert ready(folder, clock, 60) == []


def test_an_empty_file_waits_for_its_bytes(folder, inbox, clock):
    (inbox / "a.png").write_bytes(b"")
    ready(folder, clock)
    assert ready(folder, clock) == []
    assert ready(folder, clock, PATIENCE) == ["a.png"]


def test_what_is_gone_is_forgotten(folder, inbox, clock):
    for at in range(50):
        path = inbox / f"{at}.png"
        path.write_bytes(b"x")
        ready(folder, clock)
        assert ready(folder, clock) == [path.name]
        finish(folder, inbox, path.name)
        path.unlink()

    ready(folder, clock)
    assert len(folder) == 0


def test_a_share_that_was_away_brings_nothing_new(folder, inbox, clock, capsys):
    (inbox / "a.png").write_bytes(b"x")
    ready(folder, clock)
    assert ready(folder, clock) == ["a.png"]
    finish(folder, inbox, "a.png")

    inbox.rename(inbox.with_name("away"))
    for _ in range(3):
        assert ready(folder, clock) == []
    inbox.with_name("away").rename(inbox)

    assert ready(folder, clock) == []
    assert ready(folder, clock, 60) == []
    assert capsys.readouterr().err.count("unreadable folder") == 1


def test_a_name_that_cannot_be_used_is_said_once(folder, inbox, clock, capsys):
    (inbox / "a\nb.png").write_bytes(b"x")

    for _ in range(3):
        assert ready(folder, clock) == []

    assert capsys.readouterr().err.count("unusable name") == 1


def test_pictures_of_ours_hidden_files_and_others_are_passed_over(folder, inbox, clock):
    for name in ("a.overlay.png", "a.heatmap.png", ".b.png", "c.txt", "d.png.part"):
        (inbox / name).write_bytes(b"x")
    (inbox / "below").mkdir()
    (inbox / "below" / "e.JPG").write_bytes(b"x")

    ready(folder, clock)
    assert ready(folder, clock) == ["e.JPG"]


def test_images_and_a_folder_to_watch_are_not_given_together(small_store):
    import spg_pipe

    asked = {"guides": small_store.guides.id}
    with pytest.raises(OptionsDisagree, match="or --watch FOLDER"):
        spg_pipe.predict(small_store.url, "x.png", watch="y", **asked)
    with pytest.raises(OptionsDisagree, match="or --watch FOLDER"):
        spg_pipe.predict(small_store.url, **asked)
    with pytest.raises(DatasetError, match="--watch nowhere: no such folder"):
        spg_pipe.predict(small_store.url, watch="nowhere", **asked)


@pytest.mark.parametrize("is_watched", [True, False])
def test_a_signal_while_a_line_is_printed_ends_a_watch_as_any_other(
    small_store, inbox, monkeypatch, capsys, is_watched
):
    shutil.copy(min((small_store.images / "target").glob("*/test/good/*")), inbox / "0.png")
    guides, config = small_store.guides, PredictConfig(threshold=0.5)
    if is_watched:
        judged = watch(guides, str(inbox), ScoreConfig(), config)
    else:
        judged = predict(guides, find_images([str(inbox)]), ScoreConfig(), config)

    def stopped(text):
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.commands.shown.typer.echo", stopped)
    with nullcontext() if is_watched else pytest.raises(KeyboardInterrupt):
        shown.predict(judged, as_json=True)
    assert "0 images scored, 0 failed" in capsys.readouterr().err


def test_a_picture_that_is_not_read_is_said_once(inbox, clock, capsys):
    (inbox / "phone.HEIC").write_bytes(b"x")
    folder = Folder(str(inbox), clock)

    for _ in range(3):
        assert folder.ready() == []

    told = capsys.readouterr().err
    assert told.count("phone.HEIC") == 1
    assert "save it as PNG or JPEG" in told


def lines(process, n):
    return [json.loads(process.stdout.readline()) for _ in range(n)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_judges_what_arrives_until_a_signal(small_store, inbox, tmp_path, number):
    photos = sorted((small_store.images / "target").glob("*/test/good/*"))[:3]
    shutil.copy(photos[0], inbox / "0.png")
    out = tmp_path / "out"
    words = ["--guides", small_store.guides.id, "--store", small_store.url, "--watch", str(inbox)]

    process = start("predict", *words, "--out", str(out), "--threshold", "0.5", "--json")
    [first] = lines(process, 1)
    # slowly, as over a network, then one that is renamed into place
    data = photos[1].read_bytes()
    with (inbox / "1.png").open("wb") as file:
        for part in (data[:400], data[400:]):
            file.write(part)
            file.flush()
            time.sleep(0.3)
    shutil.copy(photos[2], inbox / ".2.png")
    (inbox / ".2.png").rename(inbox / "2.png")
    others = lines(process, 2)
    os.kill(process.pid, number)
    _, errors = process.communicate(timeout=60)

    found = [first, *others]
    assert Path(first["path"]).name == "0.png"
    assert {Path(one["path"]).name for one in found} == {"0.png", "1.png", "2.png"}
    assert all(one["error"] is None and one["verdict"] for one in found)
    assert {path.name for path in out.iterdir()} == {
        f"{at}.{ending}.png" for at in range(3) for ending in ("heatmap", "overlay")
    }
    assert process.returncode == 0
    assert "3 images scored, 0 failed" in errors
    assert "Traceback" not in errors

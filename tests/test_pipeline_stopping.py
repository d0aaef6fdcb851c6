"""Stopped by SIGTERM or Ctrl-C, a run keeps what it did, says so, and goes on to the same bits."""

import re
import shutil
import signal
from pathlib import Path

import pytest

from tests.stopped_runs import attack, commands, digests, leftovers, make_store, start, stop_when

FIT = ["--dataset", "aux", "--backbone", "gabor", "--width", "256", "--k", "8"]
FITS = {
    "fit-sae": ["fit-sae", *FIT, "--epochs", "150", "--images-per-step", "4"],
    "fit-guides": ["fit-guides", "--sae", "latest", "--epochs", "400"],
}


@pytest.fixture
def fresh(small_store, tmp_path):
    return Path(shutil.copytree(small_store.url, tmp_path / "store"))


def at_work(store: Path, kind: str):
    """Tell when a fit that is not finished has taken some steps."""

    def ready() -> bool:
        return any(
            log.read_bytes().count(b"\n") > 5 and not list(log.parent.glob(f"{kind[:-1]}*.json"))
            for log in (store / kind).glob("*/training.jsonl")
        )

    return ready


@pytest.mark.parametrize(
    ("command", "number"), [("fit-sae", signal.SIGTERM), ("fit-guides", signal.SIGINT)]
)
def test_a_stopped_fit_keeps_its_last_step_and_ends_with_the_same_bits(
    fresh, tmp_path, command, number
):
    whole = Path(shutil.copytree(fresh, tmp_path / "whole"))
    words, kind = FITS[command], "saes" if command == "fit-sae" else "guides"

    process = start(*words, "--store", str(fresh))
    code, errors, seconds = stop_when(process, number, at_work(fresh, kind))

    assert code == 128 + number, errors
    assert seconds < 10
    [at] = re.findall(r"stopped at step (\d+) of \d+ \(\S+\); the same command goes on", errors)
    assert int(at) >= 5
    assert "Traceback" not in errors
    assert [name for name in leftovers(fresh) if ".tmp-" in name] == []

    _, resumed = start(*words, "--store", str(fresh)).communicate()
    start(*words, "--store", str(whole)).communicate()

    assert re.search(rf"going on from step {at} of \d+ \(\S+\), checkpoint of \d\d:\d\d", resumed)
    assert leftovers(fresh) == []
    assert digests(fresh) == digests(whole)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["extract", "fit-sae", "sweep", "calibrate", "verify"])
def test_signals_at_random_moments_leave_nothing_torn(tmp_path_factory, command):
    folder = tmp_path_factory.getbasetemp() / "stopped"
    folder.mkdir(exist_ok=True)

    assert attack(make_store(folder), commands(folder)[command], rounds=3, seed=7) == []

"""Stopped by SIGTERM or Ctrl-C, a run keeps what it did, says so, and goes on to the same bits."""

import os
import pty
import re
import shutil
import signal
import sys
from pathlib import Path

import pytest

from tests.stopped_runs import (
    ROOT,
    attack,
    commands,
    digests,
    leftovers,
    make_store,
    start,
    stop_when,
)

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


def test_a_fit_whose_terminal_closes_keeps_its_last_step(fresh):
    words = [sys.executable, "-m", "pipeline.cli", *FITS["fit-guides"], "--store", str(fresh)]
    process, terminal = pty.fork()
    if process == 0:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup has it ignored
        os.execve(words[0], words, {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"})
    ready = at_work(fresh, "guides")
    while not ready():
        os.read(terminal, 65536)  # bars, which would fill the terminal's buffer

    os.close(terminal)
    _, status = os.waitpid(process, 0)

    assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGHUP
    assert [name for name in leftovers(fresh) if name.endswith("checkpoint.safetensors")]
    _, resumed = start(*FITS["fit-guides"], "--store", str(fresh)).communicate()
    assert "going on from step" in resumed


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

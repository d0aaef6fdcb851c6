"""Runs of the real command that are sent signals, for tests and by hand.

    python -m tests.stopped_runs FOLDER [ROUNDS] [COMMAND,..]

makes a small store in FOLDER, stops each command ROUNDS times at random moments by SIGTERM or
Ctrl-C (half of the times twice), lets it finish, and compares what is left with an undisturbed run.
"""

import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pipeline.configs import ExtractConfig

ROOT = Path(__file__).resolve().parents[1]
STORED = ("sweeps", "saes", "guides", "scores")
_UNLIKE = ("last.json", "cache.json")
"""Files that say when, or how long, something was."""


def start(*words: str, **environment: str) -> subprocess.Popen[str]:
    """Start `spg-pipe` in a session of its own, with signals as a terminal leaves them."""
    known = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=known,
        start_new_session=True,
        # a job in the background, as some CI is, inherits Ctrl-C as ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def stop_when(
    process: subprocess.Popen[str], number: int, ready: Callable[[], bool], group: bool = False
) -> tuple[int, str, float]:
    """Send a signal once `ready`; give exit code, stderr and the seconds it took to leave."""
    while process.poll() is None and not ready():
        time.sleep(0.005)
    began = time.perf_counter()
    (os.killpg if group else os.kill)(process.pid, number)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors, time.perf_counter() - began


def digests(store: Path, kinds: tuple[str, ...] = STORED) -> dict[str, str]:
    """Give SHA-256 of all that is stored of some kinds, by name, but for when it was made."""
    found = {}
    for kind in kinds:
        for path in sorted((store / kind).rglob("*")):
            if path.is_file() and path.name not in _UNLIKE and ".tmp-" not in path.name:
                data = re.sub(rb'"created": "[^"]*"', b"", path.read_bytes())
                found[str(path.relative_to(store))] = hashlib.sha256(data).hexdigest()
    return found


def leftovers(store: Path) -> list[str]:
    """Name what a run should not leave: temporaries and checkpoints."""
    names = [str(path.relative_to(store)) for path in store.rglob("*") if path.is_file()]
    return [name for name in names if ".tmp-" in name or name.endswith("checkpoint.safetensors")]


def commands(folder: Path) -> dict[str, list[str]]:
    """Give what is typed, by command; `--store` comes on top."""
    pair = ["--aux", "aux", "--target", "target", "--backbone", "gabor"]
    short = ["--vary", "sae.epochs=12", "--vary", "guides.epochs=12"]
    images = ["--root", str(folder / "images" / "auxiliary"), "--dataset", "visa"]
    fit = ["--dataset", "aux", "--backbone", "gabor", "--width", "256", "--k", "8"]
    new = ["--backbone", "gabor", "--name", "new", "--image-size", "448"]
    return {
        "extract": ["extract", *images, *new],
        "fit-sae": ["fit-sae", *fit, "--epochs", "150"],
        "fit-guides": ["fit-guides", "--sae", "latest", "--epochs", "300"],
        "sweep": ["sweep", *pair, "--width", "64,128", "--k", "4,8", *short],
        "calibrate": ["calibrate", "--guides", "latest", "--rate", "0.5", "--replace"],
        "score": ["score", "--guides", "latest", "--dataset", "target", "--sigma", "3"],
        "verify": ["cache", "verify"],
    }


def attack(base: Path, words: list[str], rounds: int, seed: int) -> list[str]:
    """Stop a command again and again, then compare; give what went wrong, a line each."""
    generator, wrong = random.Random(seed), []
    whole = base.with_name("whole")
    store = base.with_name("stopped")
    for place in (whole, store):
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(base, place)
    began = time.perf_counter()
    process = start(*words, "--store", str(whole))
    _, errors = process.communicate()
    seconds = time.perf_counter() - began
    if process.returncode:
        return [f"undisturbed: {errors}"]
    codes: dict[int, int] = {}
    slowest = 0.0
    for number in range(rounds):
        first = generator.choice((signal.SIGINT, signal.SIGTERM))
        before = set(leftovers(store))  # one that was stopped twice may leave a temporary
        process = start(*words, "--store", str(store))
        time.sleep(generator.uniform(0.3, seconds))
        sent = time.perf_counter()
        process.send_signal(first)
        sent_both = {first}
        if twice := number % 2 == 1:
            time.sleep(generator.uniform(0, 0.3))
            second = generator.choice((signal.SIGINT, signal.SIGTERM))
            process.send_signal(second)
            sent_both.add(second)  # of two that wait, Python takes SIGINT first
        _, errors = process.communicate(timeout=60)
        slowest = max(slowest, time.perf_counter() - sent)
        codes[process.returncode] = codes.get(process.returncode, 0) + 1
        ends = {0, *(128 + one for one in sent_both)}
        if process.returncode not in ends or "Traceback" in errors:
            wrong.append(f"round {number}, twice {twice}: {process.returncode}\n{errors}")
        new = set(leftovers(store)) - before
        if not twice and any(".tmp-" in name for name in new):
            wrong.append(f"round {number}: {sorted(new)}")
        if process.returncode == 0:  # so that the next has something to do
            shutil.rmtree(store)
            shutil.copytree(base, store)
    process = start(*words, "--store", str(store))
    _, errors = process.communicate()
    if process.returncode:
        wrong.append(f"at last: {errors}")
    one, other = (digests(place, (*STORED, "tokens")) for place in (whole, store))
    if one != other:
        differ = sorted(
            name for name in one.keys() | other.keys() if one.get(name) != other.get(name)
        )
        wrong.append(f"what is stored differs: {differ[:5]}")
    told = ", ".join(f"{n} x {code}" for code, n in sorted(codes.items()))
    print(f"{words[0]}: {told}; left within {slowest:.1f} s; {len(wrong)} wrong", flush=True)
    return wrong


def make_store(folder: Path) -> Path:
    """Make images and a store with two caches, an SAE and guides in a folder."""
    from cache.store import open_store
    from pipeline.configs import FitGuidesConfig, FitSaeConfig
    from pipeline.extraction.extract import extract
    from pipeline.fitting.guides import fit_guides
    from pipeline.fitting.sae import fit_sae
    from pipeline.inputs import open_dataset
    from pipeline.sample.shot import SampleConfig
    from pipeline.sample.write import write_sample
    from tests.small_store import extract_config

    images, store = folder / "images", open_store(folder / "store")
    if not images.exists():
        size = SampleConfig(image_size=96, images_per_category=8, train_images_per_category=1)
        write_sample(images, size)
        for which in ("aux", "target"):
            config: ExtractConfig = extract_config(images, which)
            extract(store, config)
        sae = fit_sae(store, open_dataset(store, "aux", "gabor"), FitSaeConfig(width=64, k=8))
        fit_guides(store, sae.id, FitGuidesConfig(epochs=2))
    return folder / "store"


def main() -> None:
    """Run what the module's text says."""
    folder = Path(sys.argv[1])
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    folder.mkdir(parents=True, exist_ok=True)
    base, known = make_store(folder), commands(folder)
    chosen = sys.argv[3].split(",") if len(sys.argv) > 3 else list(known)
    wrong = {name: attack(base, known[name], rounds, seed=1) for name in chosen}
    print(json.dumps({name: found for name, found in wrong.items() if found}, indent=1))


if __name__ == "__main__":
    main()

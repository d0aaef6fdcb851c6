"""Time and memory of pixel metrics on synthetic 448 x 448 maps, beside other implementations.

    python benchmarks/metrics.py --images 100 1725 --rounds 5 --anomalib-python PEERS/bin/python

Every contender is its own process that maps the same files, and they take turns, round after
round, so that a busy machine slows all of them. Peak extra memory is resident memory above that
before the call, sampled every 2 ms, the maps themselves left out. Prints a Markdown table for each
number of images. What a contender took for fewer images says what it needs for more: one that
would not fit the memory that is free is not run, and the table says so; one that would take longer
than `--minutes` by itself is run once.

anomalib is not installed beside the project, because it pulls in much that is not needed. Make a
second environment that borrows the project's torch, and give its interpreter:

    .venv/bin/python -m venv /tmp/peers
    echo "$PWD/.venv/lib/python3.11/site-packages" > base.pth
    mv base.pth /tmp/peers/lib/python3.11/site-packages/
    /tmp/peers/bin/pip install --no-deps anomalib torchmetrics lightning lightning-utilities \
        omegaconf jsonargparse opencv-python-headless kornia kornia_rs tifffile platformdirs \
        scikit-image
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIDE = 448
MIN_SECONDS = 2.0  # a fast contender is called until then, so that a busy moment averages out
Array = NDArray[Any]
Values = dict[str, float | None]
Answers = dict[str, list[dict[str, Any]]]


def sample_image(rng: np.random.Generator, image: int) -> tuple[Array, Array]:
    """Give smooth logits and a mask `(448, 448)`: 1 to 3 ellipses in 3 of 4 images, about 1 %."""
    from scipy.ndimage import zoom

    rows, columns = np.mgrid[:SIDE, :SIDE]
    logits = zoom(rng.standard_normal((28, 28)).astype(np.float32), SIDE / 28, order=1) - 2
    mask = np.zeros((SIDE, SIDE), np.uint8)
    for _ in range(rng.integers(1, 4) if image % 4 else 0):
        radius, tall = rng.integers(5, 40), rng.uniform(0.5, 2)
        row, column = rng.integers(40, SIDE - 40, 2)
        inside = (rows - row) ** 2 + tall * (columns - column) ** 2 < radius**2
        mask |= inside
        logits += 2 * rng.random(dtype=np.float32) * inside
    return logits, mask


def write_sample(folder: Path, n_images: int) -> None:
    """Write maps in (0, 1) and masks of made-up images."""
    rng = np.random.default_rng(0)
    shape = (n_images, SIDE, SIDE)
    maps = np.lib.format.open_memmap(folder / "maps.npy", "w+", np.float32, shape)
    masks = np.lib.format.open_memmap(folder / "masks.npy", "w+", np.uint8, shape)
    for image in range(n_images):
        logits, masks[image] = sample_image(rng, image)
        maps[image] = 1 / (1 + np.exp(-logits))


def ours(maps: Array, masks: Array) -> Values:
    from spg_core.pixel_metrics import pixel_metrics

    result = pixel_metrics(maps, masks)
    return {"auroc": result.auroc, "ap": result.ap, "aupro": result.aupro}


def ours_two_threads(maps: Array, masks: Array) -> Values:
    from spg_core.pixel_metrics import pixel_metrics

    result = pixel_metrics(maps, masks, threads=2)
    return {"auroc": result.auroc, "ap": result.ap, "aupro": result.aupro}


def ours_clip200(maps: Array, masks: Array) -> Values:
    from spg_core.pixel_metrics import pixel_metrics

    result = pixel_metrics(maps, masks, aupro="clip200")
    return {"auroc": result.auroc, "ap": result.ap, "aupro_clip200": result.aupro}


def scikit_learn(maps: Array, masks: Array) -> Values:
    from sklearn.metrics import average_precision_score, roc_auc_score

    truth, scores = masks.ravel(), maps.ravel()
    return {
        "auroc": float(roc_auc_score(truth, scores)),
        "ap": float(average_precision_score(truth, scores)),
    }


def anomalib(maps: Array, masks: Array) -> Values:
    import torch
    from anomalib.metrics.aupro import _AUPRO  # type: ignore[import-not-found]
    from anomalib.metrics.auroc import _AUROC  # type: ignore[import-not-found]

    torch.set_num_threads(2)
    scores, truth = torch.from_numpy(maps), torch.from_numpy(masks).long()
    auroc, aupro = _AUROC(), _AUPRO(fpr_limit=0.3)
    auroc.update(scores.flatten(), truth.flatten())
    aupro.update(scores, truth)
    return {"auroc": float(auroc.compute()), "aupro": float(aupro.compute())}


def two_hundred_steps(maps: Array, masks: Array) -> Values:
    """The released AUPRO, threshold by threshold; regions are found once, in its favour."""
    from scipy.ndimage import label

    regions = []
    for one_map, mask in zip(maps, masks, strict=True):
        labels, n_regions = label(mask, structure=np.ones((3, 3)))
        regions += [one_map[labels == region] for region in range(1, n_regions + 1)]
    normal = masks == 0
    n_normal, lowest, highest = normal.sum(), maps.min(), maps.max()
    fpr, pro = [], []
    for threshold in np.arange(lowest, highest, (highest - lowest) / 200):
        fpr.append(np.logical_and(maps > threshold, normal).sum() / n_normal)
        pro.append(np.mean([np.mean(region > threshold) for region in regions]))
    x, y = np.array(fpr), np.array(pro)
    x, y = x[x < 0.3], y[x < 0.3]
    return {"aupro_clip200": float(-np.trapezoid(y, (x - x.min()) / (x.max() - x.min())))}


CONTENDERS: dict[str, tuple[str, Callable[[Array, Array], Values]]] = {
    "ours": ("ours, exact: AUROC + AP + AUPRO + F1-max, 1 thread", ours),
    "ours2": ("the same, 2 threads", ours_two_threads),
    "clip200": ("ours, clip200: AUROC + AP + AUPRO + F1-max, 1 thread", ours_clip200),
    "sklearn": ("scikit-learn: AUROC + AP", scikit_learn),
    "anomalib": ("anomalib: AUROC + AUPRO", anomalib),
    "steps": ("200 steps: AUPRO alone", two_hundred_steps),
}


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def free_gb() -> float:
    """Give the memory that a process can take now, in GB."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return float(line.split()[1]) * 1024 / 1e9
    raise OSError("/proc/meminfo has no MemAvailable")


def serve(name: str, folder: Path, memory_gib: float) -> None:
    """Run one contender each time a line arrives, and answer with one line of JSON."""
    maps = np.load(folder / "maps.npy", mmap_mode="c")
    masks = np.load(folder / "masks.npy", mmap_mode="c")
    maps, masks = np.asarray(maps), np.asarray(masks)
    CONTENDERS[name][1](maps[:2], masks[:2])  # imports and first-call costs
    float(maps.sum()), int(masks.sum())  # every page is resident before memory is measured
    if memory_gib:
        size_bytes = int(memory_gib * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (size_bytes, size_bytes))
    for _ in sys.stdin:
        before, peak, done = resident_mb(), [0.0], threading.Event()

        def watch(peak: list[float] = peak, done: threading.Event = done) -> None:
            while not done.wait(0.002):
                peak[0] = max(peak[0], resident_mb())

        watcher = threading.Thread(target=watch)
        watcher.start()
        start, cpu_start, calls = time.perf_counter(), time.process_time(), 0
        failure, values = None, {}
        try:
            while not calls or time.perf_counter() - start < MIN_SECONDS:
                values = CONTENDERS[name][1](maps, masks)
                calls += 1
        except (MemoryError, RuntimeError) as error:  # torch raises RuntimeError for memory
            failure = str(error).splitlines()[0][:120]
        seconds = (time.perf_counter() - start) / max(calls, 1)
        cpu_seconds = (time.process_time() - cpu_start) / max(calls, 1)
        done.set()
        watcher.join()
        answer = {"seconds": seconds, "cpu": cpu_seconds, "extra_mb": peak[0] - before}
        print(json.dumps(answer | {"values": values, "failure": failure}), flush=True)


def race(args: argparse.Namespace, folder: Path, rounds: dict[str, int]) -> Answers:
    """Let the contenders take turns; each runs its own number of rounds."""
    workers = {}
    for name in rounds:
        python = args.anomalib_python if name == "anomalib" else sys.executable
        command = [python, "-W", "ignore", __file__, "--serve", name, "--folder", str(folder)]
        command += ["--memory-gib", str(args.memory_gib)]
        workers[name] = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
    answers: Answers = {name: [] for name in workers}
    for turn in range(max(rounds.values())):
        for name, worker in workers.items():
            if turn >= rounds[name] or any(answer["failure"] for answer in answers[name]):
                continue
            assert worker.stdin is not None
            assert worker.stdout is not None
            print("go", file=worker.stdin, flush=True)
            line = worker.stdout.readline()
            answers[name].append(json.loads(line) if line else {"failure": "process died"})
            print(name, answers[name][-1], file=sys.stderr, flush=True)
    for worker in workers.values():
        worker.communicate()
    return answers


def plan(
    args: argparse.Namespace, n_images: int, smaller: tuple[int, Answers] | None
) -> tuple[dict[str, int], Answers]:
    """Give the rounds of each contender that is to run, and for the others why not.

    Args:
        args: as given.
        n_images: how many there are this time.
        smaller: how many there were last time, and what was measured then.
    """
    rounds, left_out = dict.fromkeys(args.contenders, args.rounds), {}
    for name in args.contenders:
        answers = smaller[1].get(name) if smaller is not None else None
        if smaller is None or not answers:
            continue
        if answers[-1]["failure"]:
            left_out[name] = [{"failure": f"not run: not even with {smaller[0]} images"}]
            del rounds[name]
            continue
        growth = n_images / smaller[0]
        needed_gb = max(answer["extra_mb"] for answer in answers) * growth / 1e3
        # Processes stay in memory between their turns, but what they took for a call is given back.
        # The maps and masks of this size are shared by all.
        free = min(free_gb(), args.free_gb) - n_images * SIDE * SIDE * 5 / 1e9
        if needed_gb > free:
            left_out[name] = [
                {"failure": f"not run: would need {needed_gb:.1f} GB of {free:.1f} GB free"}
            ]
            del rounds[name]
        elif min(answer["seconds"] for answer in answers) * growth > 60 * args.minutes:
            rounds[name] = 1
    return rounds, left_out


def table(answers: Answers, n_images: int) -> str:
    lines = [
        f"{n_images} maps of {SIDE} x {SIDE}, median of interleaved rounds:",
        "",
        "| | rounds | seconds | times ours | CPU s | times ours | peak extra MB "
        "| AUROC | AP | AUPRO exact | AUPRO clip200 |",
        "|---|--:|--:|--:|--:|--:|--:|---|---|---|---|",
    ]
    for name, rows in answers.items():
        if rows[-1]["failure"]:
            lines.append(f"| {CONTENDERS[name][0]} | 0 | {rows[-1]['failure']} |{' |' * 8}")
            continue
        timings = []
        for clock in ("seconds", "cpu"):
            mine = statistics.median(row[clock] for row in answers["ours"])
            median = statistics.median(row[clock] for row in rows)
            timings.append(f"{median:.3f} | {median / mine:.1f}")
        extra_mb = max(row["extra_mb"] for row in rows)
        values = rows[-1]["values"]
        cells = [
            f"{values[key]:.7f}" if key in values else ""
            for key in ("auroc", "ap", "aupro", "aupro_clip200")
        ]
        lines.append(
            f"| {CONTENDERS[name][0]} | {len(rows)} | {' | '.join(timings)} | {extra_mb:.0f} | "
            + " | ".join(cells)
            + " |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[100], help="ascending")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--anomalib-python", help="an interpreter that can import anomalib")
    parser.add_argument("--memory-gib", type=float, default=0, help="limit a process; 0 is none")
    parser.add_argument("--free-gb", type=float, default=float("inf"), help="take at most so much")
    parser.add_argument("--minutes", type=float, default=2, help="run once what takes longer")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.serve, args.folder, args.memory_gib)
        return
    if not args.anomalib_python:
        args.contenders = [name for name in args.contenders if name != "anomalib"]
        print("anomalib is left out: no --anomalib-python", file=sys.stderr)
    if "ours" not in args.contenders:
        args.contenders.insert(0, "ours")
    smaller = None
    for n_images in sorted(args.images):
        rounds, left_out = plan(args, n_images, smaller)
        with tempfile.TemporaryDirectory() as folder:
            write_sample(Path(folder), n_images)
            answers = race(args, Path(folder), rounds)
        ordered = {name: (answers | left_out)[name] for name in args.contenders}
        print(table(ordered, n_images) + "\n", flush=True)
        smaller = n_images, answers | left_out


if __name__ == "__main__":
    main()

"""Time shuffled epochs of tokens from warm local disk: ours, public loaders, a gather in RAM.

    python -m benchmarks.reading [--images 704] [--memory-mb 256] [--rounds 5] [--folder DIR]

704 images of 784 x 1024 float16 are 1.13 GB; a batch is 12,544 tokens. The tokens are sorted by
category, with an offset a category, another an image, and neighbours that resemble each other. The
roof is `torch.index_select` from RAM, the random indices known beforehand: into a new array each
step, so that whoever gets a batch may keep it, as with all others here; and into one and the same.

Ours runs in order `tokens`: resident (all tokens fit), and with `--memory-mb` only. Peers store an
image a sample and shuffle as they do; their images then fill a pool of `--memory-mb`, whose tokens
are permuted and cut into batches. `whole images` is the same without the pool, 16 images a batch;
`runs` is the pool with samples of 7 tokens instead of images, which is what a VIF like ours takes.

VIF is the variance of batch means as a multiple of what independent draws of tokens would give,
over the first 64 dimensions, from an epoch that is not timed; 1 is ideal. Every round runs all
contenders in turning order; figures are medians. `x gather` compares seconds, `cpu x gather` the
processor seconds of all threads and child processes, which a busy machine disturbs less. A first
epoch, which also reads the files and checks their CRCs, is timed once. Memory is the growth of a
process's anonymous memory in an epoch.

Peers are installed without their dependencies, whose pins clash with ours, into an environment of
their own that sees this one's packages:

    pip install --no-deps datasets litdata mosaicml-streaming webdataset huggingface-hub
    pip install --no-deps transformers tokenizers sentencepiece brotli python-snappy cramjam zstd \\
        catalogue braceexpand xxhash dill multiprocess

Those that do not import are left out.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.reading_peers import PEERS, Maker
from cache.layout import IMAGES_PER_SHARD, Geometry
from cache.order import EpochOrder
from cache.reader import TokenCache, open_cache
from cache.store import open_store
from cache.stream import token_batches
from cache.writer import CacheWriter

PATCHES, DIM, BATCH = 784, 1024, 12_544
CATEGORIES = 15
VIF_DIMS = 64
RUN_TOKENS = 7
NO_RUNS = ("zarr-python + DataLoader",)
"""A chunk of 14 kB costs zarr-python as much time as one of 1.6 MB."""
THREADS = 2

Tokens = NDArray[np.float16]
Batches = Callable[[int], Iterator[Tokens]]
"""epoch -> batches `(n, dim)`."""


def make_tokens(n_images: int) -> Tokens:
    """Tokens `(image, patch, dim)` whose neighbours correlate by 0.8, sorted by category."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((IMAGES_PER_SHARD, PATCHES, DIM), np.float32) * 0.6
    for patch in range(1, PATCHES):
        noise[:, patch] += 0.8 * noise[:, patch - 1]
    offsets = 0.3 * rng.standard_normal((CATEGORIES, DIM), np.float32)
    tokens = np.empty((n_images, PATCHES, DIM), np.float16)
    for image in range(n_images):
        own = 0.3 * rng.standard_normal(DIM, np.float32)
        offset = offsets[image * CATEGORIES // n_images]
        tokens[image] = noise[image % IMAGES_PER_SHARD] + own + offset
    return tokens


def make_cache(folder: Path, tokens: Tokens) -> None:
    geometry = Geometry(
        n_images=len(tokens), tokens_per_image=PATCHES, d_model=DIM, has_cls=False, mask_size=None
    )
    writer = CacheWriter(open_store(folder), "made", "up", {"format": 1}, geometry)
    for shard in range(geometry.n_shards):
        rows = writer.shard_rows(shard)
        writer.write_shard(shard, tokens[rows.start : rows.stop])
    writer.finish(b"no manifest is read here")


def roof(tokens: Tokens, *, one_array: bool) -> Batches:
    flat = torch.from_numpy(tokens.reshape(-1, DIM))
    indices = torch.from_numpy(EpochOrder(len(flat), 0, 0, "tokens").between(0, len(flat)))
    out = torch.empty(BATCH, DIM, dtype=torch.float16)

    def epoch(_: int) -> Iterator[Tokens]:
        for start in range(0, len(indices), BATCH):
            chosen = indices[start : start + BATCH]
            target = out[: len(chosen)] if one_array else None
            yield torch.index_select(flat, 0, chosen, out=target).numpy()

    return epoch


def ours(cache: TokenCache, memory_bytes: int) -> Batches:
    return lambda epoch: token_batches(
        cache,
        order="tokens",
        batch=BATCH,
        seed=0,
        epoch=epoch,
        memory_bytes=memory_bytes,
        threads=THREADS,
    )


def pooled(samples: Batches, buffer: torch.Tensor) -> Batches:
    """Mix the tokens of some of a peer's samples at a time."""
    filled = buffer.numpy()

    def drain(n: int, generator: torch.Generator) -> Iterator[Tokens]:
        order = torch.randperm(n, generator=generator)
        for start in range(0, n, BATCH):
            yield torch.index_select(buffer, 0, order[start : start + BATCH]).numpy()

    def epoch(number: int) -> Iterator[Tokens]:
        generator, n = torch.Generator().manual_seed(number), 0
        for sample in samples(number):
            filled[n : n + len(sample)] = sample
            n += len(sample)
            if n + len(sample) > len(buffer):
                yield from drain(n, generator)
                n = 0
        yield from drain(n, generator)

    return epoch


def whole_images(images: Batches) -> Batches:
    """Stack a peer's images as they come, 16 a batch."""

    def epoch(number: int) -> Iterator[Tokens]:
        waiting: list[Tokens] = []
        for image in images(number):
            waiting.append(image)
            if len(waiting) * PATCHES == BATCH:
                yield np.concatenate(waiting)
                waiting = []
        if waiting:
            yield np.concatenate(waiting)

    return epoch


def seconds(batches: Batches, epoch: int) -> tuple[float, float]:
    """Time an epoch, on the clock and on the processors; a number of each batch is used."""
    start, used = time.perf_counter(), sum(os.times()[:4])
    for batch in batches(epoch):
        float(batch[-1, -1])
    return time.perf_counter() - start, sum(os.times()[:4]) - used


def vif(batches: Batches, tokens: Tokens) -> float:
    """Variance of full batches' means over that of independent draws; 64 dimensions."""
    some = tokens.reshape(-1, DIM)[:, :VIF_DIMS].astype(np.float32)
    means = [
        batch[:, :VIF_DIMS].mean(axis=0, dtype=np.float32)
        for batch in batches(1)
        if len(batch) == BATCH
    ]
    spread = np.mean((np.stack(means) - some.mean(axis=0)) ** 2, axis=0)
    return float(np.mean(spread) / np.mean(some.var(axis=0) / BATCH))


def anonymous_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no RssAnon: this needs Linux")


def print_peak(folder: Path, memory_bytes: int) -> None:
    """In a process of its own: print by how much an epoch makes its memory grow."""
    cache = open_cache(open_store(folder), "made", "up")
    before, peak, ended = anonymous_bytes(), 0, Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.005):
            peak = max(peak, anonymous_bytes())

    thread = Thread(target=watch)
    thread.start()
    for _ in ours(cache, memory_bytes)(0):
        pass
    ended.set()
    thread.join()
    print(peak - before)


def measured_peak(folder: Path, memory_bytes: int) -> int:
    line = [sys.executable, "-m", "benchmarks.reading"]
    line += ["--peak-of", str(folder), "--memory-mb", str(memory_bytes / 1e6)]
    return int(subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True).stdout)


def main(place: Path, n_images: int, memory_bytes: int, rounds: int) -> None:
    torch.set_num_threads(THREADS)
    tokens = make_tokens(n_images)
    make_cache(place / "store", tokens)
    cache = open_cache(open_store(place / "store"), "made", "up")
    # One pool for all: they take turns.
    pool_images = max(1, memory_bytes // tokens[0].nbytes)
    pool = torch.empty(pool_images * PATCHES, DIM, dtype=torch.float16)
    contenders = {
        "gather in RAM": roof(tokens, one_array=False),
        "gather in RAM, into one array": roof(tokens, one_array=True),
        "ours, all in memory": ours(cache, 1 << 60),
        "ours, bounded": ours(cache, memory_bytes),
    }
    first = {name: seconds(contenders[name], 0)[0] for name in contenders if "ours" in name}
    for name, maker in PEERS.items():
        try:
            contenders |= peer(name, maker, place, tokens, pool)
        except ImportError as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
    peaks = {
        "ours, all in memory": measured_peak(place / "store", 1 << 60),
        "ours, bounded": measured_peak(place / "store", memory_bytes),
    }
    taken = interleaved(contenders, rounds)
    vifs = {name: vif(batches, tokens) for name, batches in contenders.items()}
    report(taken, vifs, first, peaks, tokens.size // DIM)


def peer(
    name: str, maker: Maker, place: Path, tokens: Tokens, pool: torch.Tensor
) -> dict[str, Batches]:
    """Write the tokens as a peer does, once an image a sample and once 7 tokens a sample."""
    found = {}
    pool_images = len(pool) // PATCHES
    images = maker(fresh(place), tokens, pool_images)
    found[f"{name}, pool"] = pooled(images, pool)
    found[f"{name}, whole images"] = whole_images(images)
    if name not in NO_RUNS:
        runs = tokens.reshape(-1, RUN_TOKENS, DIM)
        samples = maker(fresh(place), runs, pool_images * PATCHES // RUN_TOKENS)
        found[f"{name}, runs"] = pooled(samples, pool)
    return found


def fresh(place: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=place))


def interleaved(
    contenders: dict[str, Batches], rounds: int
) -> dict[str, list[tuple[float, float]]]:
    names = list(contenders)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for number in range(rounds + 1):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            took = seconds(contenders[name], number)
            if number:  # the first round warms up
                taken[name].append(took)
    return taken


def report(
    taken: dict[str, list[tuple[float, float]]],
    vifs: dict[str, float],
    first: dict[str, float],
    peaks: dict[str, int],
    n_tokens: int,
) -> None:
    base = taken["gather in RAM"]
    print(
        "| epoch | Mtok/s, median | worst to best | x gather | cpu x gather | VIF | first epoch "
        "| memory |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name, times in taken.items():
        rates = sorted(n_tokens / clock / 1e6 for clock, _ in times)
        pairs = list(zip(base, times, strict=True))
        ratio, cpu = (statistics.median(a[i] / max(b[i], 1e-3) for a, b in pairs) for i in (0, 1))
        once = f"{n_tokens / first[name] / 1e6:.2f}" if name in first else ""
        memory = f"{peaks[name] / 1e6:.0f} MB" if name in peaks else ""
        print(
            f"| {name} | {statistics.median(rates):.2f} | {rates[0]:.2f} to {rates[-1]:.2f} | "
            f"{ratio:.2f} | {cpu:.2f} | {vifs[name]:.2f} | {once} | {memory} |"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=704)
    parser.add_argument("--memory-mb", type=float, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to write; a temporary one otherwise")
    parser.add_argument("--peak-of", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    allowed = int(asked.memory_mb * 1e6)
    if asked.peak_of:
        print_peak(asked.peak_of, allowed)
    else:
        with tempfile.TemporaryDirectory(dir=asked.folder) as scratch:
            main(Path(scratch), asked.images, allowed, asked.rounds)

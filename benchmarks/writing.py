"""Time writing whole shards of tokens with all digests beside np.save and zarr-python.

    python -m benchmarks.writing [--folder DIR] [--shards 4] [--rounds 7]

A shard is 64 images of 784 x 1024 float16, 103 MB. Ours checks the values, takes CRC-32C a chunk
and SHA-256, fsyncs and publishes by link(2); so the fair neighbour is np.save with fsync: np.save
alone leaves data in the page cache. Every round runs all contenders, in turning order; a
figure is the median of the rounds, a ratio the median of the rounds' ratios. In `/dev/shm` fsync
costs nothing, and what is left is the work of the processor.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import zarr
from numpy.typing import NDArray

from cache.layout import IMAGES_PER_SHARD, Geometry
from cache.store import open_store
from cache.writer import CacheWriter

PATCHES, DIM = 784, 1024
Tokens = NDArray[np.float16]
Write = Callable[[Path, list[Tokens]], None]


def ours(folder: Path, shards: list[Tokens]) -> None:
    geometry = Geometry(
        n_images=IMAGES_PER_SHARD * len(shards),
        tokens_per_image=PATCHES,
        d_model=DIM,
        has_cls=False,
        mask_size=None,
    )
    writer = CacheWriter(open_store(folder), "random", "normal", {"format": 1}, geometry)
    for shard, tokens in enumerate(shards):
        writer.write_shard(shard, tokens)


def np_save(folder: Path, shards: list[Tokens]) -> None:
    for shard, tokens in enumerate(shards):
        np.save(folder / f"{shard}.npy", tokens)


def np_save_fsync(folder: Path, shards: list[Tokens]) -> None:
    for shard, tokens in enumerate(shards):
        with (folder / f"{shard}.npy").open("wb") as file:
            np.save(file, tokens)
            file.flush()
            os.fsync(file.fileno())


def zarr_python(folder: Path, shards: list[Tokens]) -> None:
    array = zarr.create_array(
        folder / "tokens.zarr",
        shape=(IMAGES_PER_SHARD * len(shards), PATCHES, DIM),
        shards=(IMAGES_PER_SHARD, PATCHES, DIM),
        chunks=(1, PATCHES, DIM),
        dtype="float16",
        compressors=None,
    )
    for shard, tokens in enumerate(shards):
        array[shard * IMAGES_PER_SHARD : (shard + 1) * IMAGES_PER_SHARD] = tokens


CONTENDERS: dict[str, Write] = {
    "ours, digests, fsync": ours,
    "np.save": np_save,
    "np.save, fsync": np_save_fsync,
    "zarr-python, sharded": zarr_python,
}


def seconds(write: Write, place: Path, shards: list[Tokens]) -> float:
    """Time one contender in a fresh folder, with nothing of others left to be written back."""
    os.sync()
    folder = Path(tempfile.mkdtemp(dir=place))
    start = time.perf_counter()
    write(folder, shards)
    took = time.perf_counter() - start
    shutil.rmtree(folder)
    return took


def main(place: Path, n_shards: int, rounds: int) -> None:
    rng = np.random.default_rng(0)
    shape = (IMAGES_PER_SHARD, PATCHES, DIM)
    shards = [rng.standard_normal(shape, np.float32).astype(np.float16) for _ in range(n_shards)]
    names = list(CONTENDERS)
    taken: dict[str, list[float]] = {name: [] for name in names}
    for round_number in range(rounds + 1):
        turn = round_number % len(names)
        for name in names[turn:] + names[:turn]:
            took = seconds(CONTENDERS[name], place, shards)
            if round_number:  # the first round warms up
                taken[name].append(took)
    size = sum(shard.nbytes for shard in shards)
    print(f"{n_shards} shards of {size / n_shards / 1e6:.0f} MB, {rounds} rounds, in {place}\n")
    print("| write | GB/s, median | worst to best | x np.save | x np.save, fsync |")
    print("|---|---|---|---|---|")
    for name, times in taken.items():
        rates = sorted(size / t / 1e9 for t in times)
        ratios = [
            statistics.median(a / b for a, b in zip(taken[base], times, strict=True))
            for base in ("np.save", "np.save, fsync")
        ]
        print(
            f"| {name} | {statistics.median(rates):.2f} | {rates[0]:.2f} to {rates[-1]:.2f} | "
            f"{ratios[0]:.2f} | {ratios[1]:.2f} |"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    asked = parser.parse_args()
    main(asked.folder, asked.shards, asked.rounds)

"""A shard that is cut while it is mapped: one line that names it, and nothing half made."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.small_store import SmallStore

RUN = """
import os
from cache.open_shards import OpenShards
from pipeline.cli import main

mapped = OpenShards._open

def cut_afterwards(shards, array, shard):
    found = mapped(shards, array, shard)
    os.truncate(os.environ["CUT"], int(os.environ["TO"]))  # as `rsync --inplace` begins
    return found

OpenShards._open = cut_afterwards
main()
"""
COMMANDS = {
    "fit-sae": ["fit-sae", "--dataset", "aux", "--backbone", "gabor", "--width", "32", "--k", "4"],
    "fit-guides": ["fit-guides", "--sae", "latest", "--seed", "7"],
    "score": ["score", "--guides", "latest", "--dataset", "target", "--tau", "0.5"],
}


def files(store: Path) -> set[str]:
    return {path.relative_to(store).as_posix() for path in store.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("command", "size"), [("fit-sae", 0), ("fit-guides", 5000), ("score", 5000)]
)
def test_a_shard_cut_under_a_reader_is_named_and_nothing_is_made(
    small_store: SmallStore, tmp_path: Path, command: str, size: int
) -> None:
    store = Path(shutil.copytree(small_store.url, tmp_path / "store"))
    dataset = "target" if command == "score" else "aux"
    (shard,) = store.glob(f"tokens/{dataset}/*/*/tokens.zarr/tokens/c/0/0/0")
    before = files(store)

    done = subprocess.run(
        [sys.executable, "-c", RUN, *COMMANDS[command], "--store", str(store)],
        env={**os.environ, "CUT": str(shard), "TO": str(size)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )

    assert done.returncode == 1, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.endswith(
        f"error: {shard} was cut while it was read; what is whole is kept. `spg-pipe cache verify` "
        "names what is damaged; read from a copy (`spg-pipe cache copy`) where others write into a "
        "store"
    )
    assert {name for name in files(store) - before if name.endswith(".json")} == set()


THREADS = """
import mmap, os, sys, threading
import numpy as np, torch
from pipeline.machine.cut_files import say_what_was_cut

say_what_was_cut()
torch.set_num_threads(2)
with open(sys.argv[1], "rb") as file:
    mapped = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.float16)
tokens, rows = mapped.reshape(-1, 1024), np.arange(0, 4096, 3)
os.truncate(sys.argv[1], 0)
work = {
    "take": lambda: np.take(tokens, rows, axis=0, out=np.empty((len(rows), 1024), np.float16),
                            mode="clip"),
    "select": lambda: torch.from_numpy(tokens).index_select(0, torch.from_numpy(rows)),
    "cast": lambda: torch.from_numpy(tokens).float(),
}[sys.argv[2]]
thread = threading.Thread(target=work)
thread.start()
while thread.is_alive():
    pass  # Python's lock is asked for by two
"""


@pytest.mark.parametrize("work", ["take", "select", "cast"])
def test_a_file_cut_under_a_thread_is_named_and_nobody_waits(tmp_path: Path, work: str) -> None:
    file = tmp_path / "shard"
    file.write_bytes(bytes(8 << 20))

    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", THREADS, str(file), work],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {file} was cut while it was read; what is whole is kept")

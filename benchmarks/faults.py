"""Kill writers at random and spoil requests at random; the finished cache must always be the same.

    python -m benchmarks.faults [--rounds 20] [--seed 0] [--stores local moto real]

A round: two writers of one cache at a time, each in its own process and with the loop of an
extraction (start anywhere, skip what others did); one of them at random is killed with SIGKILL
after a random time and a new one takes its place, two to six times; then those alive end. Every
object is then compared with a cache that one process wrote in one go. The numbers stand in for a
model, with a pause for its forward pass. `moto` is started here; `real` is the server at
$SPG_TEST_S3_ENDPOINT with the keys in AWS_* and is left out where that is not set.

A second table: one writer, one copy and one reader on S3 behind a proxy that spoils a request in
ten (`tests/faulty_proxy.py`).
"""

import argparse
import hashlib
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np

from cache.find import read_record
from cache.layout import RECORD, Geometry, receipt_name
from cache.objects import Objects
from cache.reader import open_cache
from cache.record import CacheRecord
from cache.share import copy_cache
from cache.store import open_store
from cache.verify import verify_cache
from cache.writer import CacheWriter
from tests.faulty_proxy import Fault, faulty_proxy
from tests.s3_server import BUCKET, credentials, make_bucket, moto_endpoint, real_credentials

GEOMETRY = Geometry(
    n_images=750, tokens_per_image=49, d_model=64, has_cls=True, mask_size=(112, 112)
)
"""12 shards of 0.4 MB, the last one short."""
COVERS = {"format": 1, "images": "generated", "backbone": "normal numbers"}
MANIFEST = b"PAR1 any bytes will do PAR1"
MODEL_SECONDS = 0.03
FAULTS = ("refuse", "lose", "cut", "500", "503", "slow")
SPOILT_SHARE = 0.1


def shard_arrays(shard: int) -> tuple[Any, Any, Any]:
    """Give the same numbers for the same shard, whoever asks."""
    rng = np.random.default_rng(shard)
    n = len(GEOMETRY.shard_rows(shard))
    tokens = rng.normal(size=(n, GEOMETRY.tokens_per_image, GEOMETRY.d_model))
    cls = rng.normal(size=(n, GEOMETRY.d_model))
    masks = (rng.random((n, 112, 112)) > 0.95).astype(np.uint8)
    return tokens.astype(np.float16), cls.astype(np.float16), masks


def write(url: str, log: str, environment: Mapping[str, str], seed: int) -> None:
    """Write what is missing, as an extraction does; note in the log what was done."""
    os.environ.update(environment)
    writer = CacheWriter(_noting(open_store(url), log), "numbers", "normal", COVERS, GEOMETRY)
    pending = writer.pending_shards()
    trusted = {shard for shard in pending if not _has_receipt(writer, shard)}
    start = random.Random(seed).randrange(len(pending)) if pending else 0
    for shard in pending[start:] + pending[:start]:
        if shard in trusted and (_has_receipt(writer, shard) or _is_complete(writer)):
            continue
        _note(log, f"computed {shard}")
        time.sleep(MODEL_SECONDS)
        writer.write_shard(shard, *shard_arrays(shard))
    writer.finish(MANIFEST)


def _has_receipt(writer: CacheWriter, shard: int) -> bool:
    return writer.objects.size(f"{writer.folder}/{receipt_name(shard)}") is not None


def _is_complete(writer: CacheWriter) -> bool:
    return writer.objects.size(f"{writer.folder}/{RECORD}") is not None


def _noting(objects: Objects, log: str) -> Objects:
    """Make a store note each shard's object that it published."""
    put_new = objects.put_new

    def noted(name: str, parts: Sequence[Any], approve: Callable[[], object] | None = None) -> bool:
        published = put_new(name, parts, approve)
        if published and "/c/" in name:
            _note(log, f"published {name}")
        return published

    objects.put_new = noted  # type: ignore[method-assign]
    return objects


def _note(log: str, line: str) -> None:
    with Path(log).open("a") as file:  # one short write to the end: whole lines, also of two
        file.write(line + "\n")


@dataclass
class Tally:
    """What the rounds on one store gave."""

    rounds: int = 0
    kills: int = 0
    computed: int = 0
    published_twice: int = 0
    same: int = 0
    seconds: float = 0.0


def kill_rounds(url: str, environment: dict[str, str], rounds: int, seed: int) -> Tally:
    reference, whole_seconds = one_go(url, environment)
    chance, tally = random.Random(seed), Tally()
    for _ in range(rounds):
        start = time.perf_counter()
        place = f"{url}/{uuid.uuid4()}"
        with tempfile.TemporaryDirectory() as scratch:
            log = f"{scratch}/log"
            kills = _killed_writers(place, log, environment, chance, whole_seconds)
            lines = Counter(Path(log).read_text().splitlines())
        tally.rounds += 1
        tally.kills += kills
        tally.computed += sum(n for line, n in lines.items() if line.startswith("computed"))
        tally.published_twice += sum(
            n - 1 for line, n in lines.items() if line.startswith("published")
        )
        tally.same += digests(open_store(place)) == reference
        tally.seconds += time.perf_counter() - start
        print(".", end="", flush=True, file=sys.stderr)
    return tally


def one_go(url: str, environment: dict[str, str]) -> tuple[dict[str, str], float]:
    """Write the cache undisturbed; give its digests and the seconds it took."""
    place = f"{url}/{uuid.uuid4()}"
    start = time.perf_counter()
    write(place, os.devnull, environment, seed=0)
    return digests(open_store(place)), time.perf_counter() - start


def _killed_writers(
    place: str, log: str, environment: dict[str, str], chance: random.Random, whole_seconds: float
) -> int:
    """Let writers come and be killed; at the end let the last ones finish. Gives the kills."""
    kills = 0
    living = [_start(place, log, environment, chance) for _ in range(2)]
    for _ in range(chance.randint(2, 6)):
        time.sleep(chance.uniform(0, whole_seconds / 2))
        victim = living.pop(chance.randrange(2))
        victim.kill()
        victim.join()
        kills += victim.exitcode == -signal.SIGKILL
        living.append(_start(place, log, environment, chance))
    for writer in living:
        writer.join()
        if writer.exitcode != 0:
            raise RuntimeError(f"a writer that was left alone ended with {writer.exitcode}")
    return kills


def _start(place: str, log: str, environment: dict[str, str], chance: random.Random) -> BaseProcess:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cache.reader", "cache.share", "cache.writer", "moto.server"])
    process = context.Process(target=write, args=(place, log, environment, chance.getrandbits(32)))
    process.start()
    return process


def digests(store: Objects) -> dict[str, str]:
    """SHA-256 of every object, and of what the record says apart from times and versions."""
    found = {}
    for info in [*store.walk(""), *store.temporaries("")]:
        if info.name.rpartition("/")[2] == RECORD:
            folder = info.name.rpartition("/")[0]
            data = repr(_content(read_record(store, folder))).encode()
        elif info.name.rpartition("/")[2].startswith(".tmp-"):
            continue  # what killed writers leave; swept after a day
        else:
            data = store.get(info.name)
        found[info.name] = hashlib.sha256(data).hexdigest()
    return found


def _content(record: CacheRecord) -> tuple[Any, ...]:
    return record.key, record.covers, record.receipts, record.manifest_sha256


def spoilt_rounds(environment: dict[str, str], seed: int) -> Iterator[str]:
    """Yield a table row a fault: writing, copying and reading through the proxy."""
    chance = random.Random(seed)
    for fault in (None, *FAULTS):
        seen: Counter[str] = Counter()

        def choose(number: int, method: str, path: str, fault: Fault = fault) -> Fault:
            seen["requests"] += 1  # noqa: B023 - used within the same round
            if fault is None or chance.random() >= SPOILT_SHARE:
                return None
            if fault == "cut" and method != "GET":
                return None
            seen["spoilt"] += 1  # noqa: B023
            return fault

        url = f"s3://{BUCKET}/{uuid.uuid4()}"
        start = time.perf_counter()
        with faulty_proxy(environment["AWS_ENDPOINT_URL"], choose) as proxy:
            sound = _through(url, {**environment, "AWS_ENDPOINT_URL": proxy})
        seconds = time.perf_counter() - start
        os.environ.update(environment)
        folder = _folder()
        sound = sound and verify_cache(open_store(url), folder).is_sound
        result = "same bytes" if sound else "DIFFERS"
        name = fault or "none"
        yield f"| {name} | {seen['requests']} | {seen['spoilt']} | {seconds:.1f} | {result} |"


def _through(url: str, environment: dict[str, str]) -> bool:
    """Write, read and copy through the proxy; tell whether numbers and digests are right."""
    write(url, os.devnull, environment, seed=0)
    store, folder = open_store(url), _folder()
    with tempfile.TemporaryDirectory() as scratch:
        cache = open_cache(store, "numbers", "normal", mirror_folder=Path(scratch) / "mirror")
        tokens = cache.tokens(slice(None))
        expected = [shard_arrays(shard)[0] for shard in range(GEOMETRY.n_shards)]
        copy_cache(store, open_store(f"{scratch}/copy"), folder)
        copied = verify_cache(open_store(f"{scratch}/copy"), folder).is_sound
        return copied and bool(np.array_equal(tokens, np.concatenate(expected)))


def _folder() -> str:
    return CacheWriter(open_store("unused"), "numbers", "normal", COVERS, GEOMETRY).folder


@contextmanager
def server(name: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Give the URL of an empty store, and the environment that opens it."""
    match name:
        case "local":
            with tempfile.TemporaryDirectory() as folder:
                yield folder, {}
            return
        case "moto":
            environment = credentials(moto_endpoint())
        case "real":
            environment = real_credentials()
        case _:
            raise ValueError(f"stores are local, moto and real, got {name!r}")
    make_bucket(environment, BUCKET)
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        yield f"s3://{BUCKET}/{uuid.uuid4()}", environment
    finally:
        os.environ.clear()
        os.environ.update(before)


def main(arguments: argparse.Namespace) -> None:
    names = [n for n in arguments.stores if n != "real" or "SPG_TEST_S3_ENDPOINT" in os.environ]
    rows = []
    for name in names:
        with server(name) as (url, environment):
            tally = kill_rounds(url, environment, arguments.rounds, arguments.seed)
        again = tally.computed / (tally.rounds * GEOMETRY.n_shards) - 1
        rows.append(
            f"| {name} | {tally.rounds} | {tally.kills} | {tally.rounds * GEOMETRY.n_shards} | "
            f"{again:.0%} | {tally.published_twice} | {tally.seconds / tally.rounds:.1f} | "
            f"{tally.same} of {tally.rounds} |"
        )
    print(
        "\n| store | rounds | kills | shards | computed again | objects published twice | s a "
        "round | same digests |\n|---|---|---|---|---|---|---|---|"
    )
    print("\n".join(rows))
    for name in names:
        if name == "local":
            continue
        print(f"\n| {name}: fault | requests | spoilt | seconds | result |\n|---|---|---|---|---|")
        with server(name) as (_, environment):
            for row in spoilt_rounds(environment, arguments.seed):
                print(row, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stores", nargs="+", default=["local", "moto", "real"])
    main(parser.parse_args())

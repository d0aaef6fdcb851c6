"""Caches on S3: written exactly once, mirrored once, checked on the way."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from cache.find import find_caches
from cache.mirror import default_mirror_folder
from cache.objects import Objects
from cache.reader import TokenCache, open_cache
from cache.store import open_store
from cache.stream import token_batches
from cache.verify import verify_cache
from cache.zarr_access import as_dask_array, open_zarr
from spg_core.errors import CorruptStore, StoreError
from tests.cache_samples import (
    MANIFEST_BYTES,
    Sample,
    make_sample,
    new_writer,
    write_cache,
    write_pending,
)
from tests.s3_server import s3_url  # noqa: F401 - the fixture

SAMPLE = make_sample()


@pytest.fixture
def remote(s3_url: str) -> Objects:  # noqa: F811
    return open_store(s3_url)


class Counted:
    """A store that counts what is read from it."""

    def __init__(self, objects: Objects) -> None:
        self.inner = objects
        self.got: list[str] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def get(self, name: str, max_bytes: int = 1 << 30) -> bytes:
        self.got.append(name)
        return self.inner.get(name, max_bytes)


def mirrored(objects: Objects, folder: Path, limit: int | None = None) -> TokenCache:
    return open_cache(objects, "visa", "gabor", mirror_folder=folder, mirror_bytes=limit)


def test_a_cache_on_s3_is_that_on_disk(remote: Objects, tmp_path: Path) -> None:
    local = open_store(tmp_path / "store")
    folder = write_cache(local, SAMPLE).folder

    write_cache(remote, SAMPLE)

    assert [info.state for info in find_caches(remote)] == ["complete"]
    assert [info.name for info in remote.walk("")] == [info.name for info in local.walk("")]
    for info in local.walk(""):
        if not info.name.endswith("cache.json"):
            assert remote.get(info.name) == local.get(info.name)
    assert verify_cache(remote, folder).is_sound
    assert list(remote.temporaries("")) == []


def test_an_interrupted_cache_on_s3_is_resumed(remote: Objects) -> None:
    writer = new_writer(remote, SAMPLE)
    assert SAMPLE.cls is not None
    assert SAMPLE.masks is not None
    writer.write_shard(1, SAMPLE.tokens[64:128], SAMPLE.cls[64:128], SAMPLE.masks[64:128])
    remote.delete(f"{writer.folder}/receipts/00001.json")

    write_pending(new_writer(remote, SAMPLE), SAMPLE)
    new_writer(remote, SAMPLE).finish(MANIFEST_BYTES)

    assert verify_cache(remote, writer.folder).is_sound


def test_writers_that_race_on_s3_both_end_well(remote: Objects) -> None:
    samples: list[Sample] = [make_sample(seed=seed) for seed in (1, 2)]
    barrier = threading.Barrier(2)
    failed: list[BaseException] = []

    def meet(_: int) -> None:
        barrier.wait(30)

    def run(sample: Sample) -> None:
        try:
            writer = new_writer(open_store(remote.where), sample)
            write_pending(writer, sample, before_each=meet)
            writer.finish(MANIFEST_BYTES)
        except BaseException as error:  # noqa: BLE001 - told to the test
            failed.append(error)

    threads = [threading.Thread(target=run, args=(sample,)) for sample in samples]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failed == []
    assert verify_cache(remote, find_caches(remote)[0].folder).is_sound


def test_a_remote_cache_is_fetched_once(remote: Objects, tmp_path: Path) -> None:
    write_cache(remote, SAMPLE)
    counted = Counted(remote)
    first = mirrored(counted, tmp_path)  # type: ignore[arg-type]

    for epoch in range(3):
        for _ in token_batches(first, order="tokens", batch=64, seed=0, epoch=epoch):
            pass
    np.testing.assert_array_equal(first.masks([3, 149]), SAMPLE.masks[[3, 149]])  # type: ignore[index]

    shards = [name for name in counted.got if "/c/" in name]
    assert len(shards) == len(set(shards)) == 3 + 2

    counted.got.clear()
    second = mirrored(counted, tmp_path)  # type: ignore[arg-type]
    np.testing.assert_array_equal(second.tokens(slice(None)), SAMPLE.tokens)
    assert not [name for name in counted.got if "/c/" in name]


def test_read_ahead_fetches_the_next_shards(remote: Objects, tmp_path: Path) -> None:
    write_cache(remote, SAMPLE)
    cache = mirrored(remote, tmp_path)
    assert cache.mirror is not None

    cache.read_ahead([0, 1, 2])
    cache.tokens([0])
    for shard in (1, 2):
        cache.mirror.fetch(f"tokens.zarr/tokens/c/{shard}/0/0")

    assert len(list(tmp_path.rglob("tokens.zarr_tokens_c_*"))) == 3


def test_wrong_bytes_are_not_mirrored(remote: Objects, tmp_path: Path) -> None:
    folder = write_cache(remote, SAMPLE).folder
    name = f"{folder}/tokens.zarr/tokens/c/1/0/0"
    data = bytearray(remote.get(name))
    data[7] ^= 1
    remote.replace(name, [bytes(data)])
    remote.delete(f"{folder}/tokens.zarr/tokens/c/2/0/0")
    cache = mirrored(remote, tmp_path)

    np.testing.assert_array_equal(cache.tokens([0]), SAMPLE.tokens[[0]])
    with pytest.raises(
        CorruptStore, match=r"c/1/0/0 is not what was written; 1 image.* spoilt: 64"
    ):
        cache.tokens([64])
    with pytest.raises(CorruptStore, match=r"c/2/0/0 \(images 128 to 149\).*missing from a comp"):
        cache.tokens([149])
    assert len(list(tmp_path.rglob("tokens.zarr_*"))) == 1


def test_a_damaged_mirror_is_noticed_and_named(remote: Objects, tmp_path: Path) -> None:
    write_cache(remote, SAMPLE)
    mirrored(remote, tmp_path).tokens([0])
    (copy,) = tmp_path.rglob("tokens.zarr_tokens_c_0_0_0")
    data = bytearray(copy.read_bytes())
    data[0] ^= 1
    copy.write_bytes(data)

    with pytest.raises(CorruptStore, match=f"image row 0 do not match.*local copy is {copy}"):
        mirrored(remote, tmp_path).tokens([0])


def test_a_cache_beyond_the_cap_is_refused_before_the_first_fetch(
    remote: Objects, tmp_path: Path
) -> None:
    write_cache(remote, SAMPLE)
    limit = 10_000

    with pytest.raises(StoreError, match=rf"needs \d+ bytes beside the 0 in .* cap is {limit}; ra"):
        mirrored(remote, tmp_path, limit).tokens([0])
    assert list(tmp_path.iterdir()) == []


def test_a_remote_cache_opens_as_zarr_and_dask(remote: Objects, tmp_path: Path) -> None:
    write_cache(remote, SAMPLE)
    cache = mirrored(remote, tmp_path)

    np.testing.assert_array_equal(open_zarr(cache)["tokens"][60:70], SAMPLE.tokens[60:70])
    np.testing.assert_array_equal(as_dask_array(cache)[60:70].compute(), SAMPLE.tokens[60:70])


def test_an_edited_record_on_s3_is_named(remote: Objects, tmp_path: Path) -> None:
    name = f"{write_cache(remote, SAMPLE).folder}/cache.json"
    body = json.loads(remote.get(name))
    body["created"] = "yesterday"
    remote.replace(name, [json.dumps(body).encode()])

    with pytest.raises(CorruptStore, match=r"s3://.*/cache\.json: its digest does not match"):
        mirrored(remote, tmp_path)


def test_the_mirror_lives_in_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_mirror_folder() == Path("/somewhere/spg-pipe/mirror")

    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_mirror_folder() == Path.home() / ".cache/spg-pipe/mirror"


def test_a_user_without_a_home_is_told_where_a_mirror_could_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", no_home)

    with pytest.raises(StoreError, match=r"nowhere to mirror .*; set HOME or XDG_CACHE_HOME"):
        default_mirror_folder()


def test_what_another_process_is_about_to_rename_in_a_mirror_may_vanish(
    remote: Objects, tmp_path: Path
) -> None:
    write_cache(remote, SAMPLE)
    cache = mirrored(remote, tmp_path)
    assert cache.mirror is not None
    cache.mirror.folder.mkdir()
    # A name that is listed and is gone when it is looked at.
    (cache.mirror.folder / ".tmp-1").symlink_to("renamed meanwhile")

    np.testing.assert_array_equal(cache.tokens([0]), SAMPLE.tokens[[0]])


def test_a_mirror_that_cannot_be_made_is_an_error_that_names_it(
    remote: Objects, tmp_path: Path
) -> None:
    write_cache(remote, SAMPLE)
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(StoreError, match=rf"cannot write {tmp_path}/file/.*Not a directory"):
        mirrored(remote, tmp_path / "file").tokens([0])


def test_readers_that_share_a_mirror_get_the_same_shards(remote: Objects, tmp_path: Path) -> None:
    write_cache(remote, SAMPLE)
    caches = [mirrored(remote, tmp_path) for _ in range(4)]

    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda cache: cache.tokens(slice(None)), caches):
            np.testing.assert_array_equal(found, SAMPLE.tokens)
    assert not list(tmp_path.rglob(".tmp-*"))

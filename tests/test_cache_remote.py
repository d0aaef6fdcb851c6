"""Caches on S3: written exactly once, mirrored once, checked on the way."""

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import numpy as np
import pytest

from cache.find import find_caches, survey
from cache.gc import find_garbage
from cache.mirror import default_mirror_folder
from cache.objects import Objects
from cache.reader import TokenCache, open_cache
from cache.store import open_existing_store, open_store
from cache.stream import token_batches
from cache.verify import verify_cache
from cache.zarr_access import as_dask_array, open_zarr
from spg_core.errors import CorruptStore, NotInStore, StoreError
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


def test_a_prefix_with_nothing_below_it_is_a_store_that_is_not_there(s3_url: str) -> None:  # noqa: F811
    with pytest.raises(NotInStore, match="nothing is there"):
        open_existing_store(s3_url)

    write_cache(open_store(s3_url), SAMPLE)

    assert len(find_caches(open_existing_store(s3_url))) == 1


def test_bad_neighbours_in_a_bucket_are_named_and_left_alone(remote: Objects) -> None:
    folder = write_cache(remote, SAMPLE).folder
    foreign = f"{folder.rpartition('/')[0]}/0123456789abcdef/cache.json"
    remote.put_new("tokens/C:x/gabor/0123456789abcdef/cache.json", [b"{}"])
    remote.put_new(foreign, [b'{"format": NaN}'])
    remote.put_new("thesis/.tmp-0123456789abcdef", [b"mine"])
    remote.put_new(".tmp-probe-0123456789abcdef", [b"probe"])

    seen = survey(remote)

    assert [info.folder for info in seen.caches] == sorted([folder, foreign.rpartition("/")[0]])
    assert list(seen.problems) == ["tokens/C:x"]
    with pytest.raises(CorruptStore, match="0123456789abcdef"):
        open_cache(remote, "visa", "gabor", "0123456789abcdef")
    garbage = find_garbage(remote, grace_seconds=0)
    assert [item.name for item in garbage] == [".tmp-probe-0123456789abcdef"]


def test_folders_made_by_hand_in_a_bucket_change_nothing(remote: Objects, s3_url: str) -> None:  # noqa: F811
    # The S3 console makes a "folder" by an empty object whose name ends in a slash.
    folder = write_cache(remote, SAMPLE).folder
    bucket, _, prefix = s3_url.removeprefix("s3://").partition("/")
    # a session of its own: the default one keeps the keys of the first server it met
    client = boto3.Session().client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    for name in ("", "tokens/", "tokens/visa/", f"{folder}/", "tokens/empty/", "saes/"):
        client.put_object(Bucket=bucket, Key=f"{prefix}/{name}", Body=b"")

    assert [info.folder for info in find_caches(remote)] == [folder]
    assert survey(remote).problems == {}
    assert find_garbage(remote, grace_seconds=0) == []
    assert verify_cache(remote, folder).is_sound

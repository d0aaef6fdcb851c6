"""One contract, every kind of store; then what only folders and only S3 can do wrong."""

import errno
import os
import pickle
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import obstore
import pytest

from cache.objects import GRACE_SECONDS, Objects, Part, check_name
from cache.remote_objects import RemoteObjects
from cache.store import open_store
from spg_core.errors import NotInStore, StoreError
from tests.s3_server import SERVERS, empty_store, moto_endpoint, s3_url  # noqa: F401 - the fixture


@pytest.fixture(params=["local", *SERVERS])
def objects(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Objects:
    if request.param == "local":
        return open_store(tmp_path / "store")
    return open_store(empty_store(request.param, monkeypatch))


def test_what_is_put_is_got(objects: Objects) -> None:
    parts: list[Part] = [b"ab", np.array([[1, 2], [3, 4]], "<u2"), b""]

    assert objects.put_new("a/b/c.bin", parts)

    assert objects.get("a/b/c.bin") == b"ab\x01\0\x02\0\x03\0\x04\0"
    assert objects.get_range("a/b/c.bin", 1, 3) == b"b\x01\0"
    assert objects.size("a/b/c.bin") == 10


def test_a_taken_name_is_never_replaced(objects: Objects) -> None:
    assert objects.put_new("x", [b"first"])
    assert not objects.put_new("x", [b"second"])
    assert objects.get("x") == b"first"

    objects.replace("x", [b"third"])

    assert objects.get("x") == b"third"


def test_listings_are_sorted_and_show_no_temporaries(objects: Objects) -> None:
    for name in ["b/2", "a/1", "b/c/3", "ab/4", ".tmp-1", "b/.tmp-2"]:
        objects.put_new(name, [name.encode()])

    assert [info.name for info in objects.walk("")] == ["a/1", "ab/4", "b/2", "b/c/3"]
    assert [(i.name, i.size_bytes) for i in objects.walk("b")] == [("b/2", 3), ("b/c/3", 5)]
    assert [info.name for info in objects.temporaries("")] == [".tmp-1", "b/.tmp-2"]
    assert objects.folders("") == ["a", "ab", "b"]
    assert objects.folders("b") == ["c"]
    assert abs(next(objects.walk("a")).modified - time.time()) < 3600


def test_a_listing_tells_other_bytes_of_the_same_size(objects: Objects) -> None:
    def version() -> str | None:
        return next(objects.walk("a")).version

    objects.put_new("a/1", [b"one"])
    first = version()
    assert first is not None
    assert version() == first

    objects.delete("a/1")
    objects.put_new("a/1", [b"two"])

    assert version() != first


def test_asking_for_nothing_finds_nothing_and_makes_nothing(objects: Objects) -> None:
    assert objects.size("a/b") is None
    assert list(objects.walk("a")) == []
    assert objects.folders("a") == []
    objects.delete("a/b")
    with pytest.raises(NotInStore, match="a/b is not in the store"):
        objects.get("a/b")
    with pytest.raises(NotInStore):
        objects.get_range("a/b", 0, 1)


def test_deleted_is_gone(objects: Objects) -> None:
    objects.put_new("a/b", [b"x"])

    objects.delete("a/b")

    assert objects.size("a/b") is None
    assert list(objects.walk("")) == []


def test_a_probe_proves_create_only_writes_and_leaves_nothing(objects: Objects) -> None:
    objects.check_writable()

    assert list(objects.walk("")) == list(objects.temporaries("")) == []


def test_more_bytes_than_allowed_are_not_read(objects: Objects) -> None:
    objects.put_new("x", [b"12345"])

    with pytest.raises(StoreError, match="has 5 bytes, at most 4 expected"):
        objects.get("x", max_bytes=4)
    with pytest.raises(StoreError):
        objects.get_range("x", 3, 3)


def test_a_store_opened_read_only_is_not_changed(objects: Objects) -> None:
    objects.put_new("x", [b"1"])
    reader = open_store(objects.where, read_only=True)

    for change in (
        lambda: reader.put_new("y", [b"2"]),
        lambda: reader.replace("x", [b"2"]),
        lambda: reader.delete("x"),
        reader.check_writable,
    ):
        with pytest.raises(StoreError, match="read-only"):
            change()
    assert reader.get("x") == b"1"


def test_a_store_travels_to_a_worker(objects: Objects) -> None:
    objects.put_new("x", [b"1"])

    assert pickle.loads(pickle.dumps(objects)).get("x") == b"1"


@pytest.mark.parametrize("name", ["", "/a", "a//b", "../a", "a/..", "a\\b", "a\0"])
def test_names_that_leave_the_store_are_refused(objects: Objects, name: str) -> None:
    with pytest.raises(StoreError, match="is not an object name"):
        check_name(name)
    with pytest.raises(StoreError, match="is not an object name"):
        objects.get(name)


def test_a_full_disk_says_both_numbers_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = open_store(tmp_path)
    real_write = os.write

    def write_then_full(descriptor: int, data: bytes) -> int:
        if len(data) < 600:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real_write(descriptor, data[:500])

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", write_then_full)
        with pytest.raises(StoreError, match=r"no room for .*x: 1000 bytes needed, \d+ bytes free"):
            objects.put_new("x", [bytes(1000)])
        with pytest.raises(StoreError, match=rf"no room for {tmp_path}, the store: 5 bytes needed"):
            objects.check_writable()

    assert list(tmp_path.iterdir()) == []
    assert objects.put_new("x", [bytes(1000)])


def test_a_folder_without_permission_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    # Tests may run as root, whom a mode of 0o500 does not stop.
    monkeypatch.setattr(os, "link", refuse)

    with pytest.raises(StoreError, match=r"no permission to write .*x"):
        open_store(tmp_path).put_new("x", [b"1"])
    assert list(tmp_path.iterdir()) == []


def test_only_a_link_that_fails_speaks_of_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted", source, None, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "link", refuse)  # as on FAT
        with pytest.raises(StoreError, match="the file system must have hard links"):
            open_store(tmp_path).put_new("x", [b"1"])
    with _immutable(tmp_path), pytest.raises(StoreError) as refused:
        open_store(tmp_path).put_new("x", [b"1"])
    assert str(refused.value) == f"no permission to write {tmp_path}/x (Operation not permitted)"
    (tmp_path / "y").write_bytes(b"old")
    with _immutable(tmp_path / "y"), pytest.raises(StoreError, match="no permission to replace"):
        open_store(tmp_path).replace("y", [b"new"])


@contextmanager
def _immutable(path: Path) -> Iterator[None]:
    """Let nobody change a file or folder, not even root."""
    made = subprocess.run(["chattr", "+i", str(path)], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("chattr +i takes root and a file system that knows it")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", str(path)], check=True)


def test_a_store_where_no_folder_can_be_made_is_named_and_not_its_probe() -> None:
    with pytest.raises(StoreError, match="cannot write /proc/xx, the store: No such") as refused:
        open_store("/proc/xx").check_writable()

    assert "probe" not in str(refused.value)


def test_a_folder_that_may_not_be_read_is_not_taken_for_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)

    with pytest.raises(StoreError, match="no permission to list"):
        list(open_store(tmp_path).walk("a"))
    with pytest.raises(StoreError, match="no permission to list"):
        open_store(tmp_path).folders("a")


def test_a_folder_taken_away_while_it_is_written_to_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_open = os.open
    taken: list[Path] = []

    def take_away_once(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT and not taken:
            taken.append(path)
            path.parent.rmdir()  # as another writer's `delete` does with an empty folder
        return real_open(path, flags, mode)

    monkeypatch.setattr(os, "open", take_away_once)

    assert open_store(tmp_path).put_new("receipts/1", [b"x"])
    assert (tmp_path / "receipts/1").read_bytes() == b"x"
    assert len(taken) == 1


def test_new_files_follow_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o002)
    try:
        open_store(tmp_path).put_new("x", [b"1"])
    finally:
        os.umask(old)

    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o664


def test_a_missing_bucket_is_named(s3_url: str) -> None:  # noqa: F811
    objects = open_store("s3://spg-no-such-bucket/x")

    for ask in (lambda: objects.folders(""), lambda: objects.put_new("x", [b"1"])):
        with pytest.raises(StoreError, match=r"spg-no-such-bucket/x.*no such bucket; create it"):
            ask()


def test_a_server_that_ignores_conditions_is_refused(
    s3_url: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    objects = open_store(s3_url)
    assert isinstance(objects, RemoteObjects)
    real_put = obstore.put

    def careless_put(store, path, body, **options):  # type: ignore[no-untyped-def]
        return real_put(store, path, body, use_multipart=False)

    monkeypatch.setattr(obstore, "put", careless_put)

    with pytest.raises(StoreError, match="ignores If-None-Match"):
        objects.check_writable()
    assert list(objects.temporaries("")) == []


def test_credentials_and_endpoint_also_come_from_the_usual_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "config").write_text(f"[profile lab]\nendpoint_url = {moto_endpoint()}\n")
    (tmp_path / "credentials").write_text(
        "[lab]\naws_access_key_id = test\naws_secret_access_key = te%st\n"
    )
    monkeypatch.setenv("AWS_PROFILE", "lab")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))

    with pytest.raises(StoreError, match="no such bucket"):
        open_store("s3://spg-no-such-bucket").folders("")


def test_an_unknown_kind_of_store_is_refused() -> None:
    with pytest.raises(StoreError, match="cannot open the store ftp://host/x"):
        open_store("ftp://host/x")


def test_the_grace_period_is_a_day() -> None:
    assert GRACE_SECONDS == 86400


def test_what_is_not_approved_is_not_published(objects: Objects) -> None:
    def refuse() -> None:
        raise StoreError("the bytes are wrong")

    with pytest.raises(StoreError, match="the bytes are wrong"):
        objects.put_new("a/x", [b"12", np.zeros(1 << 23, np.float32)], refuse)

    assert objects.size("a/x") is None
    assert not list(objects.temporaries(""))
    assert objects.put_new("a/x", [b"12"], lambda: None)
    assert objects.get("a/x") == b"12"

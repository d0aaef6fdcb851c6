"""What a file system can do to a folder store: each trouble is a StoreError, none is forgotten."""

import errno
import logging
import os
import resource
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache import local_files
from cache.local_objects import LocalObjects
from cache.objects import Objects
from cache.reader import open_cache
from cache.store import open_store
from spg_core.errors import NotInStore, StoreError
from tests.cache_samples import make_sample, write_cache

ASK: dict[str, Callable[[Objects, str], object]] = {
    "get": lambda store, name: store.get(name),
    "get_range": lambda store, name: store.get_range(name, 0, 1),
    "put_new": lambda store, name: store.put_new(name, [b"x"]),
    "replace": lambda store, name: store.replace(name, [b"x"]),
    "size": lambda store, name: store.size(name),
    "walk": lambda store, name: list(store.walk(name)),
    "temporaries": lambda store, name: list(store.temporaries(name)),
    "folders": lambda store, name: store.folders(name),
    "delete": lambda store, name: store.delete(name),
}


def test_the_error_of_an_early_flush_is_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The kernel tells of a lost page once; 40 MB are flushed as they come, then once more.
    monkeypatch.setattr(local_files, "_BYTES_A_FLUSH", 1 << 16)
    real_fsync = os.fsync
    flushes: list[int] = []

    def fail_once(descriptor: int) -> None:
        flushes.append(descriptor)
        if len(flushes) == 2:  # the first one is of the folder that was made
            raise OSError(errno.EIO, "Input/output error")
        real_fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fail_once)

    with pytest.raises(StoreError, match=r"cannot write .*shard: Input/output error"):
        open_store(tmp_path).put_new("a/shard", [np.zeros(10_000_000, np.float32)])
    assert not list(tmp_path.rglob("*shard"))
    assert not list(tmp_path.rglob(".tmp-*"))


@pytest.mark.parametrize("ask", ASK)
@pytest.mark.parametrize(
    ("trouble", "message"),
    [("long", "File name too long"), ("loop", "Too many levels of symbolic links")],
)
def test_every_operation_explains_every_trouble(
    tmp_path: Path, ask: str, trouble: str, message: str
) -> None:
    (tmp_path / "loop").symlink_to("loop")
    name = {"long": f"{'n' * 300}/x", "loop": "loop/x"}[trouble]

    with pytest.raises(StoreError, match=message):
        ASK[ask](open_store(tmp_path), name)
    assert [path.name for path in tmp_path.iterdir()] == ["loop"]


def test_a_limit_of_the_shell_is_no_full_disk(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))  # ulimit -f, to the byte
    try:
        with pytest.raises(StoreError, match=r"x: 2000 bytes .*File too large.*see `ulimit -f`"):
            store.put_new("x", [bytes(2000)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert list(tmp_path.iterdir()) == []


def test_a_quota_is_no_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> int:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(os, "write", fail)

    with pytest.raises(StoreError, match=r"your quota is used up: .*and run again"):
        open_store(tmp_path).put_new("x", [bytes(2000)])


@pytest.mark.parametrize("ask", [*ASK, "check_writable"])
@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ESTALE, errno.EINTR, errno.EMFILE])
def test_no_oserror_leaves_a_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ask: str, code: int
) -> None:
    store = open_store(tmp_path)
    store.put_new("a/x", [b"x"])

    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(code, os.strerror(code))

    for name in ("open", "stat", "scandir", "link", "unlink", "replace", "rename"):
        monkeypatch.setattr(os, name, fail)
    monkeypatch.setattr(Path, "stat", fail)
    monkeypatch.setattr(Path, "exists", fail)
    monkeypatch.setattr(Path, "unlink", fail)

    with pytest.raises(StoreError, match=os.strerror(code)):
        store.check_writable() if ask == "check_writable" else ASK[ask](store, "a/x")
    assert store.free_bytes() is None


@pytest.mark.parametrize("kind", ["fifo", "socket", "device"])
def test_only_regular_files_are_opened(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "cache.json"
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "socket":
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(os.path.relpath(path))
        case _:
            path.symlink_to("/dev/zero")
    store = open_store(tmp_path)

    for ask in ("get", "get_range"):
        with pytest.raises(
            StoreError, match=r"cannot read .*cache.json: (it is not a reg|No such)"
        ):
            ASK[ask](store, "cache.json")
    assert list(store.walk("")) == []


def test_a_pipe_in_place_of_a_shard_is_an_error_and_no_wait(tmp_path: Path) -> None:
    folder = write_cache(open_store(tmp_path), make_sample(extras=False)).folder
    shard = tmp_path / folder / "tokens.zarr/tokens/c/1/0/0"
    shard.unlink()
    os.mkfifo(shard)
    cache = open_cache(open_store(tmp_path), "visa", "gabor")

    with pytest.raises(StoreError, match=r"c/1/0/0: it is not a regular file but a pipe"):
        cache.tokens([64])


def test_a_folder_is_no_object(tmp_path: Path) -> None:
    (tmp_path / "cache.json").mkdir()
    store = open_store(tmp_path)

    assert store.size("cache.json") is None
    with pytest.raises(StoreError, match="Is a directory"):
        store.get("cache.json")


def test_a_name_linked_twice_is_ours_when_the_answer_got_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_link = os.link

    def link_and_say_it_was_there(source: Path, target: Path) -> None:
        real_link(source, target)
        real_link(source, target)  # as an NFS client does that asks again

    monkeypatch.setattr(os, "link", link_and_say_it_was_there)

    assert open_store(tmp_path).put_new("x", [b"ours"])
    assert not open_store(tmp_path).put_new("x", [b"theirs"])
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_replacement_that_fails_leaves_the_old_object_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path)
    store.replace("x", [b"old"])

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", fail)
        with pytest.raises(StoreError, match=r"cannot replace .*x: Input/output error"):
            store.replace("x", [b"new"])

    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert store.get("x") == b"old"


def test_one_bad_entry_does_not_hide_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(tmp_path)
    for name in ("a/x", "C:x/y", "lost+found/z"):
        store.put_new(name, [b"1"])
    (tmp_path / "a" / "back\\slash").write_bytes(b"")
    (tmp_path / "a" / os.fsdecode(b"latin-1 \xe9")).write_bytes(b"")
    (tmp_path / "a" / "loop").symlink_to("loop")
    (tmp_path / "a" / "dangling").symlink_to("nowhere")
    real_scandir = os.scandir

    def refuse_one(path: Any) -> Any:
        if str(path).endswith("lost+found"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real_scandir(path)

    monkeypatch.setattr(os, "scandir", refuse_one)

    with caplog.at_level(logging.WARNING):
        assert [info.name for info in store.walk("")] == ["C:x/y", "a/x"]
    assert caplog.messages == [f"left out: {tmp_path}/lost+found (Permission denied)"]
    assert store.folders("") == ["C:x", "a", "lost+found"]
    assert "loop" not in store.folders("a")
    with pytest.raises(StoreError, match=r"no permission to list .*lost"):
        list(store.walk("lost+found"))


def test_a_store_that_is_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "store").write_bytes(b"")
    store = LocalObjects(tmp_path / "store")

    with pytest.raises(StoreError, match=r"cannot write .*store/x: Not a directory") as caught:
        store.put_new("x", [b"1"])
    assert not isinstance(caught.value, NotInStore)


def test_a_probe_that_cannot_be_removed_does_not_hide_what_went_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    monkeypatch.setattr(Path, "unlink", full)

    with pytest.raises(StoreError, match=r"no room for .*probe"):
        open_store(tmp_path).check_writable()


def test_what_zarr_leaves_of_a_chunk_is_a_temporary(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    name = f"maps.zarr/c/1/0/0.{'0a' * 16}.partial"
    store.put_new(name, [b"half"])
    store.put_new("maps.zarr/c/1/0/0", [b"whole"])

    assert [info.name for info in store.walk("")] == ["maps.zarr/c/1/0/0"]
    assert [info.name for info in store.temporaries("")] == [name]

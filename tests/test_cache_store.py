"""What names a store: a folder or a URL that can be served; all else is refused with advice."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.local_objects import LocalObjects
from cache.store import open_existing_store, open_store
from spg_core.errors import NotInStore, SpgError, StoreError


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("", r"'' names no store; give a folder such as \./spg-store"),
        (" ", "' ' names no store"),
        ("a\0b", "names no store"),
        ("a\ud800/b", r"'a\\ud800/b' names no store"),
        ("s3://b/\udcff", r"'s3://b/\\udcff' names no store"),
        ("memory://", "memory://: it would keep nothing; give a folder"),
        ("memory:///x", "it would keep nothing"),
        ("s3:/b", r"did you mean s3://b \?"),
        ("s3:b/x", r"did you mean s3://b/x \?"),
        ("s3:///b/x", r"did you mean s3://b/x \?"),
        ("S3://b/x", r"did you mean s3://b/x \?"),
        ("s3a://b/x", r"did you mean s3://b/x \?"),
        ("s3://b//x", r"did you mean s3://b/x \?"),
        ("s3://b/../x", r"did you mean s3://b/x \?"),
        ("s3://", r"did you mean s3://bucket/prefix \?"),
        ("gcs://b", r"did you mean gs://b \?"),
        ("https://minio:9000/b", "write s3://bucket/prefix, with the server's address in AWS_END"),
        ("ftp://host/x", "stores are folders, and URLs that begin with s3://, gs://, az://"),
        ("nas:/data", r"for a folder write \./nas:/data"),
        ("file://data/store", "a file URL has three slashes"),
        ("file:data", "a file URL has three slashes"),
        ("file://", "a file URL has three slashes"),
        ("file:///a%00b", "a file URL has three slashes"),
        ("~nobody-of-that-name/x", "cannot tell where the store ~nobody-of-that-name/x is"),
    ],
)
def test_what_cannot_be_served_is_refused_and_makes_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)

    for opened in (open_store, open_existing_store):
        with pytest.raises(StoreError, match=message):
            opened(named)
    assert list(tmp_path.iterdir()) == []


def test_a_url_that_went_through_a_path_is_noticed() -> None:
    with pytest.raises(StoreError, match=r"did you mean s3://bucket/x \?"):
        open_store(Path("s3://bucket/x"))


@pytest.mark.parametrize("named", ["file:///{}", "file:/{}", "file://localhost/{}"])
def test_a_file_url_is_the_folder_that_a_browser_would_show(tmp_path: Path, named: str) -> None:
    folder = tmp_path / "my store é 100%"
    url = folder.as_uri().removeprefix("file:///")

    store = open_store(named.format(url))

    assert isinstance(store, LocalObjects)
    assert store.root == folder
    assert store.where == str(folder)


@pytest.mark.parametrize("named", ["{}/a\udcff", "file://{}/a%FF"])
def test_a_folder_whose_name_is_not_utf8_is_a_store_like_any_other(
    tmp_path: Path, named: str
) -> None:
    folder = Path(os.fsdecode(bytes(tmp_path) + b"/a\xff"))

    open_store(named.format(tmp_path)).put_new("x/y", [b"1"])

    assert list(tmp_path.iterdir()) == [folder]
    assert (folder / "x" / "y").read_bytes() == b"1"


def test_home_and_relative_folders_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    for named in ("~/store", "store", "./store", "c:store"):
        store = open_store(named)
        assert isinstance(store, LocalObjects)
        assert store.root == tmp_path / named.removeprefix("~/").removeprefix("./")
    assert open_store("~/store").where == str(tmp_path / "store")


def test_a_store_in_a_deleted_working_folder_is_an_error_and_not_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    with pytest.raises(StoreError, match=r"cannot tell where the store spg-store is .*from /"):
        open_store("./spg-store")
    assert os.path.isdir(open_store(tmp_path).where)  # noqa: PTH112


def test_a_user_without_a_home_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home(*_: object) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", no_home)

    with pytest.raises(StoreError, match="cannot tell where the store ~/x is"):
        open_store("~/x")


def test_a_mistyped_folder_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(NotInStore, match="there is no such folder"):
        open_existing_store(tmp_path / "stroe")


@given(st.text(max_size=40))
def test_any_text_opens_a_store_or_is_refused(text: str) -> None:
    try:
        store = open_store(text if ":" not in text else text.partition(":")[0] or "x")
        assert isinstance(store, LocalObjects)
    except SpgError:
        return


@given(st.sampled_from(["s3:", "file:", "memory:", "x+y:"]), st.text("/.%b ~\\?#", max_size=8))
def test_any_url_without_a_bucket_is_refused(scheme: str, rest: str) -> None:
    if rest.startswith("//") and rest.strip("/."):
        return  # may be one
    try:
        assert isinstance(open_store(scheme + rest), LocalObjects)
        assert scheme == "file:"
    except SpgError:
        return

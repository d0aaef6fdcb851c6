"""Opening a dataset: what it asks of a store, and what it says when there is none."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cache.key import cache_key, canonical_json
from cache.store import open_store
from pipeline.inputs import open_dataset
from spg_core.errors import BackboneError, CorruptStore, NotInStore
from tests.small_store import SmallStore


class Counted:
    """A store that writes down what is asked of it."""

    def __init__(self, url: str) -> None:
        self._objects = open_store(url, read_only=True)
        self.requests: list[str] = []

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._objects, name)
        if name not in ("get", "get_range", "size", "walk", "folders", "temporaries"):
            return found
        return self._counted(name, found)

    def _counted(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(path: str, *rest: Any, **more: Any) -> Any:
            self.requests.append(f"{name} {path}")
            return call(path, *rest, **more)

        return counted


def test_opening_lists_once_and_reads_the_record_once(small_store: SmallStore) -> None:
    store = Counted(small_store.url)

    data = open_dataset(store, "target", "gabor")

    folder = f"tokens/target/gabor/{data.cache.key}"
    assert store.requests == [
        "folders tokens/target/gabor",
        f"get {folder}/cache.json",
        f"get {folder}/manifest.parquet",
    ]


def test_opening_by_the_whole_key_lists_nothing(small_store: SmallStore) -> None:
    key = open_dataset(open_store(small_store.url), "target", "gabor").cache.key
    store = Counted(small_store.url)

    open_dataset(store, "target", "gabor", key)

    folder = f"tokens/target/gabor/{key}"
    assert store.requests == [f"get {folder}/cache.json", f"get {folder}/manifest.parquet"]


def test_what_is_missing_is_said_with_the_command_that_makes_it(small_store: SmallStore) -> None:
    store = open_store(small_store.url)
    key = open_dataset(store, "aux", "gabor").cache.key

    with pytest.raises(NotInStore, match=rf"no tokens of 'visa' .*aux/gabor/{key}.*--root DIR"):
        open_dataset(store, "visa", "gabor")
    for other in ("ffff", "f" * 16):
        with pytest.raises(NotInStore, match=rf"no cache aux/gabor/{other} in .*aux/gabor/{key}"):
            open_dataset(store, "aux", "gabor", other)


def test_a_manifest_of_other_images_is_corrupt(
    small_store: SmallStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = open_store(small_store.url)
    other = open_dataset(store, "aux", "gabor").cache.manifest_bytes()
    monkeypatch.setattr("cache.reader.TokenCache.manifest_bytes", lambda _: other)

    with pytest.raises(CorruptStore, match=r"manifest\.parquet: the manifest has \d+ rows for \d+"):
        open_dataset(store, "target", "gabor")


@pytest.mark.parametrize(
    ("dataset", "backbone", "meant"),
    [("targt", "gabor", "'target'"), ("AUX", "gabor", "'aux'"), ("aux", "gabr", "'gabor'")],
)
def test_a_name_mistyped_is_answered_by_the_nearest(small_store, dataset, backbone, meant):
    with pytest.raises(NotInStore, match=f"did you mean {meant}"):
        open_dataset(open_store(small_store.url), dataset, backbone)


def resealed(small_store: SmallStore, tmp_path: Path, change: Callable[[Any], None]) -> Any:
    """Give a store whose target cache covers something else, with key and digest to match."""
    store = open_store(shutil.copytree(small_store.url, tmp_path / "store"))
    folder = tmp_path / "store" / "tokens" / "target" / "gabor"
    [cache] = folder.iterdir()
    record = json.loads((cache / "cache.json").read_text())
    change(record["covers"]["backbone"])
    record["key"] = cache_key(record["covers"])
    del record["digest"]
    record["digest"] = hashlib.sha256(canonical_json(record)).hexdigest()
    (cache / "cache.json").write_text(json.dumps(record))
    cache.rename(folder / record["key"])
    return store


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"grid": [5, 6]},
            r"grid of 5 x 6 and d_model of 160 are not the arrays' 36 tokens of 160",
        ),
        ({"d_model": 80}, "d_model of 80 are not the arrays'"),
        ({"height": 98}, r"masks are \(96, 96\), the backbone's input is \(98, 96\)"),
    ],
)
def test_a_backbone_whose_tokens_the_arrays_do_not_hold_is_refused(
    small_store: SmallStore, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    store = resealed(small_store, tmp_path, lambda backbone: backbone.update(changes))

    with pytest.raises(CorruptStore, match=rf"cache\.json: .*{message}"):
        open_dataset(store, "target", "gabor")


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("height", 2**30),
        ("width", -1),
        ("height", 96.5),
        ("grid", [6]),
        ("grid", [6, 6, 6]),
        ("grid", "6x6"),
        ("grid", [97, 6]),
        ("mean", [0.5, 0.5]),
        ("mean", [0.5, 0.5, None]),
        ("std", [0.0, 0.25, 0.25]),
        ("layer", -1),
        ("exif", "no"),
        ("resize_filter", "nearest"),
        ("compute_dtype", "int8"),
        ("colour", "bgr"),
    ],
)
def test_a_stored_backbone_out_of_range_is_refused_by_its_field(
    small_store: SmallStore, tmp_path: Path, field: str, wrong: object
) -> None:
    store = resealed(small_store, tmp_path, lambda backbone: backbone.update({field: wrong}))

    with pytest.raises(BackboneError, match=field):
        open_dataset(store, "target", "gabor")

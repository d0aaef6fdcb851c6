"""A cold extraction decodes each file once, for the check and for the model together."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cache.store import open_store
from manifests import images as images_module
from manifests.build import build_manifest
from pipeline.backbones.preprocess import squash, squash_of
from pipeline.configs import ClusterConfig, ExtractConfig
from pipeline.extraction import shards
from pipeline.extraction.extract import extract
from pipeline.extraction.kept import KeptInputs
from pipeline.extraction.maker import ShardMaker
from pipeline.extraction.model_inputs import model_inputs
from pipeline.inputs import open_dataset
from pipeline.machine import device
from pipeline.machine.cores import n_checkers, n_decoders, usable_cores
from pipeline.workers.open import open_workers
from spg_core.errors import DatasetError
from tests.cache_samples import folder_digests
from tests.tiny_images import config_of, tiny_backbone, write_images

N_GOOD, N_BAD = 60, 10


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """70 images, 10 with masks."""
    write_images(tmp_path / "images", n_good=N_GOOD, n_bad=N_BAD)
    return tmp_path / "images"


@pytest.fixture(autouse=True)
def quick_backbone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Tests are about decoding; what was checked before is not remembered."""
    monkeypatch.setattr(shards, "open_backbone", tiny_backbone)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "memos"))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each file was decoded, by its name as the decoder is told it."""
    counts: Counter[str] = Counter()
    real = images_module._open

    def count(data: bytes, name: str) -> Image.Image:
        counts["/".join(Path(name).parts[-2:])] += 1
        return real(data, name)

    monkeypatch.setattr(images_module, "_open", count)
    return counts


@pytest.mark.parametrize("decoders", [0, 3, None])
def test_no_file_is_decoded_twice(
    root: Path, tmp_path: Path, decoded: Counter[str], decoders: int | None
) -> None:
    extract(open_store(tmp_path / "store"), replace(config_of(root), decoders=decoders))

    assert len(decoded) == N_GOOD + 2 * N_BAD
    assert {*decoded.values()} == {1}


def test_what_finds_no_room_is_decoded_again_and_the_tokens_are_the_same(
    root: Path, tmp_path: Path, decoded: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    extract(open_store(tmp_path / "all"), config_of(root))
    decoded.clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "others"))
    monkeypatch.setattr(device, "host_bytes", lambda: 20 * 32 * 32 * 4)

    extract(open_store(tmp_path / "twenty"), config_of(root))

    assert Counter(decoded[name] for name in decoded if "mask" not in name) == {1: 20, 2: 50}
    assert token_digests(tmp_path / "twenty") == token_digests(tmp_path / "all")


def token_digests(store: Path) -> dict[str, str]:
    found = folder_digests(store / "tokens")
    return {name: digest for name, digest in found.items() if "/c/" in name}


def test_a_warm_run_decodes_what_the_model_takes_and_no_more(
    root: Path, tmp_path: Path, decoded: Counter[str]
) -> None:
    extract(open_store(tmp_path / "first"), config_of(root))
    decoded.clear()

    extract(open_store(tmp_path / "second"), config_of(root))

    assert {*decoded.values()} == {1}


def test_what_is_stored_is_what_was_checked_though_a_file_changes_in_between(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = extract(open_store(tmp_path / "before"), config_of(root))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "others"))

    def edit_first(*given):
        for path in root.rglob("test/good/*.png"):
            Image.new("RGB", (40, 40), "red").save(path)
        return model_inputs(*given)

    monkeypatch.setattr(shards, "model_inputs", edit_first)
    store = open_store(tmp_path / "during")

    found = extract(store, config_of(root))

    assert found.key == expected.key
    assert token_digests(tmp_path / "during") == token_digests(tmp_path / "before")
    assert open_dataset(store, "mvtec", "gabor").manifest.n_images == N_GOOD + N_BAD


def test_errors_are_those_of_the_check_and_nothing_is_begun(root: Path, tmp_path: Path) -> None:
    (root / "nut/test/good/003.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")

    with pytest.raises(DatasetError, match=r"nut/test/good/003\.png"):
        extract(open_store(tmp_path / "store"), config_of(root))

    assert not (tmp_path / "store").exists()


def test_a_kept_image_is_asked_for_by_its_content_and_given_once(root: Path) -> None:
    spec = tiny_backbone(config_of(root)).spec
    kept = KeptInputs([spec], 1 << 20)
    built = build_manifest(
        root, layout="mvtec", dataset="x", split="test", workers=2, keep=kept.keep
    )
    [row] = built.manifest.table.slice(N_GOOD, 1).to_pylist()
    path, image_id, mask_id = row["image_path"], row["image_id"], row["mask_id"]

    assert mask_id is not None
    assert kept.take(path, "0" * 64, mask_id) is None
    assert kept.take(path, image_id, None) is None
    found = kept.take(path, image_id, mask_id)
    assert found is not None
    image = Image.open(root / path).convert("RGB")
    np.testing.assert_array_equal(found.pixels[squash_of(spec)], squash(image, spec))
    assert found.masks[32, 32].any()
    assert kept.take(path, image_id, mask_id) is None


def test_decoders_leave_a_core_to_who_feeds_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dask.system.CPU_COUNT", 16)

    assert (n_checkers(None), n_checkers(0), n_checkers(3)) == (16, 1, 3)
    assert (n_decoders(None, "cuda"), n_decoders(None, "cpu"), n_decoders(5, "cuda")) == (15, 2, 5)
    assert (n_decoders(None, "cuda", 4), n_decoders(None, "cuda", 16)) == (3, 1)
    assert n_decoders(0, "cuda") == 0


def decoders_of(maker: ShardMaker) -> int:
    assert maker.decoders is not None
    return maker.decoders._max_workers


def open_maker(store, config: ExtractConfig) -> ShardMaker:
    return ShardMaker(store, config, [tiny_backbone(config)])


def test_a_dask_worker_decodes_with_several_threads(root: Path, tmp_path: Path) -> None:
    config = replace(config_of(root), decoders=None)
    store = open_store(tmp_path / "store")

    with open_workers(store, ClusterConfig(workers=1), open_maker, config, at_once=3) as workers:
        found = workers.ask_all(decoders_of)

    assert [*found.values()] == [2]
    assert usable_cores() >= 1

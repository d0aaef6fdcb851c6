"""Extraction is resumable, never mixes what changed, and finds what is done without a model."""

import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cache.find import find_caches
from cache.gc import find_garbage, remove_garbage
from cache.local_objects import LocalObjects
from cache.store import open_store
from cache.writer import CacheWriter
from pipeline.backbones.preprocess import preprocess
from pipeline.configs import ClusterConfig
from pipeline.extraction import fill
from pipeline.extraction import shards as heavy
from pipeline.extraction.extract import checked_manifest, extract
from pipeline.extraction.fill import fill_caches
from pipeline.inputs import open_dataset
from spg_core.errors import (
    BackboneError,
    ConfigError,
    FileChanged,
    ManifestDiffers,
    StoreError,
)
from tests.cache_samples import folder_digests
from tests.tiny_images import config_of, tiny_backbone, write_images, write_mask

REAL_BACKBONE = heavy.open_backbone


@pytest.fixture(autouse=True, scope="module")
def quick_backbone():
    """Tests are about shards; subprocesses use the real `gabor`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heavy, "open_backbone", tiny_backbone)
        yield


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """150 images: two whole shards and a short one."""
    root = tmp_path_factory.mktemp("images")
    write_images(root, n_good=100, n_bad=50)
    return root


@pytest.fixture(scope="module")
def one_go(images, tmp_path_factory):
    """The store of an undisturbed extraction."""
    store = open_store(tmp_path_factory.mktemp("one"))
    return store, extract(store, config_of(images))


def digests(store):
    return folder_digests(Path(store.where) / "tokens")


def command(root, store, *more):
    arguments = ["extract", "--backbone", "gabor", "--dataset", "mvtec", "--root", str(root)]
    return [sys.executable, "-m", "pipeline.cli", *arguments, "--store", str(store), *more]


def test_stored_tokens_and_masks_are_those_of_each_image_on_its_own(images, one_go):
    store, done = one_go
    data = open_dataset(store, "mvtec", "gabor")
    backbone = tiny_backbone(config_of(images))

    for row in (0, 63, 64, 149):
        path = images / str(data.manifest.column("image_path")[row])
        pixels = preprocess(Image.open(path).convert("RGB"), backbone.spec)
        expected = backbone(pixels[None]).tokens[0].to(torch.float16).numpy()
        np.testing.assert_array_equal(data.cache.tokens([row])[0], expected)
    assert (done.images, done.state) == (150, "extracted")
    labels = data.cache.masks(slice(0, 150)).any((1, 2))
    np.testing.assert_array_equal(labels, data.manifest.labels == 1)


@pytest.mark.parametrize("batch_size", [7, 64])
def test_a_batch_never_crosses_a_shard(images, one_go, tmp_path, batch_size, monkeypatch):
    seen = []
    real = heavy.compute_shard

    def spy(backbones, inputs, n_images, advance):
        arrays = real(backbones, inputs, n_images, lambda n: seen.append(n))
        assert sum(seen) == n_images
        seen.clear()
        return arrays

    monkeypatch.setattr(heavy, "compute_shard", spy)

    extract(open_store(tmp_path), replace(config_of(images), batch_size=batch_size))


@pytest.mark.parametrize("whole_shards", [0, 1, 2])
def test_resumed_equals_one_go(images, one_go, tmp_path, whole_shards, monkeypatch):
    store = open_store(tmp_path)
    real = CacheWriter.write_shard
    written = []

    def stop(self, shard, *arrays):
        if len(written) == whole_shards:
            raise KeyboardInterrupt
        written.append(shard)
        real(self, shard, *arrays)

    monkeypatch.setattr(CacheWriter, "write_shard", stop)
    with pytest.raises(KeyboardInterrupt):
        extract(store, config_of(images))
    monkeypatch.setattr(CacheWriter, "write_shard", real)
    assert [info.state for info in find_caches(store)] == ["partial"] * bool(whole_shards)

    done = extract(store, config_of(images))

    assert replace(done.caches[0], path=one_go[1].path) == one_go[1].caches[0]
    assert digests(store) == digests(one_go[0])


@pytest.mark.slow
def test_an_interrupted_command_keeps_whole_shards_and_goes_on(tmp_path):
    write_images(tmp_path / "images", n_good=100, n_bad=50, side=24)
    # at 320 px a shard takes long enough that the signal cannot come after the last one
    store, size = tmp_path / "store", ["--image-size", "320", "--json"]
    process = subprocess.Popen(
        command(tmp_path / "images", store, *size, "--decoders", "1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # a job in the background, as some CI is, inherits Ctrl-C as ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while process.poll() is None and not list(store.rglob("receipts/*.json")):
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGINT)  # a terminal tells every process of the group
    _, messages = process.communicate()

    assert process.returncode == 130, messages
    assert "stopped by Ctrl-C; what is whole is kept" in messages
    assert "Traceback" not in messages
    assert [info.state for info in find_caches(open_store(store))] == ["partial"]

    again = subprocess.run(
        command(tmp_path / "images", store, *size), capture_output=True, text=True, check=True
    )
    assert "images are there already" in again.stderr
    subprocess.run(
        command(tmp_path / "images", tmp_path / "other", *size), capture_output=True, check=True
    )
    assert digests(open_store(store)) == digests(open_store(tmp_path / "other"))


def test_a_finished_extraction_is_found_without_a_model(images, one_go):
    code = (
        "import json, sys\n"
        "from cache.store import open_store\n"
        "from pipeline.extraction.extract import extract\n"
        "from pipeline.configs import ExtractConfig\n"
        "done = extract(open_store(sys.argv[1]), ExtractConfig(**json.loads(sys.argv[2])))\n"
        "assert 'torch' not in sys.modules, 'torch was imported to find nothing to do'\n"
        "print(done.key, done.state)\n"
    )

    found = subprocess.run(
        [sys.executable, "-c", code, one_go[0].where, json.dumps(asdict(config_of(images)))],
        capture_output=True,
        text=True,
        check=True,
    )

    assert found.stdout.split() == [one_go[1].key, "found"]


def test_the_same_images_elsewhere_have_the_same_key(images, one_go, tmp_path):
    (tmp_path / "moved").symlink_to(images)

    done = extract(open_store(tmp_path / "store"), config_of(tmp_path / "moved"))

    assert done.key == one_go[1].key


def test_what_another_run_finishes_meanwhile_is_not_done_again(
    images, one_go, tmp_path, monkeypatch
):
    store, config = open_store(tmp_path), config_of(images)
    manifest = checked_manifest(config)
    theirs = open_dataset(one_go[0], "mvtec", "gabor").cache
    real, computed = heavy.compute_shard, []

    def spy(backbones, inputs, n_images, advance):
        computed.append(n_images)
        if len(computed) == 1:
            writer = heavy.open_writer(store, config, manifest, backbones[0].spec)
            rows = slice(128, 150)
            writer.write_shard(2, theirs.tokens(rows), theirs.cls(rows), theirs.masks(rows))
        return real(backbones, inputs, n_images, advance)

    monkeypatch.setattr(heavy, "compute_shard", spy)
    monkeypatch.setattr(fill.secrets, "randbelow", lambda n: 0)

    extract(store, config)

    assert computed == [64, 64]
    assert digests(store) == digests(one_go[0])


def test_a_full_disk_is_refused_before_anything_is_written(images, tmp_path, monkeypatch):
    monkeypatch.setattr(LocalObjects, "free_bytes", lambda self: 1000)

    with pytest.raises(StoreError, match=r"needs about \d+ more bytes .*1000 \(0.00 GB\) are free"):
        extract(open_store(tmp_path / "store"), config_of(images))

    assert not (tmp_path / "store").exists()


def test_an_image_that_changes_after_it_was_checked_is_never_stored(tmp_path):
    write_images(tmp_path / "images", n_good=3, n_bad=2)
    store, config = open_store(tmp_path / "store"), config_of(tmp_path / "images")
    manifest = checked_manifest(config)
    changed = tmp_path / "images/nut/test/good/001.png"
    Image.new("RGB", (40, 40), "red").save(changed)

    with pytest.raises(FileChanged, match=r"001\.png changed after it was checked; run the"):
        fill_caches(store, config, ClusterConfig(), lambda _: manifest)

    assert find_caches(store) == []
    assert extract(store, config).state == "extracted"


def edit_mask(root, index, rows):
    """Write a mask with another defect: a PNG of the same size and, as it says, of the same age."""
    path = root / "nut" / "ground_truth" / "hole" / f"{index:03}_mask.png"
    status = path.stat()
    mask = np.zeros((40, 40), np.uint8)
    mask[rows] = 255
    write_mask(root, "nut", index, mask)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def top_and_bottom(store, row):
    """Tell whether the stored mask of an image is set in its first and in its last row."""
    [mask] = open_dataset(store, "mvtec", "gabor").cache.masks([row])
    return mask[0, 0], mask[-1, 0]


def stored_mask_ids(store):
    return open_dataset(store, "mvtec", "gabor").manifest.column("mask_id")


def digest_of_mask(root, index):
    path = root / "nut" / "ground_truth" / "hole" / f"{index:03}_mask.png"
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_mask_that_changes_after_it_was_checked_is_never_stored_under_its_old_digest(tmp_path):
    root = tmp_path / "images"
    write_images(root, n_good=3, n_bad=2)
    store, config = open_store(tmp_path / "store"), config_of(root)
    manifest = checked_manifest(config)
    edit_mask(root, 1, slice(0, 20))

    with pytest.raises(FileChanged, match=r"001_mask\.png changed after it was checked"):
        fill_caches(store, config, ClusterConfig(), lambda _: manifest)

    assert find_caches(store) == []


@pytest.mark.parametrize("changes", [1, 2])
def test_a_dataset_edited_while_it_is_extracted_is_looked_at_again_once(
    tmp_path, monkeypatch, changes, capsys
):
    root = tmp_path / "images"
    write_images(root, n_good=60, n_bad=10)  # the second shard holds defects alone
    store, config = open_store(tmp_path / "store"), config_of(root)
    # nothing is kept of the check
    monkeypatch.setattr("pipeline.machine.device.host_bytes", lambda: 0)
    real, edited = heavy.model_inputs, []

    def edit_first(rows, *more):
        if len(edited) < changes:
            edited.append(slice(20 * len(edited), 20 * len(edited) + 20))
            edit_mask(root, 9, edited[-1])
        return real(rows, *more)

    monkeypatch.setattr(heavy, "model_inputs", edit_first)
    monkeypatch.setattr(fill, "AT_ONCE", 1)
    monkeypatch.setattr(fill.secrets, "randbelow", lambda n: n - 1)

    if changes == 2:
        with pytest.raises(FileChanged, match=r"009_mask\.png changed after it was checked"):
            extract(store, config)
        assert [info.state for info in find_caches(store)] in ([], ["partial"])
    else:
        assert extract(store, config).state == "extracted"
        assert top_and_bottom(store, 69) == (1, 0)
        assert stored_mask_ids(store)[69] == digest_of_mask(root, 9)
    told = capsys.readouterr().err
    assert told.count("009_mask.png changed after it was checked; all images are looked at") == 1


def test_a_file_of_the_same_size_and_time_is_known_to_have_changed(tmp_path):
    root = tmp_path / "images"
    write_images(root, n_good=3, n_bad=2)
    before = checked_manifest(config_of(root)).column("mask_id")

    edit_mask(root, 1, slice(0, 20))

    after = checked_manifest(config_of(root)).column("mask_id")
    assert [a == b for a, b in zip(before, after, strict=True)] == [True] * 4 + [False]


def test_a_memo_that_the_files_belie_is_thrown_away(tmp_path, monkeypatch, capsys):
    root = tmp_path / "images"
    write_images(root, n_good=3, n_bad=2)
    monkeypatch.setattr("pipeline.extraction.extract._listing", lambda config: "the same")
    checked_manifest(config_of(root))
    edit_mask(root, 1, slice(0, 20))
    store = open_store(tmp_path / "store")

    assert extract(store, config_of(root)).state == "extracted"

    assert "all images are looked at again" in capsys.readouterr().err
    assert stored_mask_ids(store)[4] == digest_of_mask(root, 1)
    assert checked_manifest(config_of(root)).column("mask_id")[4] == digest_of_mask(root, 1)


def test_a_cache_begun_with_other_masks_is_never_completed(tmp_path, monkeypatch):
    root = tmp_path / "images"
    write_images(root, n_good=60, n_bad=10)
    store, config = open_store(tmp_path / "store"), config_of(root)
    real = CacheWriter.write_shard

    def stop(self, shard, *arrays):
        if shard == 0:
            raise KeyboardInterrupt
        real(self, shard, *arrays)

    monkeypatch.setattr(CacheWriter, "write_shard", stop)
    monkeypatch.setattr(fill, "AT_ONCE", 1)
    monkeypatch.setattr(fill.secrets, "randbelow", lambda n: n - 1)
    with pytest.raises(KeyboardInterrupt):
        extract(store, config)
    monkeypatch.setattr(CacheWriter, "write_shard", real)
    edit_mask(root, 9, slice(0, 20))

    with pytest.raises(ManifestDiffers, match=r"begun when the mask of nut/test/hole/009\.png was"):
        extract(store, config)

    assert [info.state for info in find_caches(store)] == ["partial"]


@pytest.mark.parametrize("decoders", [1, 5])
def test_threads_that_decode_change_no_bit(images, one_go, tmp_path, decoders):
    store = open_store(tmp_path)

    extract(store, config_of(images, decoders=decoders))

    assert digests(store) == digests(one_go[0])


def test_what_the_arguments_ask_for_is_refused_before_an_image_is_read(tmp_path, monkeypatch):
    write_images(tmp_path / "images", n_good=2, n_bad=1)
    config = replace(config_of(tmp_path / "images"), weights=(str(tmp_path / "none.safetensors"),))
    monkeypatch.setattr("pipeline.extraction.extract.build_manifest", None)
    monkeypatch.setattr(heavy, "open_backbone", REAL_BACKBONE)
    store = open_store(tmp_path / "store")

    with pytest.raises(BackboneError, match=r"none\.safetensors"):
        extract(store, replace(config, backbone=("timm:test_vit",)))
    with pytest.raises(ConfigError, match="--device cpu"):
        extract(store, replace(config, device="cuda:99"))


def test_a_model_on_the_cpu_leaves_cuda_alone(images, tmp_path, monkeypatch):
    for name in ("is_available", "device_count", "current_device"):
        monkeypatch.setattr(torch.cuda, name, None)
    monkeypatch.setattr(torch.Tensor, "pin_memory", None)

    extract(open_store(tmp_path), config_of(images))


def test_a_small_shared_memory_is_no_reason_to_wait_for_ever(tmp_path):
    mount = "mount -t tmpfs -o size=64k none /dev/shm && exec "
    if shutil.which("unshare") is None or (
        subprocess.run(
            ["unshare", "-m", "sh", "-c", mount + "true"], capture_output=True
        ).returncode
    ):
        pytest.skip("another /dev/shm can be mounted by root alone, where the kernel lets it")
    write_images(tmp_path / "images", n_good=60, n_bad=10)
    words = command(tmp_path / "images", tmp_path / "store", "--image-size", "64")

    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount + shlex.join(words)],
        capture_output=True,
        text=True,
        timeout=300,
    )

    assert done.returncode == 0, done.stderr


def test_one_changed_pixel_is_another_key(tmp_path):
    write_images(tmp_path / "images", n_good=3, n_bad=2)
    store, config = open_store(tmp_path / "store"), config_of(tmp_path / "images")
    before = extract(store, config)
    path = tmp_path / "images/nut/test/good/001.png"
    image = Image.open(path)
    image.putpixel((3, 4), (9, 9, 9))
    image.save(path)

    after = extract(store, config)

    assert after.key != before.key
    assert len(find_caches(store)) == 2


def test_a_changed_mask_is_told_by_file_and_the_advice_helps(tmp_path):
    write_images(tmp_path / "images", n_good=3, n_bad=2)
    store, config = open_store(tmp_path / "store"), config_of(tmp_path / "images")
    done = extract(store, config)
    mask = np.zeros((40, 40), np.uint8)
    mask[:20] = 255
    write_mask(tmp_path / "images", "nut", 1, mask)

    with pytest.raises(ManifestDiffers) as refused:
        extract(store, config)

    message = str(refused.value)
    assert "mask_id is another one for 1 of them (first nut/test/hole/001.png)" in message
    assert f"`spg-pipe cache gc --remove {done.key} --delete`" in message
    remove_garbage(store, find_garbage(store, find_caches(store)))
    assert extract(store, config).key == done.key
    [[top]] = open_dataset(store, "mvtec", "gabor").cache.masks([4])[:, :1, 0]
    assert top == 1


@pytest.mark.parametrize("first", [True, False])
def test_a_colleague_without_the_thumbnail_flag_finds_the_cache(tmp_path, first, capsys):
    write_images(tmp_path / "images", n_good=3, n_bad=2)
    store, config = open_store(tmp_path / "store"), config_of(tmp_path / "images")
    done = extract(store, replace(config, thumbnails=first))

    found = extract(store, replace(config, thumbnails=not first))

    assert found.key == done.key
    assert f"the cache has {'' if first else 'no '}thumbnails" in capsys.readouterr().err
    names = open_dataset(store, "mvtec", "gabor").manifest.table.column_names
    assert ("thumbnail" in names) == first


def test_a_defect_that_vanishes_is_counted_and_named(tmp_path, capsys):
    write_images(tmp_path / "images", n_good=3, n_bad=2, side=64)
    dot = np.zeros((64, 64), np.uint8)
    dot[30, 30] = 255
    write_mask(tmp_path / "images", "nut", 0, dot)

    extract(open_store(tmp_path / "store"), config_of(tmp_path / "images"))

    told = capsys.readouterr().err
    assert "warning: 1 defects vanish at 32 x 32 pixels" in told
    assert "nut/test/hole/000.png" in told


def test_an_unknown_layout_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"--dataset names how the images are laid out: .*'cub'"):
        extract(open_store(tmp_path), replace(config_of(tmp_path), dataset="cub"))

"""From files as people have them to the masks in a cache, and what the command says on the way."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cache.reader import open_cache
from cache.store import open_store
from pipeline.extraction import shards as heavy
from pipeline.extraction.extract import extract
from tests.dataset_files import HEIGHT, WIDTH, mask, picture, save
from tests.tiny_images import config_of, tiny_backbone


def masks_of(root: Path, store: Path, monkeypatch: pytest.MonkeyPatch, **changes: object):
    """Extract and give the stored masks as bool, scaled back to the size of the images."""
    monkeypatch.setattr(heavy, "open_backbone", tiny_backbone)
    config = replace(config_of(root, image_size=WIDTH * HEIGHT), name="shop", **changes)  # type: ignore[arg-type]
    extract(open_store(store), config)
    masks = open_cache(open_store(store), "shop", "gabor").masks(slice(None))
    # the model's input is a square of whole multiples of both sides
    return np.asarray(masks)[:, WIDTH // 2 :: WIDTH, HEIGHT // 2 :: HEIGHT] > 0


def test_several_masks_of_an_image_are_stored_as_one(tmp_path, monkeypatch):
    root, folder = tmp_path / "loco", "pin/ground_truth/bent/000"
    picture(root, "pin/test/bent/000.png")
    mask(root, f"{folder}/000.png", columns=(2,))
    mask(root, f"{folder}/001.png", columns=(7,), value=238)

    (stored,) = masks_of(root, tmp_path / "store", monkeypatch, dataset="loco")

    assert np.flatnonzero(stored.any(axis=0)).tolist() == [2, 7]


def test_a_smaller_mask_is_stored_where_its_defect_is(tmp_path, monkeypatch):
    root = tmp_path / "bolts"
    picture(root, "bolt/test/cut/0.png")
    small = np.zeros((HEIGHT // 2, WIDTH // 2), np.uint8)
    small[1, 2:4] = 255
    save(root, "bolt/ground_truth/cut/0.png", small)

    (stored,) = masks_of(root, tmp_path / "store", monkeypatch)

    assert np.argwhere(stored).tolist() == [[y, x] for y in (2, 3) for x in (4, 5, 6, 7)]


def test_the_command_says_what_a_folder_was_taken_for_and_takes_corrections(tmp_path):
    root = tmp_path / "parts"
    picture(root, "gut/0.png", "riss/1.png", "riss/2.png")
    mask(root, "wahrheit/riss/1.png", "wahrheit/riss/2.png")
    arguments = ["extract", "--backbone", "gabor", "--dataset", "folder", "--root", str(root)]
    arguments += ["--store", str(tmp_path / "store"), "--image-size", "32", "--json"]

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pipeline.cli", *arguments, *more]
        return subprocess.run(command, capture_output=True, text=True, timeout=300)

    refused = run()
    read = run("--normal", "gut", "--masks", "wahrheit", "--limit", "1")

    assert refused.returncode == 1
    assert "no folder's name says normal" in refused.stderr
    assert json.loads(read.stdout)["images"] == 2
    told = "1 normal, 1 defective, 1 mask: wahrheit/riss/1.png is the mask of riss/1.png"
    assert told in read.stderr

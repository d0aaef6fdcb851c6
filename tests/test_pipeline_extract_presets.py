"""Each preset from image files to scores, with narrow models of the real kind and real sizes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.plain_vits import PLAIN, pixels_of
from cache.reader import open_cache
from cache.store import open_store
from manifests.images import open_image
from pipeline.configs import ExtractConfig
from pipeline.extraction.extract import extract
from tests.narrow_presets import DEPTH, N_HEADS, WIDTH, shrunk  # noqa: F401
from tests.tiny_images import write_images


@pytest.mark.usefixtures("shrunk")
@pytest.mark.parametrize("decoders", [0, 2])
@pytest.mark.parametrize("name", PLAIN)
def test_a_cache_holds_the_plain_tokens_of_its_image_files(
    tmp_path: Path, name: str, decoders: int
) -> None:
    plain = PLAIN[name]
    torch.manual_seed(3)
    weights = plain.weights(plain, WIDTH, DEPTH, N_HEADS)
    torch.save(weights, tmp_path / "weights.pth")
    write_images(tmp_path / "images", n_good=2, n_bad=1, side=90)
    store = open_store(str(tmp_path / "store"))

    extract(
        store,
        ExtractConfig(
            backbone=(name,),
            dataset="mvtec",
            root=str(tmp_path / "images"),
            weights=(str(tmp_path / "weights.pth"),),
            decoders=decoders,
            batch_size=2,
            device="cpu",
        ),
    )

    cache = open_cache(store, "mvtec", name)
    paths = sorted((tmp_path / "images").glob("nut/test/*/*.png"))
    pixels = torch.stack([pixels_of(open_image(path), plain) for path in paths])
    with torch.inference_mode():
        expected = plain.tokens(plain, weights, pixels, N_HEADS).numpy()
    found = cache.tokens(slice(0, 3)).astype(np.float32)
    assert np.abs(found - expected).max() < 1e-3 * np.abs(expected).max()

"""The four presets at full size, with random weights, on real images: are they the plain ones?

    python -m benchmarks.presets [--presets dinov3 dinov2 siglip openclip] [--scratch DIR]

For each preset, one after the other (4 GB of memory, 1.3 GB of disk): random weights of a ViT-L;
pixels and tokens of an image compared with `benchmarks.plain_vits`, and with the same weights the
library's own way; then `extract`, `fit-sae`, `fit-guides` and `score` by the command line on one
good and one defective image of each category, the same four commands for all. Prints a table.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import pyarrow.parquet
import torch
import zarr
from PIL.Image import Image
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.plain_vits import PLAIN, pixels_of
from benchmarks.real_samples import SHARED, command
from manifests.images import open_image
from pipeline.backbones.load import load_backbone
from pipeline.backbones.preprocess import preprocess
from pipeline.backbones.presets import PRESETS

WIDTH, DEPTH, N_HEADS = 1024, 24, 16
IMAGE = "bottle/test/broken_large/000.png"
COLUMNS = (
    "preset", "key", "pixels, in levels of 255", "tokens", "tokens as stored, float16",
    "the library's own way",
)  # fmt: skip


def random_weights(name: str, folder: Path) -> tuple[Path, dict[str, Tensor]]:
    """Write the weights of a ViT-L, always the same ones."""
    torch.manual_seed(0)
    weights = PLAIN[name].weights(PLAIN[name], WIDTH, DEPTH, N_HEADS)
    path = folder / f"{name}.safetensors"
    save_file(weights, path)
    return path, weights


def relative(found: Tensor, expected: Tensor) -> str:
    """Write the largest difference, relative to the largest token."""
    return f"{float((found - expected).abs().max() / expected.abs().max()):.0e}"


def compared(name: str, path: Path, weights: dict[str, Tensor]) -> tuple[dict[str, str], Tensor]:
    """Compare pixels and tokens of one image; give the table's cells and the plain tokens."""
    plain = PLAIN[name]
    image = open_image(SHARED / "data" / "mvtec" / IMAGE)
    backbone = load_backbone(name, weights=path)
    pixels, expected_pixels = preprocess(image, backbone.spec), pixels_of(image, plain)
    std = torch.tensor(plain.std).reshape(3, 1, 1)
    levels = float(((pixels - expected_pixels).abs() * std).max()) * 255
    with torch.inference_mode():
        expected = plain.tokens(plain, weights, expected_pixels[None], N_HEADS)
    found = backbone(pixels[None]).tokens
    del backbone
    cells = {
        "pixels, in levels of 255": f"{levels:.0e}" if levels else "0",
        "tokens": relative(found, expected),
        "the library's own way": relative(_by_library(name, weights, path, image), expected),
    }
    return cells, expected


def _by_library(name: str, weights: dict[str, Tensor], path: Path, image: Image) -> Tensor:
    """Give the tokens of the same weights as timm or open_clip make them."""
    preset, size = PRESETS[name], PLAIN[name].size
    norm = preset.final_norm
    library = load_backbone(preset.model, image_size=size, weights=path, final_norm=norm)
    tokens = library(preprocess(image, library.spec)[None]).tokens
    return tokens @ weights["visual.proj"] if preset.projection else tokens


def through_the_commands(name: str, path: Path, store: Path) -> tuple[str, Tensor]:
    """Extract, fit and score; give the key and the stored tokens of `IMAGE`."""
    source = ["--dataset", "mvtec", "--backbone", name]
    root = ["--root", str(SHARED / "data" / "mvtec"), "--limit", "1", "--weights", str(path)]
    extracted = command(store, "extract", *source, *root)
    size = ["--width", "64", "--k", "8", "--epochs", "1"]
    sae = command(store, "fit-sae", *source, *size)["id"]
    guides = command(store, "fit-guides", "--sae", sae, "--epochs", "1")["id"]
    metrics = command(store, "score", "--guides", guides, "--dataset", "mvtec")["metrics"]
    assert metrics["mean"]["pixel_auroc"] is not None

    folder = store / "tokens" / "mvtec" / name / extracted["key"]
    images = pyarrow.parquet.read_table(folder / "manifest.parquet")["image_path"].to_pylist()
    tokens = zarr.open_group(folder / "tokens.zarr", mode="r")["tokens"]
    return extracted["key"], torch.from_numpy(tokens[images.index(IMAGE)]).float()[None]  # type: ignore[index]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--presets", nargs="+", default=list(PLAIN), choices=list(PLAIN))
    parser.add_argument("--scratch", type=Path, default=None)
    options = parser.parse_args()
    if not (SHARED / "data").is_dir():
        sys.exit("the real samples (../shared) are not beside this checkout")
    print(f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS), sep="\n", flush=True)
    for name in options.presets:
        with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
            path, weights = random_weights(name, Path(scratch))
            cells, expected = compared(name, path, weights)
            del weights
            key, stored = through_the_commands(name, path, Path(scratch) / "store")
            cells |= {"preset": f"`{name}`", "key": f"`{key}`"}
            cells["tokens as stored, float16"] = relative(stored, expected)
            print(f"| {' | '.join(cells[column] for column in COLUMNS)} |", flush=True)


if __name__ == "__main__":
    main()

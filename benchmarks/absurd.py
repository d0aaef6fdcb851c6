"""Which absurd images are `unsure`, and which real ones wrongly are: bottle and screw as own parts.

    python -m benchmarks.absurd [--store DIR --guides ID] [--draws 200]

A trained ViT-Tiny (block 8, 448 px) with guides fitted on `surface`; without --store both are made
first. `calibrate --good` takes the train images of a product, then `predict` judges its test
images and 30 images made by code, with a threshold of 1: the score alone would call all of them
normal. The second table draws own parts at random from all good images, on cached tokens.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor

import spg_pipe
from benchmarks.real_samples import BACKBONE, SHARED, command, extract
from cache.store import open_store
from pipeline.inputs import open_dataset
from spg_core.familiarity import SHARE, TIMES
from spg_core.guides import unit

LAYER = 8
WEIGHTS = str(SHARED / "weights" / "vit_tiny_patch16_224.safetensors")
PRODUCTS = ("bottle", "screw")


def absurd(
    own: Image.Image, other: Image.Image, surface: Image.Image
) -> Iterator[tuple[str, Image.Image]]:
    """Make 30 images that are no photo of a part as the line takes it."""
    side = 900
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8))
    for name, level in (("grey", 128), ("black", 0), ("white", 255)):
        yield f"flat, {name}", Image.new("RGB", (side, side), (level,) * 3)
    sensor = np.clip(rng.normal(90, 4, (side, side, 3)), 0, 255).astype(np.uint8)
    yield "flat, sensor noise", Image.fromarray(sensor)
    ramp = np.linspace(0, 255, side).astype(np.uint8)
    yield "gradient", Image.fromarray(np.tile(ramp[None, :, None], (side, 1, 3)))
    yield "noise", noise
    yield "noise, enlarged", noise.resize((4 * side, 4 * side)).crop((0, 0, 2000, 2000))
    yield "noise, blurred", noise.filter(ImageFilter.GaussianBlur(6))
    yield "noise, grey", noise.convert("L").convert("RGB")
    yield "checks", checks(side)
    yield "text", text(side, "black", "white")
    yield "text, white on blue", text(side, "white", "navy")
    yield "strip of it", own.crop((0, 400, 900, 490)).resize((2000, 200))
    yield "strip of it, upright", own.crop((400, 0, 490, 900)).resize((200, 2000))
    yield "strip of another", other.crop((0, 400, 900, 490)).resize((2000, 200))
    yield "another product", other
    yield "another, turned", other.rotate(45)
    yield "another, blurred", other.filter(ImageFilter.GaussianBlur(8))
    yield "a surface", surface
    yield "a surface, enlarged", surface.resize((900, 900))
    yield "turned by 90", own.rotate(90)
    yield "turned by 45", own.rotate(45)
    yield "blurred by 8", own.filter(ImageFilter.GaussianBlur(8))
    yield "blurred by 20", own.filter(ImageFilter.GaussianBlur(20))
    values = np.asarray(own, np.float64)
    yield "inverted", Image.fromarray((255 - values).astype(np.uint8))
    yield "three times as bright", Image.fromarray(np.minimum(255, values * 3).astype(np.uint8))
    yield "a sixth as bright", Image.fromarray((values / 6).astype(np.uint8))
    noisy = np.clip(values + rng.normal(0, 60, values.shape), 0, 255)
    yield "with noise of 60", Image.fromarray(noisy.astype(np.uint8))
    yield "its left half", own.crop((0, 0, own.width // 2, own.height))
    yield "its middle, enlarged", own.crop((337, 337, 562, 562))


def checks(side: int) -> Image.Image:
    """Draw a chessboard."""
    board = (np.indices((side, side)) // 50).sum(0) % 2 * 255
    return Image.fromarray(board.astype(np.uint8)).convert("RGB")


def text(side: int, ink: str, paper: str) -> Image.Image:
    """Draw a page of letters."""
    page = Image.new("RGB", (side, side), paper)
    pen = ImageDraw.Draw(page)
    for top in range(20, side - 20, 22):
        pen.text((20, top), " ".join(["lorem ipsum dolor sit amet consectetur"] * 4), fill=ink)
    return page


def judged(store: str, guides: str, product: str, folder: Path) -> str:
    """Calibrate on the train images of a product, judge the others; give a row of the table."""
    data = SHARED / "data"
    root = data / "mvtec" / product
    common = {"guides": guides, "weights": WEIGHTS}
    spg_pipe.calibrate(store, good=str(root / "train/good"), replace=True, **common)
    [other] = [data / "mvtec" / one for one in PRODUCTS if one != product]
    photos = [min((one / "test/good").iterdir()) for one in (root, other)]
    photos.append(min((data / "surface/magnetic_tile/Data/Images/Normal").iterdir()))
    opened = [Image.open(one).convert("RGB") for one in photos]
    made = dict(absurd(*opened))
    for at, picture in enumerate(made.values()):
        picture.save(folder / f"{at:02}.png")
    ask = {"threshold": 1.0, **common}
    found = spg_pipe.predict(store, str(folder), **ask)
    tests = spg_pipe.predict(store, str(root / "test"), **ask)
    missed = [kind for kind, one in zip(made, found, strict=True) if one.verdict != "unsure"]
    alone = [kind for kind, one in zip(made, found, strict=True) if "unlike" not in str(one.reason)]
    good = [one for one in tests if "/good/" in one.path]
    bad = [one for one in tests if "/good/" not in one.path]
    row = [
        product,
        f"{len(made) - len(missed)} of {len(made)}",
        ", ".join(missed) or "-",
        ", ".join(one for one in alone if one not in missed) or "-",
        f"{sum(one.verdict == 'unsure' for one in good)} of {len(good)}",
        f"{sum(one.verdict == 'unsure' for one in bad)} of {len(bad)}",
    ]
    return f"| {' | '.join(row)} |"


def nearest(images: Tensor, own: Tensor) -> Tensor:
    """Give distances `(n, m, P)` of patches to the nearest token of each of m own images."""
    return torch.stack([torch.stack([1 - (a @ b.T).amax(-1) for b in own]) for a in images])


def drawn(store: str, product: str, draws: int) -> list[str]:
    """Draw own parts at random; give rows of wrongly unsure good images, by number of parts."""
    parts = open_dataset(open_store(store), "parts", BACKBONE)
    mine = np.array(parts.manifest.column("category")) == product
    good, bad = (np.flatnonzero(mine & (parts.manifest.labels == label)) for label in (0, 1))
    tokens = [unit(torch.from_numpy(parts.cache.tokens(rows)).float()) for rows in (good, bad)]
    among, broken = nearest(tokens[0], tokens[0]), nearest(tokens[1], tokens[0])
    rng, rows = np.random.default_rng(0), []
    for n in (3, 5, 10, 20):
        wrong: list[Tensor] = []
        unsure: list[Tensor] = []
        for _ in range(draws):
            order = rng.permutation(len(good))
            own, rest = order[:n], order[n:]
            inner = among[own][:, own].clone()
            inner[torch.arange(n), torch.arange(n)] = torch.inf
            limit = TIMES * float(inner.amin(1).quantile(SHARE, dim=1).max())
            for found, images in ((wrong, among[rest]), (unsure, broken)):
                strange = images[:, own].amin(1).quantile(SHARE, dim=1)
                found.append((strange > limit).float().mean())
        shares = [f"{100 * float(torch.stack(one).mean()):.1f} %" for one in (wrong, unsure)]
        rows.append(f"| {product} | {n} | {shares[0]} | {shares[1]} |")
    return rows


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", default=None)
    parser.add_argument("--guides", default="latest")
    parser.add_argument("--draws", type=int, default=200)
    options = parser.parse_args()
    if not (SHARED / "data").is_dir():
        sys.exit("the real samples (../shared) are not beside this checkout")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        store = options.store or make_store(Path(scratch) / "store")
        columns = ("own parts", "absurd", "missed", "by the picture alone", "good", "bad")
        print(f"| {' | '.join(columns)} |")
        print("|---|--:|---|---|--:|--:|")
        for product in PRODUCTS:
            folder = Path(scratch) / product
            folder.mkdir()
            print(judged(store, options.guides, product, folder), flush=True)
        print("\n| own parts | n | other good ones, unsure | bad ones, unsure |\n|---|--:|--:|--:|")
        for product in PRODUCTS:
            print("\n".join(drawn(store, product, options.draws)), flush=True)


def make_store(place: Path) -> str:
    """Extract `surface` and the parts, and fit guides, by the command line."""
    key = extract(place, "surface", LAYER)
    source = ["--dataset", "surface", "--backbone", BACKBONE, "--key", key]
    sae = command(place, "fit-sae", *source, "--width", "1024", "--k", "32", "--epochs", "5")["id"]
    command(place, "fit-guides", "--sae", sae)
    parts = ["--backbone", BACKBONE, "--image-size", "448", "--layer", str(LAYER)]
    parts += ["--weights", WEIGHTS, "--dataset", "mvtec", "--name", "parts", "--split", "all"]
    command(place, "extract", *parts, "--root", str(SHARED / "data" / "mvtec"))
    return str(place)


if __name__ == "__main__":
    main()

"""The method on real images: a trained ViT-Tiny, both directions, by the command line alone.

    python benchmarks/real_samples.py [--store DIR] [--seeds 111 112 113]

Auxiliary `surface` (VisA layout), target `mvtec`, and the reverse; C = 1024, k = 32, the released
recipe otherwise. Prints Markdown tables with each seed and their mean, in %, for the averaged
coefficients (ema) and for those of the last step (raw).
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from manifests.problems import Layout

SHARED = Path(__file__).resolve().parents[1].parent / "shared"
BACKBONE = "timm:vit_tiny_patch16_224"
LAYOUTS: dict[str, Layout] = {"surface": "visa", "mvtec": "mvtec"}
COLUMNS = ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "pixel_aupro")


def command(store: Path, *arguments: str) -> dict[str, Any]:
    """Run one `spg-pipe` command with --json and give what it printed."""
    line = [sys.executable, "-m", "pipeline.cli", *arguments, "--json", "--store", str(store)]
    done = subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def extract(store: Path, dataset: str, layer: int | None = None) -> str:
    """Make the token cache of one sample set; give its key."""
    arguments = ["extract", "--backbone", BACKBONE, "--image-size", "448"]
    arguments += ["--weights", str(SHARED / "weights" / "vit_tiny_patch16_224.safetensors")]
    arguments += ["--dataset", LAYOUTS[dataset], "--name", dataset]
    arguments += ["--root", str(SHARED / "data" / dataset)]
    if layer is not None:
        arguments += ["--layer", str(layer)]
    return str(command(store, *arguments)["key"])


def direction(
    store: Path,
    auxiliary: str,
    target: str,
    *,
    epochs: int,
    seed: int,
    layer: int | None = None,
    coefficients: str = "ema",
) -> dict[str, dict[str, Any]]:
    """Fit on one set and score the other; give the metrics of each target category."""
    key, target_key = (extract(store, name, layer) for name in (auxiliary, target))
    source = ["--dataset", auxiliary, "--backbone", BACKBONE, "--key", key]
    size = ["--width", "1024", "--k", "32", "--epochs", str(epochs), "--seed", str(seed)]
    sae = command(store, "fit-sae", *source, *size)["id"]
    guides = command(store, "fit-guides", "--sae", sae, "--seed", str(seed))["id"]
    target_options = ["--dataset", target, "--key", target_key, "--coefficients", coefficients]
    scores = command(store, "score", "--guides", guides, *target_options)
    categories: dict[str, dict[str, Any]] = scores["metrics"]["categories"]
    return categories


def table(title: str, runs: dict[int, dict[str, dict[str, Any]]]) -> str:
    """Give a Markdown table: a row a category and seed, and the mean over seeds."""
    lines = [f"**{title}**", "", f"| category | seed | {' | '.join(COLUMNS)} |"]
    lines.append("|---|---|" + "--:|" * len(COLUMNS))
    for category in next(iter(runs.values())):
        rows = {str(seed): runs[seed][category] for seed in runs}
        rows["mean"] = {
            name: sum(row[name] for row in rows.values()) / len(runs) for name in COLUMNS
        }
        for seed, row in rows.items():
            values = " | ".join(f"{100 * row[name]:.1f}" for name in COLUMNS)
            lines.append(f"| {category} | {seed} | {values} |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Run all three experiments and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, default=None)
    parser.add_argument("--seeds", type=int, nargs="+", default=[111, 112, 113])
    options = parser.parse_args()
    if not (SHARED / "data").is_dir():
        sys.exit("the real samples (../shared) are not beside this checkout")
    with tempfile.TemporaryDirectory() as scratch:
        store = options.store or Path(scratch)
        for auxiliary, target, epochs, layer in (
            ("surface", "mvtec", 5, None),
            ("mvtec", "surface", 10, None),
            ("mvtec", "surface", 10, 7),
        ):
            where = "last layer" if layer is None else f"block {layer}"
            for coefficients in ("ema", "raw"):
                runs = {
                    seed: direction(
                        store,
                        auxiliary,
                        target,
                        epochs=epochs,
                        seed=seed,
                        layer=layer,
                        coefficients=coefficients,
                    )
                    for seed in options.seeds
                }
                title = f"{auxiliary} -> {target}, {where}, {epochs} SAE epochs, {coefficients}"
                print(table(title, runs), flush=True)


if __name__ == "__main__":
    main()

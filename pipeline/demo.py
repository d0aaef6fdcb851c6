"""Demo: everything on a generated sample, from images to a report, offline.

The steps are those a user would type; each is echoed as the command that does the same.
"""

import dataclasses
import shlex
from pathlib import Path

from cache.store import open_store
from manifests.problems import Layout
from pipeline.artifacts import Artifact
from pipeline.artifacts.documents import ScoresDocument
from pipeline.configs import ExtractConfig, FitGuidesConfig, FitSaeConfig, ScoreConfig
from pipeline.extraction.extract import extract
from pipeline.terminal.progress import say

AUXILIARY, TARGET = "demo-auxiliary", "demo-target"

# The released recipe, fitted to a small set: 64 images of a 160-wide descriptor, not thousands of a
# 1024-wide one. Its 16 and 8 images a step would give 20 to 100 steps, after which an average with
# decay 0.999 is still at its start. Hence small steps, more passes, and a shorter average.
SAE = FitSaeConfig(width=1024, k=16, epochs=6, order="tokens", images_per_step=4)
GUIDES = FitGuidesConfig(epochs=15, images_per_step=4, ema=0.95)
SCORE = ScoreConfig()


def demo(folder: str) -> Artifact[ScoresDocument]:
    """Make the sample and run extract, fit-sae, fit-guides and score on it; give the scores.

    Everything goes below `folder`; what is there already from an earlier run is kept.
    """
    from pipeline.fitting.guides import fit_guides
    from pipeline.fitting.sae import fit_sae
    from pipeline.inputs import open_dataset
    from pipeline.sample.write import write_sample
    from pipeline.scoring.score import score

    place = Path(folder)
    say(f"Drawing products with and without defects into {place / 'images'}")
    sample = write_sample(place / "images")
    where = ["--store", str(place / "store")]
    store = open_store(place / "store")
    products: list[tuple[str, Layout, Path]] = [
        (AUXILIARY, "visa", sample.auxiliary),
        (TARGET, "mvtec", sample.target),
    ]
    for name, layout, root in products:
        config = ExtractConfig(
            backbone=("gabor",), dataset=layout, name=name, root=str(root), thumbnails=True
        )
        _echo(["extract", *options(config), *where])
        extract(store, config)
    _echo(["fit-sae", "--dataset", AUXILIARY, "--backbone", "gabor", *options(SAE), *where])
    sae = fit_sae(store, open_dataset(store, AUXILIARY, "gabor"), SAE)
    _echo(["fit-guides", "--sae", sae.id, *options(GUIDES), *where])
    guides = fit_guides(store, sae.id, GUIDES)
    _echo(
        ["score", "--guides", guides.id, "--dataset", TARGET, *options(SCORE), "--report", *where]
    )
    return score(store, guides.id, TARGET, SCORE, report=True)


def options(config: ExtractConfig | FitSaeConfig | FitGuidesConfig | ScoreConfig) -> list[str]:
    """Give the command-line options that make a stage's config: what differs from its defaults."""
    words = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value == field.default:
            continue
        name = field.name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no-{name}")
        else:
            told = map(str, value) if isinstance(value, tuple) else [str(value)]
            words += [f"--{name}", ",".join(told)]
    return words


def _echo(words: list[str]) -> None:
    say(f"\n$ spg-pipe {shlex.join(words)}")

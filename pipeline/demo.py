"""Demo: everything on a generated sample, from images to a report, offline.

The steps are those a user would type; each is echoed as the command that does the same.
"""

from pathlib import Path

from cache.objects import open_store
from pipeline.artifacts import Artifact
from pipeline.configs import ExtractConfig, FitGuidesConfig, FitSaeConfig, ScoreConfig
from pipeline.extract import extract
from pipeline.progress import say

AUXILIARY, TARGET = "demo-auxiliary", "demo-target"
SAE = FitSaeConfig(width=1024, k=16, epochs=5)
GUIDES = FitGuidesConfig(epochs=8)


def demo(folder: str) -> Artifact:
    """Make the sample and run extract, fit-sae, fit-guides and score on it; give the scores.

    Everything goes below `folder`; what is there already from an earlier run is kept.
    """
    from pipeline.fit_guides import fit_guides
    from pipeline.fit_sae import fit_sae
    from pipeline.inputs import open_dataset
    from pipeline.sample.write import write_sample
    from pipeline.score import score

    place = Path(folder)
    say(f"Drawing products with and without defects into {place / 'images'}")
    sample = write_sample(place / "images")
    store = open_store(place / "store")
    for name, layout, root in (
        (AUXILIARY, "visa", sample.auxiliary),
        (TARGET, "mvtec", sample.target),
    ):
        _echo(
            f"extract --backbone gabor --dataset {layout} --name {name} --root {root} --thumbnails"
        )
        config = ExtractConfig(
            backbone="gabor", dataset=layout, name=name, root=str(root), thumbnails=True
        )
        extract(store, config)
    _echo(
        f"fit-sae --dataset {AUXILIARY} --backbone gabor "
        f"--width {SAE.width} --k {SAE.k} --epochs {SAE.epochs}"
    )
    sae = fit_sae(store, open_dataset(store, AUXILIARY, "gabor"), SAE)
    _echo(f"fit-guides --sae latest --epochs {GUIDES.epochs}")
    guides = fit_guides(store, sae.id, GUIDES)
    _echo(f"score --guides latest --dataset {TARGET} --report")
    return score(store, guides.id, TARGET, ScoreConfig(), report=True)


def _echo(command: str) -> None:
    say(f"\n$ spg-pipe {command}")

"""A small store made by the real stages: generated images, gabor tokens, an SAE, guides.

36 auxiliary and target images of 96 pixels; under ten seconds, once a test session.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from cache.objects import Objects
from cache.store import open_store
from manifests.problems import Layout
from pipeline.artifacts import Artifact
from pipeline.artifacts.documents import GuidesDocument, SaeDocument
from pipeline.configs import ExtractConfig, FitGuidesConfig, FitSaeConfig
from pipeline.extraction.extract import extract
from pipeline.fitting.guides import fit_guides
from pipeline.fitting.sae import fit_sae
from pipeline.inputs import open_dataset
from pipeline.sample.shot import SampleConfig
from pipeline.sample.write import write_sample

SAE = FitSaeConfig(width=64, k=8, epochs=2, images_per_step=4)
GUIDES = FitGuidesConfig(epochs=2, images_per_step=4)


@dataclass(frozen=True)
class SmallStore:
    """Where the images and the store are, and what was fitted."""

    images: Path
    url: str
    sae: Artifact[SaeDocument]
    guides: Artifact[GuidesDocument]


def extract_config(images: Path, which: str) -> ExtractConfig:
    """Give the extraction of `aux` (VisA layout) or `target` (MVTec AD layout)."""
    layouts: dict[str, tuple[Layout, str]] = {
        "aux": ("visa", "auxiliary"),
        "target": ("mvtec", "target"),
    }
    layout, folder = layouts[which]
    return ExtractConfig(
        backbone=("gabor",),
        dataset=layout,
        name=which,
        root=str(images / folder),
        image_size=96,
        thumbnails=True,
        decoders=0,
    )


@pytest.fixture(scope="session")
def small_store(tmp_path_factory) -> SmallStore:
    """The store; tests may add artifacts but change none."""
    place = tmp_path_factory.mktemp("small")
    images = place / "images"
    size = SampleConfig(image_size=96, images_per_category=4, train_images_per_category=1)
    write_sample(images, size)
    store = open_store(place / "store")
    for which in ("aux", "target"):
        extract(store, extract_config(images, which))
    sae = fit_sae(store, open_dataset(store, "aux", "gabor"), SAE)
    guides = fit_guides(store, sae.id, GUIDES)
    return SmallStore(images, str(place / "store"), sae, guides)


@pytest.fixture
def fresh(small_store: SmallStore, tmp_path: Path) -> Objects:
    """A copy of the small store with tokens alone."""
    shutil.copytree(Path(small_store.url) / "tokens", tmp_path / "store" / "tokens")
    return open_store(tmp_path / "store")

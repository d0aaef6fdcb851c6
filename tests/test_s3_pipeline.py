"""Every stage against S3 stores: in the end they hold what a store on local disk holds.

Each test runs on moto, and on the real server at $SPG_TEST_S3_ENDPOINT where there is one.
"""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import torch

from cache.find import read_record
from cache.layout import cache_folder
from cache.maps import open_maps
from cache.objects import Objects
from cache.share import copy_cache
from cache.store import open_store
from cache.verify import verify_cache
from pipeline.artifacts import Artifact, load_artifact
from pipeline.configs import ClusterConfig, ScoreConfig
from pipeline.extraction.extract import extract
from pipeline.fitting.guides import fit_guides
from pipeline.fitting.sae import fit_sae
from pipeline.inputs import open_dataset
from pipeline.sample.shot import SampleConfig
from pipeline.sample.write import write_sample
from pipeline.scoring.score import score
from tests.s3_server import s3_url  # noqa: F401 - the fixture
from tests.small_store import GUIDES, SAE, extract_config

TWO_WORKERS = ClusterConfig(workers=2)


@dataclass(frozen=True)
class Reference:
    """The images, and what the stages made of them on local disk."""

    images: object
    store: Objects
    folders: dict[str, str]
    sae: Artifact[Any]
    guides: Artifact[Any]
    scores: Artifact[Any]


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Reference:
    """65 target images, so two shards; 52 auxiliary ones."""
    place = tmp_path_factory.mktemp("reference")
    size = SampleConfig(image_size=96, images_per_category=13, train_images_per_category=1)
    write_sample(place / "images", size)
    store = open_store(place / "store")
    folders = {which: extracted(store, place / "images", which) for which in ("aux", "target")}
    return Reference(place / "images", store, folders, *fitted_and_scored(store))


def extracted(store, images, which, cluster=None) -> str:
    """Extract a dataset; return its folder in the store."""
    made = extract(store, extract_config(images, which), cluster)
    assert made.state == "extracted"
    return cache_folder(which, "gabor", made.key)


def fitted_and_scored(store) -> tuple[Artifact[Any], ...]:
    """Run the stages after extraction, the report included."""
    sae = fit_sae(store, open_dataset(store, "aux", "gabor"), SAE)
    guides = fit_guides(store, sae.id, GUIDES)
    return sae, guides, score(store, guides.id, "target", SCORE, save_maps=True, report=True)


SCORE = ScoreConfig()


def assert_same_scores(store, made: Artifact[Any], reference: Reference) -> None:
    """Compare metrics, table and maps, read back from the store, with those on local disk."""
    stored = load_artifact(store, "scores", made.id)
    name = f"scores/{made.id}"
    tables = [
        pyarrow.parquet.read_table(io.BytesIO(place.get(f"{name}/images.parquet")))
        for place in (store, reference.store)
    ]
    maps = [open_maps(place, f"{name}/maps.zarr")[:] for place in (store, reference.store)]

    assert stored.document.mean == reference.scores.document.mean
    assert stored.document.categories == reference.scores.document.categories
    assert tables[0].equals(tables[1])
    np.testing.assert_array_equal(*maps)
    assert b"data:image/jpeg;base64," in store.get(f"{name}/report.html")


def test_all_stages_on_s3_give_what_they_give_on_disk(reference, s3_url):  # noqa: F811
    store = open_store(s3_url)
    folders = {which: extracted(store, reference.images, which) for which in ("aux", "target")}

    sae, guides, scores = fitted_and_scored(open_store(s3_url))

    assert folders == reference.folders
    for folder in folders.values():
        assert verify_cache(store, folder).is_sound
        assert read_record(store, folder).receipts == read_record(reference.store, folder).receipts
    assert [sae.id, guides.id, scores.id] == [
        reference.sae.id,
        reference.guides.id,
        reference.scores.id,
    ]
    for made, expected in ((sae, reference.sae), (guides, reference.guides)):
        assert made.tensors.keys() == expected.tensors.keys()
        for name, tensor in expected.tensors.items():
            torch.testing.assert_close(made.tensors[name], tensor, rtol=0, atol=0)
    assert_same_scores(store, scores, reference)


def test_extracting_again_on_s3_finds_everything_there(reference, s3_url):  # noqa: F811
    extracted(open_store(s3_url), reference.images, "target")

    again = extract(open_store(s3_url), extract_config(reference.images, "target"))

    assert again.state == "found"
    assert again.images == 65


def test_a_cache_copied_to_s3_and_back_is_sound_and_scores_alike(
    reference,
    s3_url,  # noqa: F811
    tmp_path,
):
    remote, back = open_store(s3_url), open_store(tmp_path / "back")
    folder = reference.folders["target"]

    there = copy_cache(reference.store, remote, folder)
    again = copy_cache(reference.store, remote, folder)
    home = copy_cache(remote, back, folder)

    assert (there.copied_shards, again.copied_shards, home.copied_shards) == (2, 0, 2)
    assert verify_cache(remote, folder).is_sound
    assert verify_cache(back, folder).is_sound
    assert read_record(back, folder) == read_record(reference.store, folder)


@pytest.mark.slow
def test_two_dask_workers_write_to_s3_what_one_process_writes(reference, s3_url):  # noqa: F811
    store = open_store(s3_url)

    folder = extracted(store, reference.images, "target", TWO_WORKERS)

    expected = read_record(reference.store, folder)
    assert read_record(store, folder).receipts == expected.receipts
    assert verify_cache(store, folder).is_sound
    assert not list(store.walk(f"{folder}/receipts"))
    assert not list(store.temporaries(""))


@pytest.mark.slow
def test_two_dask_workers_score_on_s3_what_one_process_scores(reference, s3_url):  # noqa: F811
    store = open_store(s3_url)
    copy_cache(reference.store, store, reference.folders["target"])
    for kind in ("saes", "guides"):
        for info in reference.store.walk(kind):
            store.put_new(info.name, [reference.store.get(info.name)])

    made = score(
        store,
        reference.guides.id,
        "target",
        SCORE,
        save_maps=True,
        report=True,
        cluster=TWO_WORKERS,
    )

    assert made.id == reference.scores.id
    assert_same_scores(store, made, reference)

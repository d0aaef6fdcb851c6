"""Atoms of fitted guides: worked by hand, against a plain pass over the cache, and as files.

A atoms, P patches of an image.
"""

import io
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cache.objects import Objects
from cache.store import open_store
from pipeline.artifacts import load_artifact
from pipeline.atoms.files import write_atoms
from pipeline.atoms.find import find_atoms, images_at_once, strongest
from pipeline.atoms.sheet import draw_sheet
from pipeline.configs import AtomsConfig, Coefficients, ScoreConfig
from pipeline.fitting.sae import load_sae
from pipeline.report.data import Atom, AtomPatch
from pipeline.scoring.score import score
from spg_core.errors import ArtifactError, ConfigError, CorruptStore, StoreError
from spg_core.sae import encode, to_dense
from tests.small_store import SmallStore

BOX = (64, 224, 255)


def test_the_strongest_atoms_are_those_of_the_largest_coefficients_above_0() -> None:
    coefficients = torch.tensor([0.2, 0.0, 0.5, 0.2, 0.1])

    assert strongest(coefficients, 3).tolist() == [2, 0, 3]
    assert strongest(coefficients, 9).tolist() == [2, 0, 3, 4]


@given(n_atoms=st.integers(0, 5000), n_patches=st.integers(1, 5000))
def test_up_to_16_images_are_looked_at_at_once_within_64_mib(n_atoms: int, n_patches: int) -> None:
    found = images_at_once(n_atoms, n_patches)

    assert 1 <= found <= 16
    assert found == 1 or found * n_atoms * n_patches * 4 <= 64 << 20
    assert found == 16 or (found + 1) * n_atoms * n_patches * 4 > 64 << 20


@pytest.fixture(scope="module")
def store(small_store: SmallStore) -> Objects:
    return open_store(small_store.url, read_only=True)


@pytest.mark.parametrize("coefficients", ["ema", "raw"])
def test_found_atoms_equal_a_plain_pass_over_the_cache(
    small_store: SmallStore, store: Objects, coefficients: Coefficients
) -> None:
    config = AtomsConfig(top=5, patches=4, coefficients=coefficients)
    guides = load_artifact(store, "guides", small_store.guides.id)
    _, sae = load_sae(store, small_store.sae.id)

    data, found = find_atoms(store, guides, config)

    tokens = torch.from_numpy(data.cache.tokens(slice(None))).float()
    n_images, n_patches, d_model = tokens.shape
    latents = to_dense(encode(sae, tokens.reshape(-1, d_model)), sae.n_latents)
    maps = latents.reshape(n_images, n_patches, -1).numpy()
    pair = guides.tensors[f"coefficients_{coefficients}"]
    assert [one.guide for one in found] == ["anomaly"] * 5 + ["normal"] * 5
    for at, guide in ((slice(0, 5), pair[1]), (slice(5, 10), pair[0])):
        assert [one.coefficient for one in found[at]] == guide.sort(descending=True).values[
            :5
        ].tolist()
    categories = np.array(data.manifest.column("category"))
    for one in found:
        atom = maps[:, :, one.index]
        best = np.sort(atom.max(1))[::-1][:4]
        activations = [patch.activation for patch in one.patches]
        np.testing.assert_allclose(activations, best[best > 0], rtol=1e-5)
        for patch in one.patches:
            place = np.ravel_multi_index(patch.patch, patch.heatmap.shape)
            assert place == atom[patch.row].argmax()
            np.testing.assert_allclose(patch.heatmap.ravel(), atom[patch.row], rtol=1e-5, atol=1e-6)
        means = {name: atom[categories == name].mean() for name in data.manifest.categories}
        for name, share in one.category_spread.items():
            assert share == pytest.approx(means[name] / sum(means.values()), rel=1e-4)


def test_several_patches_of_one_image_are_taken_when_asked_for(
    small_store: SmallStore, store: Objects
) -> None:
    one, many = (
        find_atoms(store, small_store.guides, AtomsConfig(top=3, one_per_image=choice))[1]
        for choice in (True, False)
    )

    def n_images(atom: Atom) -> int:
        return len({patch.row for patch in atom.patches})

    def strength(atom: Atom) -> float:
        return sum(patch.activation for patch in atom.patches)

    assert all(n_images(atom) == len(atom.patches) for atom in one)
    assert any(n_images(atom) < len(atom.patches) for atom in many)
    for single, several in zip(one, many, strict=True):
        assert strength(several) >= strength(single)


def test_files_hold_what_was_found(small_store: SmallStore, store: Objects, tmp_path: Path) -> None:
    config = AtomsConfig(top=3, patches=2)
    data, found = find_atoms(store, small_store.guides, config)

    made = write_atoms(store, small_store.guides.id, config, str(tmp_path / "out"))

    table = pq.read_table(tmp_path / "out" / "atoms.parquet").to_pylist()
    expected = [
        (one.guide, one.index, rank, patch.row, patch.patch)
        for one in found
        for rank, patch in enumerate(one.patches, start=1)
    ]
    assert expected == [
        (
            line["guide"],
            line["atom"],
            line["rank"],
            line["row"],
            (line["patch_row"], line["patch_col"]),
        )
        for line in table
    ]
    ids = data.manifest.column("image_id")
    assert all(line["image_id"] == ids[line["row"]] for line in table)
    assert {line["atom_rank"] for line in table} <= {1, 2, 3}
    assert made.files == ["atoms.parquet", "anomaly.png", "normal.png"]
    for name in ("anomaly.png", "normal.png"):
        with Image.open(tmp_path / "out" / name) as sheet:
            assert sheet.format == "PNG"
            assert sheet.height > 3 * 160


def test_files_go_beside_the_guides_unless_told_otherwise(
    small_store: SmallStore, tmp_path: Path
) -> None:
    copy = shutil.copytree(small_store.url, tmp_path / "store")

    made = write_atoms(open_store(copy), "latest", AtomsConfig(guide="anomaly", top=1))

    folder = copy / "guides" / small_store.guides.id / "atoms"
    assert made.path == str(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["anomaly.png", "atoms.parquet"]
    assert load_artifact(open_store(copy), "guides", "latest").id == small_store.guides.id


def _atom(thumbnail: bytes | None) -> Atom:
    heatmap = np.zeros((2, 4), np.float32)
    heatmap[1, 2] = 3.0
    patch = AtomPatch(
        row=0,
        image_id="a",
        image_path="a.png",
        category="screw",
        defect="bent",
        activation=3.0,
        heatmap=heatmap,
        thumbnail=thumbnail,
        patch=(1, 2),
    )
    return Atom(index=7, guide="anomaly", coefficient=0.5, patches=[patch])


def test_a_sheet_outlines_the_patch_in_the_image_s_own_proportions() -> None:
    stream = io.BytesIO()
    Image.new("RGB", (80, 40), (200, 30, 30)).save(stream, "JPEG", quality=95)

    sheet = np.asarray(Image.open(io.BytesIO(draw_sheet([_atom(stream.getvalue())], "t", "n", 1))))

    # the cell is 160 wide and, at 2 : 1, 80 high; the patch covers its columns 80..120 and rows
    # 40..80, and the outline stands 2 pixels off
    ys, xs = np.nonzero((sheet == BOX).all(-1))
    assert (xs.max() - xs.min(), ys.max() - ys.min()) == (44, 44)
    left, top = xs.min() - 78, ys.min() - 38
    red, green, blue = map(int, sheet[top + 8, left + 8])
    assert abs(red - 200) < 8
    assert abs(green - 30) < 8
    assert abs(blue - 30) < 8


def test_a_sheet_without_pictures_shows_the_activations_alone() -> None:
    sheet = np.asarray(Image.open(io.BytesIO(draw_sheet([_atom(None)], "t", "n", 1))))

    ys, xs = np.nonzero((sheet == BOX).all(-1))
    corner = sheet[ys.min() - 20, xs.min() - 20]
    middle = sheet[(ys.min() + ys.max()) // 2, (xs.min() + xs.max()) // 2]
    assert corner.sum() < 30
    assert middle.sum() > 400


def test_a_report_has_the_atoms_and_does_without_where_their_parents_are_missing(
    small_store: SmallStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(small_store.url, tmp_path / "store")
    store = open_store(copy)

    whole = score(store, "latest", "target", ScoreConfig(), report=True)
    shutil.rmtree(copy / "tokens" / "aux")
    lone = score(store, "latest", "target", ScoreConfig(tau=1.0), report=True)

    page = (Path(whole.path) / "report.html").read_text()
    assert page.count('<article class="atom">') == 16
    assert '<section id="atoms">' not in (Path(lone.path) / "report.html").read_text()
    assert "the report shows no atoms: no" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("name", ["atoms.parquet", "normal.png"])
def test_a_file_of_somebody_else_is_never_replaced(
    small_store: SmallStore, tmp_path: Path, name: str
) -> None:
    store, config = open_store(small_store.url), AtomsConfig(top=1, patches=1)
    for _ in range(2):  # its own are
        write_atoms(store, small_store.guides.id, config, str(tmp_path))
    Image.new("RGB", (2, 2)).save(tmp_path / name, "PNG")
    theirs = (tmp_path / name).read_bytes()

    with pytest.raises(StoreError, match=rf"{name} is there and was not written by this command"):
        write_atoms(store, small_store.guides.id, config, str(tmp_path))

    assert (tmp_path / name).read_bytes() == theirs


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"guide": "odd"}, "--guide is 'odd'; it must be anomaly, normal or both"),
        ({"coefficients": "last"}, "--coefficients is 'last'; it must be ema or raw"),
        ({"top": 0}, "--top is 0; it must be a whole number, 1 to"),
        ({"patches": 0}, "--patches is 0; it must be a whole number, 1 to"),
        ({"patches": 10**9}, "--patches is 1000000000; it must be a whole number, 1 to 1000"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AtomsConfig(**options)


def test_guides_over_a_control_dictionary_have_no_atoms(
    small_store: SmallStore, store: Objects
) -> None:
    own = small_store.guides
    config = replace(own.document.config, dictionary="pca")
    control = replace(own, document=replace(own.document, config=config))

    with pytest.raises(ArtifactError, match=r"control dictionary \(pca\)"):
        find_atoms(store, control, AtomsConfig())


def test_a_thumbnail_that_is_no_jpeg_is_named() -> None:
    with pytest.raises(CorruptStore, match=r"the thumbnail of a\.png is no JPEG"):
        draw_sheet([_atom(b"GIF89a no jpeg at all")], "t", "n", 1)


def test_a_report_does_without_what_is_damaged_beside_its_scores(
    small_store: SmallStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(small_store.url, tmp_path / "store")
    for log in copy.glob("*/*/training.jsonl"):
        log.unlink()
        os.mkfifo(log)
    for sae in copy.glob("saes/*/sae.json"):
        sae.write_bytes(b"{")

    scores = score(open_store(copy), "latest", "target", ScoreConfig(), report=True)

    assert (Path(scores.path) / "report.html").stat().st_size > 10_000
    said = " ".join(capsys.readouterr().err.split())
    assert "the report shows no atoms: " in said
    assert "the report shows no training of the Guides: " in said

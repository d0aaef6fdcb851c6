"""The page of atoms and what lies beside it: against a plain pass, and what a killed run leaves.

A atoms, P patches of an image.
"""

import json
import math
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from cache.store import open_store
from pipeline.atoms import browser, cut
from pipeline.atoms.browser import write_page
from pipeline.atoms.survey import survey_sae
from pipeline.configs import AtomsConfig, AtomsSource, ExtractConfig
from pipeline.drawing.thumbnail import open_thumbnail
from pipeline.extraction.extract import extract
from pipeline.fitting.sae import fit_sae, load_sae
from pipeline.inputs import open_dataset
from spg_core.errors import CorruptStore, OptionsDisagree, StoreError
from spg_core.sae import encode, to_dense
from spg_core.types import PatchGrid
from tests.small_store import SAE, SmallStore, extract_config


def numbers_of(page: Path) -> dict[str, Any]:
    """Give the numbers that a page holds."""
    found = re.search(r'id="numbers">(.*?)</script>', page.read_text("utf-8"), re.DOTALL)
    assert found is not None
    numbers: dict[str, Any] = json.loads(found[1])
    return numbers


@pytest.fixture(scope="module")
def made(small_store: SmallStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the whole small SAE."""
    page = tmp_path_factory.mktemp("atoms") / "all.html"
    store = open_store(small_store.url, read_only=True)
    write_page(store, AtomsConfig(patches=4), str(page), guides=None, sae=small_store.sae.id)
    return page


def test_the_table_equals_a_plain_pass(small_store: SmallStore, made: Path) -> None:
    store = open_store(small_store.url, read_only=True)
    data = open_dataset(store, "aux", "gabor")
    _, sae = load_sae(store, small_store.sae.id)
    tokens = torch.from_numpy(data.cache.tokens(slice(None))).float()
    n_images, n_patches, d_model = tokens.shape
    latents = to_dense(encode(sae, tokens.reshape(-1, d_model)), sae.n_latents)
    active = latents.reshape(n_images, n_patches, -1).numpy() > 0
    grid = data.spec.grid
    masks = data.cache.masks(slice(None))
    cells = masks.reshape(n_images, grid.rows, masks.shape[1] // grid.rows, grid.cols, -1)
    marked = cells.any((2, 4)).reshape(n_images, n_patches)
    categories = np.array(data.manifest.column("category"))
    names = list(data.manifest.categories)

    table = pq.read_table(made.with_suffix(".parquet")).to_pylist()

    assert [line["atom"] for line in table] == list(range(sae.n_latents))
    assert any(line["lift"] not in (None, math.inf) for line in table)
    for line in table:
        own = active[:, :, line["atom"]]
        assert line["active"] == own.sum()
        assert line["frequency"] == own.mean()
        assert line["active_defect"] == (own & marked).sum()
        assert line["active_normal"] == (own & ~marked).sum()
        counted = {one["name"]: one["active"] for one in line["categories"]}
        plain = {name: int(own[categories == name].sum()) for name in names}
        assert counted == {name: count for name, count in plain.items() if count}
        if own.any():
            rate = np.array([own[categories == name].mean() for name in names])
            share = rate / rate.sum()
            entropy = -sum(one * math.log(one) for one in share if one > 0) / math.log(len(names))
            assert line["evenness"] == pytest.approx(entropy, abs=1e-12)
        if line["active"] >= 10:
            normal = (own & ~marked).sum() / (~marked).sum()
            lift = math.inf if normal == 0 else (own & marked).sum() / marked.sum() / normal
            assert line["lift"] == pytest.approx(lift)
        else:
            assert line["lift"] is None


def test_every_column_says_what_it_is(made: Path) -> None:
    schema = pq.read_schema(made.with_suffix(".parquet"))

    told = {field.name: field.metadata or {} for field in schema}
    assert all(one[b"comment"] for one in told.values())
    assert told["frequency"][b"unit"] == b"0 to 1"


def test_kinds_of_defect_are_counted_on_their_defect_patches(made: Path) -> None:
    table = pq.read_table(made.with_suffix(".parquet")).to_pylist()

    for line in table:
        kinds = Counter({one["name"]: one["active"] for one in line["defects"]})
        assert sum(kinds.values()) - kinds["good"] == line["active_defect"]
        assert kinds["good"] <= line["active_normal"]


def test_the_page_says_what_the_table_says(made: Path) -> None:
    numbers = numbers_of(made)
    table = {line["atom"]: line for line in pq.read_table(made.with_suffix(".parquet")).to_pylist()}
    columns = numbers["columns"]

    assert sorted(columns["atom"]) == sorted(table)
    assert columns["active"] == sorted(columns["active"], reverse=True)
    for at, atom in enumerate(columns["atom"]):
        line = table[atom]
        assert columns["active"][at] == line["active"]
        assert columns["patches"][at][0::3] == [one["row"] for one in line["patches"]]
        cols = numbers["grid"][1]
        places = [one["patch_row"] * cols + one["patch_col"] for one in line["patches"]]
        assert columns["patches"][at][1::3] == places
        lift = numbers["lift"][at]
        assert lift == (None if line["lift"] is None else pytest.approx(line["lift"], rel=1e-3))


@pytest.mark.parametrize(
    ("patch", "corner"), [(0, (0, 0)), (5 * 9 + 4, (2, 1)), (8 * 9 + 8, (2, 2)), (8, (0, 2))]
)
def test_a_cut_is_moved_inwards_at_an_edge(patch: int, corner: tuple[int, int]) -> None:
    assert cut.corner_of(patch, PatchGrid(9, 9)) == corner


def test_a_cut_shows_its_patch_where_the_page_outlines_it(small_store: SmallStore) -> None:
    grid = PatchGrid(16, 16)
    photo = Image.new("RGB", (256, 256))
    photo.paste((255, 255, 255), (16 * 3, 16 * 15, 16 * 4, 16 * 16))  # patch in row 15, column 3

    found = np.frombuffer(cut._cut(photo, 15 * 16 + 3, grid), np.uint8)
    pixels = found.reshape(cut.CELL, cut.CELL, 3)[:, :, 0] > 128

    high, wide = cut.span_of(grid)
    top, left = cut.corner_of(15 * 16 + 3, grid)
    ys, xs = np.nonzero(pixels)
    side = cut.CELL / wide
    assert abs(xs.min() - (3 - left) * side) <= 1
    assert abs(ys.min() - (15 - top) * cut.CELL / high) <= 1
    assert abs(xs.max() - xs.min() + 1 - side) <= 1


def test_an_image_is_decoded_once_for_all_its_patches(
    small_store: SmallStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: Counter[str] = Counter()

    def counted(jpeg: bytes, owner: str) -> Image.Image:
        opened[owner] += 1
        return open_thumbnail(jpeg, owner)

    monkeypatch.setattr(cut, "open_thumbnail", counted)
    store = open_store(small_store.url, read_only=True)

    write_page(store, AtomsConfig(), str(tmp_path / "a.html"), guides=None, sae=small_store.sae.id)

    assert len(opened) > 5
    assert set(opened.values()) == {1}


def test_pictures_lie_in_the_page_or_beside_it_and_are_the_same(
    small_store: SmallStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, page = open_store(small_store.url, read_only=True), tmp_path / "a #1.html"
    arguments = {"guides": small_store.guides.id, "sae": None}

    inside = write_page(store, AtomsConfig(), str(page), **arguments)
    embedded = page.read_text().count('class="picture"')
    monkeypatch.setattr(browser, "MOST_IN_PAGE", 10)
    beside = write_page(store, AtomsConfig(), str(page), **arguments)

    assert inside.pictures is None
    assert beside.pictures == str(tmp_path / "a #1_files")
    files = sorted(Path(beside.pictures).iterdir())
    assert (
        len(files) == embedded == math.ceil((inside.atoms - inside.never_active) / cut.PER_PICTURE)
    )
    text = page.read_text()
    assert 'class="picture"' not in text
    assert all(f"a%20%231_files/{one.name}" in text for one in files)
    with Image.open(files[0]) as first:
        assert first.size == (8 * cut.CELL, cut.PER_PICTURE * cut.CELL)


def test_a_killed_run_leaves_the_old_page_and_all_it_names(
    small_store: SmallStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browser, "MOST_IN_PAGE", 10)
    store, page = open_store(small_store.url, read_only=True), tmp_path / "a.html"
    sae = small_store.sae.id
    write_page(store, AtomsConfig(patches=2), str(page), guides=None, sae=sae)
    before = page.read_bytes()
    named = {one.name for one in (tmp_path / "a_files").iterdir()}

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(browser, "_write", killed)
        with pytest.raises(KeyboardInterrupt):
            write_page(store, AtomsConfig(patches=3), str(page), guides=None, sae=sae)

    assert page.read_bytes() == before
    assert named < {one.name for one in (tmp_path / "a_files").iterdir()}

    (tmp_path / "a_files" / "mine.jpg").write_bytes(b"theirs")
    write_page(store, AtomsConfig(patches=3), str(page), guides=None, sae=sae)

    left = {one.name for one in (tmp_path / "a_files").iterdir()}
    assert not named & left  # the old page's went, what is not ours stayed
    assert "mine.jpg" in left
    assert all(one in page.read_text() for one in left - {"mine.jpg"})
    assert {one.name for one in tmp_path.iterdir()} == {"a.html", "a.parquet", "a_files"}


def test_a_cache_without_pictures_gives_a_page_that_says_so(
    small_store: SmallStore, tmp_path: Path
) -> None:
    store = open_store(tmp_path / "store")
    given = vars(extract_config(small_store.images, "aux")) | {"thumbnails": False}
    extract(store, ExtractConfig(**given))
    sae = fit_sae(store, open_dataset(store, "aux", "gabor"), SAE)

    page = write_page(store, AtomsConfig(), str(tmp_path / "a.html"), guides=None, sae=sae.id)

    text = Path(page.path).read_text()
    assert "Without pictures" in text
    assert 'class="picture"' not in text
    assert page.pictures is None
    assert numbers_of(Path(page.path))["columns"]["patches"][0]


def test_atoms_of_guides_are_those_above_0_with_their_coefficients(
    small_store: SmallStore, tmp_path: Path
) -> None:
    store, page = open_store(small_store.url, read_only=True), tmp_path / "g.html"
    pair = small_store.guides.tensors["coefficients_ema"]

    write_page(store, AtomsConfig(top=5), str(page), guides=small_store.guides.id, sae=None)

    columns = numbers_of(page)["columns"]
    largest = {int(one) for guide in pair for one in guide.topk(5).indices}
    assert set(columns["atom"]) == largest
    assert list(columns["coefficient"]) == ["anomaly", "normal"]
    for at, atom in enumerate(columns["atom"]):
        assert columns["coefficient"]["anomaly"][at] == pytest.approx(
            float(pair[1, atom]), rel=1e-3
        )


def test_a_damaged_picture_is_named(small_store: SmallStore, tmp_path: Path) -> None:
    store = open_store(small_store.url, read_only=True)
    survey = survey_sae(store, small_store.sae.id, AtomsConfig())
    table = survey.data.manifest.table
    torn = [b"GIF89a no jpeg"] * len(table)
    at = table.column_names.index("thumbnail")
    object.__setattr__(
        survey.data.manifest, "table", table.set_column(at, table.schema.field(at), [torn])
    )

    with pytest.raises(CorruptStore, match="is no JPEG"):
        list(cut.pictures(survey, np.arange(3), tmp_path))

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("source", "config", "message"),
    [
        ({}, {}, "give --guides, or --sae"),
        ({"guides": "latest", "sae": "latest"}, {}, "give --guides, or --sae"),
        ({"sae": "latest"}, {}, "add --out FILE.html"),
        ({"sae": "latest", "out": "folder"}, {}, "add --out FILE.html"),
        ({"sae": "latest", "out": "a.html"}, {"top": 3}, "--top 3 is of guides"),
        ({"sae": "latest", "out": "a.html"}, {"guide": "normal"}, "--guide normal is of guides"),
        ({"guides": "latest", "out": "a.html"}, {"patches": 33}, "--patches is 33; .* up to 32"),
    ],
)
def test_what_does_not_go_together_is_refused(
    source: dict[str, Any], config: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionsDisagree, match=message):
        AtomsSource(**source).check(AtomsConfig(**config))


def test_a_file_of_somebody_else_is_never_replaced(small_store: SmallStore, tmp_path: Path) -> None:
    store, config = open_store(small_store.url, read_only=True), AtomsConfig()
    shutil.copy(next(Path(small_store.url).rglob("manifest.parquet")), tmp_path / "a.parquet")
    (tmp_path / "b_files").write_text("a file")

    with pytest.raises(StoreError, match=r"a\.parquet is there and was not written by this"):
        write_page(store, config, str(tmp_path / "a.html"), guides="latest", sae=None)
    with pytest.raises(StoreError, match="b_files is there and is no folder"):
        write_page(store, config, str(tmp_path / "b.html"), guides="latest", sae=None)
    with pytest.raises(OptionsDisagree, match="a page is written to this machine"):
        write_page(store, config, "s3://bucket/a.html", guides="latest", sae=None)

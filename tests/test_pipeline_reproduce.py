"""`reproduce table1`: what is missing is said with commands that work; what is there is used."""

import json
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from cache.store import open_store
from pipeline.artifacts import list_artifacts, load_artifact
from pipeline.cli import app
from pipeline.configs import FigureConfig, ReproduceConfig
from pipeline.extraction.extract import extract
from pipeline.reproduce.needs import Need, both_datasets, extract_command, require_caches
from pipeline.reproduce.table1 import Table1, table1
from pipeline.scoring.published import published
from pipeline.tables.metrics import PUBLISHED
from spg_core.errors import ArtifactError, ConfigError, NotInStore, StoreError
from tests.small_store import SmallStore, extract_config

SMALL = ReproduceConfig(
    aux="aux", target="target", backbone="gabor", width=32, k=4, sae_epochs=1, guide_epochs=1
)


def test_missing_caches_are_all_named_with_the_commands_that_make_them(tmp_path: Path) -> None:
    needs = both_datasets(ReproduceConfig(aux="surface"))

    with pytest.raises(NotInStore) as caught:
        require_caches(open_store(tmp_path), needs, "my store")

    message = str(caught.value)
    assert "surface by dinov3 is missing; mvtec by dinov3 is missing" in message
    assert [line.strip() for line in message.splitlines()[1:]] == [
        "spg-pipe extract --backbone dinov3 --dataset LAYOUT --name surface --root DIR "
        "--store 'my store'",
        "spg-pipe extract --backbone dinov3 --dataset mvtec --root DIR --store 'my store'",
    ]


@pytest.mark.parametrize("dataset", ["visa", "surface"])
def test_the_command_line_accepts_the_printed_commands(dataset: str) -> None:
    words = shlex.split(extract_command(Need(dataset, "timm:vit_tiny_patch16_224"), "a b"))
    command = typer.main.get_command(app).commands["extract"]  # type: ignore[attr-defined]

    parsed = command.make_context("extract", words[2:])

    assert words[:2] == ["spg-pipe", "extract"]
    assert (parsed.params["name"] or parsed.params["dataset"]) == dataset
    assert parsed.params["store"] == "a b"


def test_a_partial_cache_is_missing_too(small_store: SmallStore, tmp_path: Path) -> None:
    copy = shutil.copytree(small_store.url, tmp_path / "store")
    (record,) = (copy / "tokens" / "target").glob("gabor/*/cache.json")
    record.unlink()

    with pytest.raises(NotInStore, match="target by gabor is only partly written") as caught:
        require_caches(open_store(copy), both_datasets(SMALL), str(copy))

    assert "aux by gabor" not in str(caught.value)


def test_complete_caches_pass(small_store: SmallStore) -> None:
    require_caches(open_store(small_store.url), both_datasets(SMALL), small_store.url)


@pytest.fixture(scope="module")
def two_sizes(small_store: SmallStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store with a second cache of the target, of another input size."""
    copy = shutil.copytree(small_store.url, tmp_path_factory.mktemp("sizes") / "store")
    config = extract_config(small_store.images, "target")
    extract(open_store(copy), type(config)(**{**vars(config), "image_size": 64}))
    return copy


def test_one_of_several_caches_must_be_chosen_before_anything_is_fitted(two_sizes: Path) -> None:
    with pytest.raises(StoreError, match="several caches, choose a key"):
        require_caches(open_store(two_sizes), both_datasets(SMALL), "s")


def test_tokens_that_do_not_fit_each_other_stop_before_the_first_fit(two_sizes: Path) -> None:
    store = open_store(two_sizes)
    known = list_artifacts(store, "saes")
    key = _key_of_size(two_sizes, 64)

    with pytest.raises(ArtifactError, match="height is 96 in one and 64 in the other"):
        table1(store, ReproduceConfig(**{**vars(SMALL), "target_key": key}))

    assert list_artifacts(store, "saes") == known


def _key_of_size(store: Path, size: int) -> str:
    for record in (store / "tokens" / "target" / "gabor").glob("*/cache.json"):
        if f'"height":{size}' in record.read_text().replace(" ", ""):
            return record.parent.name
    raise AssertionError(f"no cache of {size} px")


@pytest.fixture(scope="module")
def reproduced(
    small_store: SmallStore, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Table1]:
    """A store in which table1 was made, and what it gave."""
    copy = shutil.copytree(small_store.url, tmp_path_factory.mktemp("made") / "store")
    return copy, table1(open_store(copy), SMALL)


def test_both_directions_are_fitted_once_and_laid_beside_the_published(
    reproduced: tuple[Path, Table1],
) -> None:
    path, made = reproduced
    store = open_store(path)

    sections = ["aux -> target", "target -> aux"]
    assert list(dict.fromkeys(row.section for row in made.table.rows)) == sections
    assert list(made.table.metrics) == list(PUBLISHED)
    for section, scores, direction in zip(
        sections, made.scores, ("VisA -> MVTec AD", "MVTec AD -> VisA"), strict=True
    ):
        ours, *others = [row for row in made.table.rows if row.section == section]
        assert (ours.kind, ours.name) == ("mean", "ours (gabor, released, seed 111)")
        assert scores.document.fitted_on.dataset == section.split(" -> ")[0]
        assert scores.document.aupro == "clip200"
        for metric in PUBLISHED:
            assert ours.values[metric] == scores.document.mean.values[metric]
        assert {row.name: row.values for row in others} == published(direction)  # type: ignore[arg-type]
        assert all(row.other_data for row in others)
    guides = load_artifact(store, "guides", made.scores[0].document.parents.detector[1])
    assert guides.document.config.epochs == 1
    counts = {kind: list_artifacts(store, kind) for kind in ("saes", "guides", "scores")}  # type: ignore[arg-type]
    again = table1(store, SMALL)
    assert again.table == made.table
    assert counts == {kind: list_artifacts(store, kind) for kind in counts}  # type: ignore[arg-type]


def test_one_direction_alone_fits_one_set_alone(small_store: SmallStore, tmp_path: Path) -> None:
    store = open_store(shutil.copytree(small_store.url, tmp_path / "store"))

    made = table1(store, replace(SMALL, directions="one", seed=7))

    assert {row.section for row in made.table.rows} == {"aux -> target"}
    assert [one.document.fitted_on.dataset for one in made.scores] == ["aux"]


def test_a_figure_is_made_of_both_directions_in_one_call(
    reproduced: tuple[Path, Table1], tmp_path: Path
) -> None:
    store, table = reproduced
    options = ["--aux", "aux", "--target", "target", "--backbone", "gabor", "--width", "32"]
    options += ["--k", "4", "--sae-epochs", "1", "--guide-epochs", "1", "--store", str(store)]
    options += ["--taus", "0.5", "--pools", "max,mean"]

    both = CliRunner().invoke(app, ["reproduce", "fig3", *options, "--json"])
    one = CliRunner().invoke(app, ["reproduce", "fig3", *options, "--directions", "one", "--json"])

    assert (both.exit_code, one.exit_code) == (0, 0), both.output + one.output
    points = json.loads(both.stdout, parse_constant=pytest.fail)["points"]
    assert [point["direction"] for point in points] == [
        *["aux -> target"] * 3,
        *["target -> aux"] * 3,
    ]
    assert [point["tau"] for point in points[:3]] == [0.5, 0.0, "inf"]
    # the maximum is what table 1 has of the same fits
    for point, scores in zip(points[1::3], table.scores, strict=True):
        assert point["image_auroc"] == scores.document.mean.image_auroc
    assert json.loads(one.stdout)["points"] == points[:3]
    with (
        Image.open(f"{json.loads(both.stdout)['path']}/figure.png") as two,
        Image.open(f"{json.loads(one.stdout)['path']}/figure.png") as single,
    ):
        assert two.size == (single.width, 2 * single.height)


def test_fig3_has_the_temperatures_of_the_release() -> None:
    released = (
        "0.001 0.005 0.01 0.05 0.1 0.5 1.0 5.0 10.0 20.0 30.0 40.0 50.0 60.0 70.0 80.0 90.0 100.0"
    )

    assert FigureConfig().taus == tuple(map(float, released.split()))
    assert FigureConfig().pools == ("max", "mean")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"aupro": "fast"}, "--aupro is 'fast'; it must be exact or clip200"),
        ({"guide_epochs": 0}, "epochs is 0; it must be a whole number, 1 to"),
        ({"recipe": "home"}, "--recipe is 'home'; it must be released or paper"),
    ],
)
def test_wrong_options_stop_before_the_first_fit(
    small_store: SmallStore, wrong: dict[str, object], message: str
) -> None:
    store = open_store(small_store.url, read_only=True)

    with pytest.raises(ConfigError, match=message):
        table1(store, ReproduceConfig(**{**vars(SMALL), **wrong}))  # type: ignore[arg-type]


def test_the_command_fails_with_one_message_and_1_or_2(tmp_path: Path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pipeline.cli", "reproduce", *words]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)

    missing = run("table1", "--json")
    unknown = run("table9")
    suffix = run("table1", "--out", "table.doc")

    assert (missing.returncode, missing.stdout) == (1, "")
    assert "spg-pipe extract --backbone dinov3 --dataset visa --root DIR" in missing.stderr
    assert "Traceback" not in missing.stderr
    assert unknown.returncode == 2
    assert "table1" in unknown.stderr
    assert "table9" in unknown.stderr
    assert suffix.returncode == 2
    assert not (tmp_path / "spg-store").exists()


def test_the_command_prints_one_json_object_and_writes_the_table(
    reproduced: tuple[Path, Table1], tmp_path: Path
) -> None:
    store, made = reproduced
    options = ["--aux", "aux", "--target", "target", "--backbone", "gabor", "--width", "32"]
    options += ["--k", "4", "--sae-epochs", "1", "--guide-epochs", "1", "--json"]
    options += ["--store", str(store), "--out", str(tmp_path / "table.csv")]

    done = CliRunner().invoke(app, ["reproduce", "table1", *options])

    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert [one["id"] for one in result["scores"]] == [one.id for one in made.scores]
    assert result["notes"] == list(made.table.notes)
    assert len(result["rows"]) == 18
    assert len((tmp_path / "table.csv").read_text().splitlines()) == 19

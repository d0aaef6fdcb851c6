"""Published numbers by category, typed by hand: checked against Table 1, laid beside ours.

The numbers here are made up around Table 1's means; none of them is the paper's.
"""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cache.store import open_store
from pipeline.artifacts import load_artifact
from pipeline.cli import app
from pipeline.configs import ScoreConfig, TableSource
from pipeline.extraction.extract import extract
from pipeline.scoring.compare import score_table
from pipeline.scoring.published import BENCHMARKS, Direction, published
from pipeline.scoring.published_categories import read_published
from pipeline.scoring.score import score
from pipeline.tables.metrics import PUBLISHED
from spg_core.errors import ConfigError, DatasetError, OptionsDisagree
from tests.small_store import SmallStore, extract_config

TO_MVTEC: Direction = "VisA -> MVTec AD"
HEAD = ["direction", "method", "category", *PUBLISHED]


def made_up(method: str = "SPG (DINOv3)") -> list[list[str]]:
    """Lines whose means are Table 1's: by turns one up and one down, the odd one at it."""
    means = published(TO_MVTEC)[method]
    lines = []
    for number, category in enumerate(sorted(BENCHMARKS["MVTec AD"].categories)):
        shift = 0 if number == 14 else (1, -1)[number % 2]
        printed = ["" if one is None else f"{100 * one + shift:.1f}" for one in means.values()]
        lines.append([TO_MVTEC, method, category, *printed])
    return lines


def typed(folder: Path, lines: list[list[str]], head: list[str] = HEAD) -> str:
    with (folder / "typed.csv").open("w", newline="") as file:
        csv.writer(file).writerows([head, *lines])
    return str(folder / "typed.csv")


def test_each_number_is_read_as_it_was_typed(tmp_path: Path) -> None:
    lines = [*made_up(), *made_up("AA-CLIP")]

    found = read_published(typed(tmp_path, lines), TO_MVTEC)

    assert found.keys() == {"SPG (DINOv3)", "AA-CLIP"}
    assert found["SPG (DINOv3)"]["bottle"] == {
        "image_auroc": 0.924, "image_ap": 0.967, "pixel_auroc": 0.933, "pixel_aupro": 0.887
    }  # fmt: skip
    assert found["AA-CLIP"]["zipper"]["image_ap"] is None
    assert read_published(typed(tmp_path, lines), "MVTec AD -> VisA") == {}


def changed(place: tuple[int, int], text: str) -> list[list[str]]:
    lines = made_up()
    lines[place[0]][place[1]] = text
    return lines


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (changed((3, 3), "9.24"), r"the mean image AUROC is 8\d\.\d, Table 1 prints 91\.4"),
        (changed((3, 6), "89.2"), "the mean pixel AUPRO is .*look for a slip"),
        (changed((0, 0), "VisA -> MVTec"), "line 2: no direction 'VisA -> MVTec' .*did you mean"),
        (
            changed((1, 1), "SPG (DINOv2)"),
            r"no method 'SPG \(DINOv2\)'.*did you mean 'SPG \(DINOv3",
        ),
        (
            changed((1, 2), "cabel"),
            "line 3: no category 'cabel' in the paper; did you mean 'cable'",
        ),
        (changed((1, 2), "bottle"), "line 3: bottle of SPG .* is there twice"),
        (changed((2, 4), "101"), "line 4: image_ap is '101'; it must be a number, 0 to 100"),
        (changed((2, 4), "nan"), "image_ap is 'nan'; it must be a number, 0 to 100"),
        (changed((2, 5), ""), "pixel_auroc is there for 14 of 15 categories"),
        (made_up()[1:], "bottle missing; type all categories or none"),
        ([line[:-1] for line in made_up()], "line 2: expected 7 values"),
        ([[*line, "1"] for line in made_up()], "line 2: expected 7 values"),
    ],
)
def test_a_slip_is_found_and_named(tmp_path: Path, lines: list[list[str]], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        read_published(typed(tmp_path, lines), TO_MVTEC)


def test_a_mean_may_differ_by_the_rounding_of_what_is_printed(tmp_path: Path) -> None:
    lines = made_up()
    for line in lines:
        line[3] = f"{float(line[3]) + 0.1:.1f}"
    assert read_published(typed(tmp_path, lines), TO_MVTEC)

    for line in lines:
        line[3] = f"{float(line[3]) + 0.1:.1f}"
    with pytest.raises(DatasetError, match=r"is 91\.6, Table 1 prints 91\.4"):
        read_published(typed(tmp_path, lines), TO_MVTEC)


def test_what_is_no_such_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="the first line should be direction,method,category"):
        read_published(typed(tmp_path, made_up(), HEAD[:-1]), TO_MVTEC)
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DatasetError, match="is not a CSV file"):
        read_published(str(tmp_path / "x.csv"), TO_MVTEC)
    with pytest.raises(DatasetError, match=r"missing\.csv"):
        read_published(str(tmp_path / "missing.csv"), TO_MVTEC)


@pytest.fixture(scope="module")
def mvtec(small_store: SmallStore, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A store with scores of a set called mvtec, one of whose categories is called bottle."""
    folder = tmp_path_factory.mktemp("mvtec")
    shutil.copytree(small_store.images / "target", folder / "target")
    (folder / "target" / "bottle_cap").rename(folder / "target" / "bottle")
    ignore = shutil.ignore_patterns("scores")
    store = open_store(shutil.copytree(small_store.url, folder / "store", ignore=ignore))
    extract(store, replace(extract_config(folder, "target"), name="mvtec"))
    return store.where, score(store, small_store.guides.id, "mvtec", ScoreConfig()).id


def test_published_categories_stand_below_ours_category_by_category(
    mvtec: tuple[str, str], tmp_path: Path
) -> None:
    store, scores = mvtec
    file = typed(tmp_path, made_up())

    shown = CliRunner().invoke(
        app, ["table", "--scores", scores, "--published", file, "--store", store, "--json"]
    )

    assert shown.exit_code == 0, shown.output
    found = json.loads(shown.stdout)
    bottle = [row for row in found["rows"] if row["section"] == "bottle"]
    assert [(row["source"], row["kind"], row["name"]) for row in bottle] == [
        ("ours", "category", "ours"),
        ("published", "category", "SPG (DINOv3)"),
    ]
    assert bottle[1]["image_auroc"] == 0.924
    assert "another backbone" in bottle[1]["differs"]
    capsule = [row for row in found["rows"] if row["section"] == "capsule"]
    assert [row["source"] for row in capsule] == ["ours", "published"]
    granite = [row for row in found["rows"] if row["section"] == "granite"]
    assert [row["source"] for row in granite] == ["ours"], "the benchmark has no granite"
    means = [row for row in found["rows"] if row["section"] == "mean"]
    assert [row["kind"] for row in means] == ["mean"] * 9
    document = load_artifact(open_store(store), "scores", scores).document
    assert means[0]["pixel_aupro"] == document.mean.pixel_aupro
    assert any("NOT COMPARABLE" in note for note in found["notes"])


def test_published_numbers_are_for_the_benchmarks(small_store: SmallStore, tmp_path: Path) -> None:
    store = open_store(small_store.url)
    made = score(store, small_store.guides.id, "target", ScoreConfig())

    with pytest.raises(ConfigError, match=r"--published is for MVTec AD and VisA; .* is of target"):
        score_table(store, made, typed(tmp_path, made_up()))
    with pytest.raises(OptionsDisagree, match="--published stands beside one of --scores"):
        TableSource(scores=("a", "b"), published="typed.csv")

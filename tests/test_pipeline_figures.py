"""Figures for a paper: formats, sizes and fonts, what stands on their axes and beside them."""

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from pipeline.commands.app import app
from pipeline.configs import ReproduceConfig
from pipeline.drawing.canvas import COLUMN, FORMATS, TWO_COLUMNS, Strip, draw_sheet
from pipeline.drawing.heat import heat_strips
from pipeline.drawing.plots import Across, line_strip, training_strip
from pipeline.drawing.points import Row, points_of
from pipeline.reproduce.pictures import figure_strips
from pipeline.scoring.published import Direction
from pipeline.tables.metrics import PUBLISHED
from tests.small_store import SmallStore

OURS = "visa -> mvtec"
IS_THE_PAPERS: dict[str, Direction] = {OURS: "VisA -> MVTec AD"}


def _rows(**axes: Any) -> list[Row]:
    """Give a point for each value of one axis, and two seeds."""
    [(name, values)] = axes.items()
    return [
        {"direction": OURS, "seed": seed, name: value, **dict.fromkeys(PUBLISHED, 0.5 + 0.1 * seed)}
        for value in values
        for seed in (1, 2)
    ]


def _axes(strip: Strip) -> list[Any]:
    """Give the axes of a strip as they are drawn."""
    from matplotlib.figure import Figure

    axes = Figure().subplots(1, len(strip.panels), squeeze=False)[0]
    for axis, panel in zip(axes, strip.panels, strict=True):
        panel(axis)
    return list(axes)


def _training() -> list[Strip]:
    lines = [{"step": step, "loss": 1 / step} for step in (1, 2, 3)]
    return [training_strip(lines, {"loss": ["loss"], "FVU": ["fvu"]}, "a $ 日本 fit")]


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_same_strips_give_the_same_bytes_and_no_date(suffix: str) -> None:
    import matplotlib as mpl

    first = draw_sheet(_training(), suffix)
    with mpl.rc_context({"font.size": 30, "pdf.fonttype": 3}):
        second = draw_sheet(_training(), suffix)

    assert first == second
    assert b"CreationDate" not in first
    assert b"<dc:date>" not in first


def test_a_pdf_has_the_width_of_a_column_and_its_fonts_as_truetype() -> None:
    column = draw_sheet(_training(), ".pdf")
    two = draw_sheet(heat_strips({"one": [_cell(8, 2, 0.5)]}), ".pdf")

    for data, width in ((column, COLUMN), (two, TWO_COLUMNS)):
        [box] = re.findall(rb"/MediaBox \[ ?0 0 ([\d.]+) ", data)
        assert float(box) == pytest.approx(72 * width, abs=0.1)
        assert b"/Subtype /Type3" not in data
        assert b"/CIDFontType2" in data


def _cell(width: int, k: int, value: float | None) -> Row:
    return {"width": width, "k": k, **dict.fromkeys(PUBLISHED, value)}


def test_all_heatmaps_of_a_metric_share_one_scale_and_the_best_is_framed() -> None:
    low = [_cell(8, 2, 0.25), _cell(8, 4, 0.5), _cell(16, 2, None), _cell(16, 4, 0.5)]
    high = [_cell(8, 2, 0.75)]

    first, second = heat_strips({"low": low, "high": high})

    for strip in (first, second):
        [image] = _axes(strip)[0].get_images()
        assert image.get_clim() == (25, 75)
    axis = _axes(first)[0]
    frames = {(patch.get_x() + 0.46, patch.get_y() + 0.46) for patch in axis.patches}
    assert frames == {(0, 1), (1, 1)}
    assert sorted(text.get_text() for text in axis.texts) == ["25.0", "50.0", "50.0", "x"]


def test_a_metric_that_no_point_has_gets_no_panel() -> None:
    no_image = {"image_auroc": None, "image_ap": None}
    first = [{**_cell(8, 2, 0.25), **no_image}, {**_cell(8, 4, 0.5), **no_image}]

    [strip] = heat_strips({"one": first})
    [failed] = heat_strips({"one": [_cell(8, 2, None)]})

    titles = [axis.get_title() for axis in _axes(strip)]
    assert [title for title in titles if title] == ["pixel AUROC (%)", "pixel AUPRO (%)"]
    assert _axes(strip)[0].get_ylabel() == "sparsity k"
    assert len(failed.panels) == 4
    across = Across(field="k", label="latents", ticks="tested", paper=(2, 4))
    assert len(line_strip(first, across, PUBLISHED, "one").panels) == 2


def test_fig3_has_ticks_at_powers_of_ten_over_the_papers_range() -> None:
    rows = [{**row, "pool": "lse"} for row in _rows(tau=[0.05, 2.0, 0.0, np.inf])]

    [strip] = figure_strips("fig3", rows, ReproduceConfig(), IS_THE_PAPERS)

    axis = _axes(strip)[0]
    told = [label.get_text() for label in axis.get_xticklabels()]
    assert told == ["0.001", "0.01", "0.1", "1", "10", "100"]
    assert list(axis.xaxis.get_minorticklocs()) == [0.05, 2.0]
    low, high = axis.get_xlim()
    assert low < 0.001 < 100 < high < 200
    assert [line.get_label() for line in axis.lines[1:]] == [
        "maximum of the map",
        "mean of the map",
        "maximum, as published",
    ]
    assert axis.lines[-1].get_ydata()[0] == 91.4
    assert strip.title.splitlines() == [
        "VisA → MVTec AD, DINOv3",
        "mean and standard deviation of 2 seeds",
    ]


def test_fig_s1_has_ticks_at_the_tested_counts_and_names_the_published_one() -> None:
    topk = _rows(**{"guides.topk_guides": [8, 64]})
    relu = {
        **_rows(width=[4096])[0],
        "guides.sparsity": "relu",
        "ema_nnz_normal": 100,
        "ema_nnz_anomaly": 50,
        "ema_start_share": 0.25,
    }

    [strip] = figure_strips("figS1", [*topk, relu], ReproduceConfig(), IS_THE_PAPERS)

    axis = _axes(strip)[0]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["8", "64"]
    assert len(axis.xaxis.get_minorticklocs()) == 0
    assert axis.get_xlim()[1] > 1024
    assert list(axis.lines[0].get_ydata()) == pytest.approx([65, 65])
    assert [line.get_label() for line in axis.lines[1:]] == [
        "ReLU + l1, 150 coefficients (25% of the start in the average)",
        "ReLU + l1, 211 coefficients, as published",
    ]


@pytest.mark.parametrize("name", ["fig3", "figS1", "fig2"])
def test_of_other_data_nothing_published_is_drawn(name: str) -> None:
    rows = [
        {**row, "pool": "lse", "k": 2, "width": 8, "guides.topk_guides": 8}
        for row in _rows(tau=[1.0])
    ]

    [strip] = figure_strips(name, rows, ReproduceConfig(), {})

    axis = _axes(strip)[0]
    labels = [str(line.get_label()) for line in axis.lines]
    assert "published" not in " ".join([strip.title, axis.get_title(), *labels])


def test_mean_and_spread_over_seeds_are_of_the_rows_of_one_value() -> None:
    numbers = ((2, 1.0), (2, 3.0), (1, 5.0), (3, None))
    rows: list[Row] = [{"x": x, "y": y} for x, y in numbers]

    points = points_of(rows, "x", "y")

    assert points.x.tolist() == [1, 2]
    assert points.mean.tolist() == [5, 2]
    assert points.spread.tolist() == [0, pytest.approx(2**0.5)]


def test_show_draws_the_training_of_a_fit_and_says_what_it_wrote(
    small_store: SmallStore, tmp_path: Path
) -> None:
    def run(reference: str, name: str) -> Any:
        words = ["show", reference, "--store", str(small_store.url), "--out", str(tmp_path / name)]
        return CliRunner().invoke(app, words)

    for reference in (f"saes/{small_store.sae.id}", f"guides/{small_store.guides.id}"):
        done = run(reference, "t.pdf")

        assert done.exit_code == 0, done.output
        assert f"wrote {tmp_path / 't.pdf'}" in " ".join(done.stderr.split())
        assert (tmp_path / "t.pdf").read_bytes().startswith(b"%PDF")
    wrong = run(f"saes/{small_store.sae.id}", "t.jpg")
    assert "a figure is written to .png, .pdf, .svg, got" in " ".join(str(wrong.exception).split())


def test_a_png_of_ours_opens_and_is_marked(tmp_path: Path) -> None:
    from pipeline.drawing.mark import is_marked

    path = tmp_path / "t.png"
    path.write_bytes(draw_sheet(_training()))

    assert Image.open(io.BytesIO(path.read_bytes())).width == round(300 * COLUMN)
    assert is_marked(path)

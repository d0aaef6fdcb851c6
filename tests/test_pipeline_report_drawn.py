"""What a report draws is what was computed: areas of curves, heatmaps over photos, tiles."""

import io
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from pipeline.report.charts import line_chart
from pipeline.report.data import CategoryCurves, Line, MetricRow, ReportData
from pipeline.report.pictures import draw_tile, heatmap_picture
from pipeline.report.render import render_report
from pipeline.scoring.report_tiles import tiled_rows
from spg_core.curves import Curve
from spg_core.defect_pixels import defect_pixels
from spg_core.image_metrics import image_curves, image_metrics
from spg_core.pixel_counts import count_normals
from spg_core.pixel_metrics import metrics_from_counts, pixel_curves
from tests.report_samples import decoded, sample


@pytest.mark.parametrize(("n", "spread"), [(12, 0.2), (400, 0.4), (90, 0.02)])
def test_the_area_below_each_drawn_line_is_the_metric_that_is_stated(n: int, spread: float) -> None:
    rng = np.random.default_rng(n)
    labels = np.arange(n) % 3 == 0
    scores = np.round(rng.random(n) * (1 - spread) + spread * labels, 2)
    image, curves = image_metrics(scores, labels), image_curves(scores, labels)
    masks = np.zeros((3, 20, 30), np.uint8)
    masks[:, 4:9, 5:9] = 1
    maps = (rng.random(masks.shape) + spread * masks).astype(np.float32)
    defects = defect_pixels(maps, masks)
    counts = count_normals(maps, masks, defects)
    pixel, lines = metrics_from_counts(defects, counts), pixel_curves(defects, counts)
    assert curves is not None
    assert lines is not None

    page = _page_of(
        CategoryCurves(
            image_roc=_line(curves.roc),
            pixel_roc=_line(lines.roc),
            image_pr=_line(curves.pr),
            pixel_pr=_line(lines.pr),
            pro=_line(lines.pro),
        ),
        {"pixel_aupro": pixel.aupro},
    )

    expected = [image.auroc, pixel.auroc, image.ap, pixel.ap, pixel.aupro]
    paths = re.findall(r'class="series s[01]" d="(M[^"]+)"', page)
    areas = [_area(path) for path in paths if path != "M1 4H19"]  # which is the key's
    assert areas == pytest.approx(expected, abs=1e-3)
    told = [float(text) for text in re.findall(r"</svg>[^<]*area ([\d.]+) %", page)]
    assert told == pytest.approx([100 * (value or 0) for value in expected], abs=0.051)


def _page_of(curves: CategoryCurves, metrics: dict[str, float | None]) -> str:
    one, row = sample().images[0], MetricRow(values=metrics)
    return render_report(
        ReportData(
            title="",
            run={},
            mean=row,
            categories={one.category: row},
            images=[one],
            curves={one.category: curves},
        )
    )


def _line(curve: Curve) -> Line:
    return Line(x=curve.x, y=curve.y)


def _area(path: str) -> float:
    """The area below a path as a share of its chart's box, from the page's own numbers."""
    points = np.array([[float(n) for n in point.split()] for point in path[1:].split("L")])
    chart = line_chart("", "", "", {"": Line(x=[0, 1], y=[0, 1])})
    assert chart is not None
    x = (points[:, 0] - chart.left) / (chart.right - chart.left)
    y = (chart.bottom - points[:, 1]) / (chart.bottom - chart.top)
    assert x[-1] == pytest.approx(1)
    # the stairs of precision begin at the first recall, and are level before it
    return float(np.trapezoid(y, x) + x[0] * y[0])


def test_an_aupro_of_another_definition_is_told_beside_the_area() -> None:
    data = sample()
    row = MetricRow(values={"pixel_aupro": 0.1})

    page = render_report(replace(data, categories={"bottle": row, "screw": row}))

    assert "AUPRO as released, by 200 thresholds: 10.0 %" in page


def test_a_heatmap_hides_nothing_of_a_photo_where_it_is_zero() -> None:
    values = np.array([[0.0, 1.0, 0.5]], np.float32)

    over = decoded(heatmap_picture(values, 1.0, see_through=True).uri).convert("RGBA")
    alone = decoded(heatmap_picture(values, 1.0).uri).convert("RGBA")

    assert np.asarray(over)[0, :, 3].tolist() == [0, 255, 128]
    assert np.asarray(alone)[0, :, 3].tolist() == [255] * 3


def test_a_tile_takes_little_room_and_shows_the_map() -> None:
    rng = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(rng.random((448, 448)), 12).astype(np.float32)
    values = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    noise, stream = (rng.random((448, 448, 3)) * 255).astype(np.uint8), io.BytesIO()
    Image.fromarray(noise).save(stream, "JPEG")

    tile = draw_tile(values, stream.getvalue(), "noise")

    assert tile.photo is not None
    assert len(tile.heat) < 2000
    assert len(tile.photo) < 10_000
    with Image.open(io.BytesIO(tile.heat)) as heat:
        cover = np.asarray(heat.convert("RGBA"))[..., 3] / 255
    expected = values.reshape(56, 8, 56, 8).mean((1, 3))
    assert np.abs(cover - expected).max() < 0.07


def test_of_too_many_images_the_most_wrongly_ranked_of_each_category_have_tiles() -> None:
    # of each category normal ones of .1 .3 .5, anomalous ones of .2 .4 .6
    images = [replace(image, row=10 * image.row) for image in sample().images]

    assert tiled_rows(images).tolist() == [10 * row for row in range(12)]
    assert tiled_rows(images, 4).tolist() == [10, 40, 70, 100]

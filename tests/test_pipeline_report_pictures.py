"""What a report draws: colours on one scale, galleries and charts."""

import re
from typing import Any

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.report.charts import _thin, histogram, line_chart
from pipeline.report.data import (
    Line,
)
from pipeline.report.gallery import Pick, select_gallery
from pipeline.report.pictures import MAX_SIDE, heatmap_picture, mask_picture, thumbnail_picture
from spg_core.errors import ConfigError, CorruptStore, MetricError
from tests.report_samples import decoded, jpeg

# --- pictures: one scale --------------------------------------------------------------------------


def test_a_value_of_one_half_takes_the_middle_colour_of_inferno() -> None:
    picture = heatmap_picture(np.full((2, 3), 0.5, np.float32), top=1.0)

    expected = matplotlib.colormaps["inferno"](128, bytes=True)[:3]
    assert decoded(picture.uri).convert("RGB").getpixel((0, 0)) == tuple(expected)
    assert (picture.width, picture.height) == (3, 2)


def test_the_same_value_has_the_same_colour_in_maps_of_different_maxima() -> None:
    faint = heatmap_picture(np.array([[0.2, 0.05]], np.float32), top=1.0)
    strong = heatmap_picture(np.array([[0.2, 0.95]], np.float32), top=1.0)

    faint_pixels, strong_pixels = (
        np.asarray(decoded(p.uri).convert("RGB")) for p in (faint, strong)
    )
    assert (faint_pixels[0, 0] == strong_pixels[0, 0]).all()
    assert int(faint_pixels.sum()) < int(strong_pixels.sum())


def test_values_above_a_lowered_top_take_the_last_colour() -> None:
    picture = heatmap_picture(np.array([[0.5, 0.9]], np.float32), top=0.5)

    assert np.asarray(decoded(picture.uri)).tolist() == [[255, 255]]


def test_large_maps_shrink_by_averaging_and_keep_their_shape() -> None:
    values = np.tile(np.array([0.0, 0.5], np.float32), (MAX_SIDE, MAX_SIDE))

    picture = heatmap_picture(values, top=1.0)

    assert (picture.width, picture.height) == (MAX_SIDE, MAX_SIDE // 2)
    assert np.unique(np.asarray(decoded(picture.uri))).tolist() == [64]


def test_a_mask_of_one_pixel_survives_shrinking() -> None:
    mask = np.zeros((900, 700), np.uint8)
    mask[450, 350] = 1

    assert np.asarray(decoded(mask_picture(mask).uri)).sum() >= 1


def test_a_thumbnail_that_is_no_jpeg_is_refused_by_name() -> None:
    with pytest.raises(CorruptStore, match="the thumbnail of image 3 is no JPEG"):
        thumbnail_picture(b"<svg onload='alert(1)'>", "image 3")


def test_a_huge_thumbnail_is_refused_with_its_size() -> None:
    with pytest.raises(CorruptStore, match="5000 x 1, expected at most 4096"):
        thumbnail_picture(jpeg(5000, 1), "image 3")


# --- gallery --------------------------------------------------------------------------------------


def test_worst_is_the_lowest_anomalous_and_the_highest_normal_score() -> None:
    scores = np.array([0.9, 0.1, 0.5, 0.2, 0.8, 0.4])
    labels = np.array([1, 1, 1, 0, 0, 0])

    picks = select_gallery(scores, labels, ["a"] * 6)

    assert picks == [
        Pick(0, "best"), Pick(2, "median"), Pick(1, "worst"),
        Pick(3, "best"), Pick(5, "median"), Pick(4, "worst"),
    ]  # fmt: skip


def test_a_lone_image_is_the_median_and_a_pair_is_best_and_worst() -> None:
    picks = select_gallery(np.array([0.1, 0.7, 0.6]), np.array([0, 1, 1]), ["a"] * 3)

    assert picks == [Pick(1, "best"), Pick(2, "worst"), Pick(0, "median")]


scored = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 1), st.sampled_from(["a", "b"])), max_size=40
)


@given(images=scored, sixths=st.integers(1, 3))
def test_a_gallery_takes_each_image_once_and_as_many_as_there_are(
    images: list[tuple[int, int, str]], sixths: int
) -> None:
    scores = np.array([s for s, _, _ in images], float)
    labels = np.array([x for _, x, _ in images], int)
    names = [c for _, _, c in images]

    picks = select_gallery(scores, labels, names, 6 * sixths)

    rows = [pick.row for pick in picks]
    assert len(set(rows)) == len(rows)
    for name in ("a", "b"):
        for label in (0, 1):
            group = [i for i, image in enumerate(images) if image[1:] == (label, name)]
            shown = [pick for pick in picks if pick.row in group]
            assert len(shown) == min(len(group), 3 * sixths)
            worst = [scores[pick.row] for pick in shown if pick.rank == "worst"]
            if worst:
                extreme = min if label else max
                assert worst[0] == extreme(scores[group])
    assert picks == select_gallery(np.exp(scores), labels, names, 6 * sixths)


@pytest.mark.parametrize("per_category", [0, 5, 7])
def test_a_gallery_that_cannot_be_split_evenly_is_refused(per_category: int) -> None:
    with pytest.raises(ConfigError, match="multiple of 6"):
        select_gallery(np.array([0.1]), np.array([0]), ["a"], per_category)


def test_scores_that_are_not_finite_or_not_one_an_image_are_refused() -> None:
    with pytest.raises(MetricError, match="image 1 has the score nan"):
        select_gallery(np.array([0.1, np.nan]), np.array([0, 1]), ["a", "a"])
    with pytest.raises(MetricError, match="2 scores, 1 labels and 2 categories"):
        select_gallery(np.array([0.1, 0.2]), np.array([0]), ["a", "a"])


# --- charts ---------------------------------------------------------------------------------------


def test_a_line_runs_from_corner_to_corner_of_its_box() -> None:
    chart = line_chart("t", "x", "y", {"a": Line(x=[0, 1], y=[0, 1])})

    assert chart is not None
    assert chart.paths[0].d == f"M{chart.left:g} {chart.bottom:g}L{chart.right:g} {chart.top:g}"
    assert [tick.label for tick in chart.x_ticks] == ["0", "0.2", "0.4", "0.6", "0.8", "1"]


def test_a_log_axis_has_powers_of_ten_at_equal_steps() -> None:
    chart = line_chart("t", "x", "y", {"a": Line(x=[0.01, 1, 100], y=[1, 2, 3])}, log_x=True)

    assert chart is not None
    assert [tick.label for tick in chart.x_ticks] == ["0.01", "0.1", "1", "10", "100"]
    assert np.ptp(np.diff([tick.at for tick in chart.x_ticks])) < 0.2


def test_bars_of_a_histogram_are_shares_of_their_own_group() -> None:
    groups = {"normal": np.array([0.0, 0.0, 0.0]), "anomalous": np.array([1.0])}

    chart = histogram("t", "x", groups, x_range=(0.0, 1.0))

    assert chart is not None
    for path in chart.paths:
        heights = [float(y) for y in re.findall(r" ([\d.]+)", path.d)]
        assert min(heights) == chart.top
    assert [path.name for path in chart.paths] == ["normal (3)", "anomalous (1)"]


def test_what_cannot_be_drawn_is_left_out() -> None:
    lost = Line(x=[0, 1, 2], y=[np.nan, 1, np.inf])

    assert line_chart("t", "x", "y", {"a": lost}) is None
    assert histogram("t", "x", {"normal": np.array([])}, x_range=(0.0, 1.0)) is None


def test_a_constant_line_is_drawn_in_the_middle() -> None:
    chart = line_chart("t", "x", "y", {"a": Line(x=[1, 2, 3], y=[5, 5, 5])})

    assert chart is not None
    middle = (chart.top + chart.bottom) / 2
    assert chart.paths[0].d == f"M{chart.left:g} {middle:g}L{chart.right:g} {middle:g}"


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 200)), min_size=2, max_size=60))
def test_thinning_moves_a_curve_by_less_than_anyone_sees(points: list[tuple[int, int]]) -> None:
    full = np.array(sorted(points), dtype=float)

    thin = _thin(full)

    assert (thin[0] == full[0]).all()
    assert (thin[-1] == full[-1]).all()
    assert max(_distance_to_path(point, thin) for point in full) <= 0.15 + 1e-9


def _distance_to_path(point: Any, path: Any) -> float:
    starts, steps = path[:-1], np.diff(path, axis=0)
    lengths = np.maximum((steps**2).sum(1), 1e-12)
    along = np.clip(((point - starts) * steps).sum(1) / lengths, 0, 1)
    return float(np.linalg.norm(starts + along[:, None] * steps - point, axis=1).min())


def test_a_curve_over_a_million_thresholds_stays_small() -> None:
    x = np.linspace(0, 1, 1_000_001)

    chart = line_chart("t", "x", "y", {"a": Line(x=x, y=1 - (1 - x) ** 9)})

    assert chart is not None
    assert len(chart.paths[0].d) < 2_000

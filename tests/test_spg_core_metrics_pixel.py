import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from spg_core.defect_pixels import defect_pixels, merge_defects
from spg_core.errors import MetricError
from spg_core.pixel_counts import count_normals, merge_counts
from spg_core.pixel_metrics import (
    PixelCurves,
    PixelMetrics,
    metrics_from_counts,
    pixel_curves,
    pixel_metrics,
    pixel_metrics_of_blocks,
)
from spg_core.regions import region_sizes

Array = NDArray[Any]
DENORMAL = np.float32(1e-45)
LEVELS = np.array([-0.0, 0.0, DENORMAL, 3 * DENORMAL, -DENORMAL, 0.25, 0.5, 1.0, -2.0], np.float32)


def plain_aupro(maps: Array, masks: Array, limit: float = 0.3) -> float:
    """PRO at every distinct value, one threshold after another: slow and obvious."""
    regions = [
        maps[i][labels == region]
        for i, mask in enumerate(masks)
        for labels in [ndimage.label(mask, np.ones((3, 3)))[0]]
        for region in range(1, labels.max() + 1)
    ]
    normals = maps[masks == 0]
    fpr, pro = [0.0], [0.0]
    for threshold in np.unique(maps)[::-1]:
        fpr.append(float(np.mean(normals >= threshold)))
        pro.append(float(np.mean([np.mean(region >= threshold) for region in regions])))
    area = 0.0
    for x0, x1, y0, y1 in zip(fpr, fpr[1:], pro, pro[1:], strict=False):
        end = min(x1, limit)
        if end > x0:
            y_end = y0 + (y1 - y0) * (end - x0) / (x1 - x0)
            area += (end - x0) * (y0 + y_end) / 2
    return area / limit


def looped_clip200(maps: Array, masks: Array) -> float:
    """The released definition, threshold by threshold on whole maps."""
    lowest, highest = maps.min(), maps.max()
    fpr, pro = [], []
    for threshold in np.arange(lowest, highest, (highest - lowest) / 200):
        flagged = maps > threshold
        overlaps = []
        for mask, flags in zip(masks, flagged, strict=True):
            labels, n_regions = ndimage.label(mask, np.ones((3, 3)))
            overlaps += [flags[labels == region].mean() for region in range(1, n_regions + 1)]
        pro.append(np.mean(overlaps))
        fpr.append(flagged[masks == 0].sum() / (masks == 0).sum())
    x, y = np.array(fpr), np.array(pro)
    x, y = x[x < 0.3], y[x < 0.3]
    return float(-np.trapezoid(y, (x - x.min()) / (x.max() - x.min())))


def smooth_sample(seed: int, n: int = 6, height: int = 31, width: int = 27) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    maps = ndimage.gaussian_filter(rng.standard_normal((n, height, width)), (0, 3, 3))
    masks = np.zeros((n, height, width), np.uint8)
    for image in range(0, n, 2):
        for _ in range(2):
            row, column = rng.integers(0, height - 6), rng.integers(0, width - 6)
            masks[image, row : row + rng.integers(2, 6), column : column + 3] = 1
    return (maps + 0.1 * masks).astype(np.float32), masks


@st.composite
def tied_samples(draw: st.DrawFn) -> tuple[Array, Array]:
    shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(2, 6)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_levels = draw(st.integers(1, len(LEVELS)))
    maps = rng.choice(rng.permutation(LEVELS)[:n_levels], size=shape)
    masks = (rng.random(shape) < draw(st.sampled_from([0.1, 0.5, 0.9]))).astype(np.uint8)
    masks[0, 0, :2] = 0, 1
    return maps, masks


def assert_matches_plain(maps: Array, masks: Array, result: PixelMetrics) -> None:
    truth, values = masks.ravel(), maps.ravel().astype(np.float32)
    precision, recall, _ = precision_recall_curve(truth, values)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    assert result.auroc == pytest.approx(roc_auc_score(truth, values), abs=1e-11)
    assert result.ap == pytest.approx(average_precision_score(truth, values), abs=1e-11)
    assert result.f1max == pytest.approx(f1.max(), abs=1e-11)
    assert result.aupro == pytest.approx(plain_aupro(maps, masks), abs=1e-11)


def test_ten_pixels_by_hand() -> None:
    # Regions {0.9} and {0.5, 0.5}; normals 0.7, 0.5 and five at 0.1. PRO is 1/2 up to FPR 1/7,
    # then rises to 1 at FPR 2/7 along the tie at 0.5, then stays.
    maps = np.array([[[0.9, 0.7, 0.5, 0.5, 0.5], [0.1, 0.1, 0.1, 0.1, 0.1]]], np.float32)
    masks = np.array([[[1, 0, 1, 1, 0], [0, 0, 0, 0, 0]]], np.uint8)

    result = pixel_metrics(maps, masks)

    assert result.auroc == (7 + 2 * 5.5) / 21
    assert result.ap == pytest.approx((1 + 2 * 3 / 5) / 3, abs=1e-15)
    assert result.f1max == pytest.approx(2 * 3 / (5 + 3), abs=1e-15)
    assert result.aupro == pytest.approx(
        (1 / 2 / 7 + 3 / 4 / 7 + (0.3 - 2 / 7) * 1) / 0.3, abs=1e-15
    )
    assert result.reason is None


def test_regions_touching_at_a_corner_are_one() -> None:
    mask = np.zeros((5, 6), bool)
    mask[1, 1] = mask[2, 2] = mask[4, 5] = True

    box, sizes, n_regions = region_sizes(mask)

    assert box == (slice(1, 5), slice(1, 6))
    assert sizes.tolist() == [2, 2, 1]
    assert n_regions == 2


@pytest.mark.parametrize("seed", range(4))
def test_smooth_maps_agree_with_scikit_learn_and_a_plain_aupro(seed: int) -> None:
    maps, masks = smooth_sample(seed)

    assert_matches_plain(maps, masks, pixel_metrics(maps, masks))


@given(tied_samples())
@settings(deadline=None, max_examples=60)
def test_ties_denormals_and_signed_zeros_agree_too(sample: tuple[Array, Array]) -> None:
    maps, masks = sample

    assert_matches_plain(maps, masks, pixel_metrics(maps, masks))


@pytest.mark.parametrize("seed", range(3))
def test_float16_maps_are_ranked_as_they_are(seed: int) -> None:
    maps, masks = smooth_sample(seed)
    half = maps.astype(np.float16)

    result = pixel_metrics(half, masks)

    assert result == pixel_metrics(half.astype(np.float32), masks.astype(bool))
    assert_matches_plain(half, masks, result)


@pytest.mark.parametrize("shift", [-3, -0.5, 0, 2])
def test_normals_that_need_no_sorting_are_counted_too(shift: float) -> None:
    rng = np.random.default_rng(7)
    maps: Array = (rng.integers(0, 50, (4, 20, 30)) / 25 + shift).astype(np.float32)
    masks = ((maps > 1.6 + shift) & (rng.random(maps.shape) < 0.4)).astype(np.uint8)
    defects = defect_pixels(maps, masks)
    normals = maps[masks == 0]
    assert (normals < defects.values[0]).mean() > 0.5

    counts = count_normals(maps, masks, defects, clip200=False)

    values = np.unique(defects.values)
    assert counts.below.tolist() == [(normals < value).sum() for value in values]
    assert counts.equal.tolist() == [(normals == value).sum() for value in values]
    with_clip = count_normals(maps, masks, defects)
    assert with_clip.below.tolist() == counts.below.tolist()
    assert with_clip.equal.tolist() == counts.equal.tolist()
    assert with_clip.clip_above.tolist() == [
        (normals > threshold).sum() for threshold in defects.clip_thresholds()
    ]
    assert_matches_plain(maps, masks, metrics_from_counts(defects, counts))


def test_more_thresholds_than_one_lookup_agree() -> None:
    rng = np.random.default_rng(5)
    maps = rng.random((2, 150, 100)).astype(np.float32)
    masks = (rng.random(maps.shape) < 0.6).astype(np.uint8)

    result = pixel_metrics(maps, masks)

    assert result.auroc == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()), abs=1e-12)


def test_all_equal_maps_are_chance() -> None:
    maps, masks = np.full((2, 4, 4), 0.5, np.float32), np.zeros((2, 4, 4), np.uint8)
    masks[1, 2:, 2:] = 1

    result = pixel_metrics(maps, masks)

    assert (result.auroc, result.ap) == (0.5, 4 / 32)
    assert result.aupro == pytest.approx(0.15, abs=1e-15)


def test_zeros_and_ones_that_equal_the_mask_are_perfect() -> None:
    _, masks = smooth_sample(0)

    result = pixel_metrics(masks.astype(np.float32), masks)

    assert result == PixelMetrics(1.0, 1.0, 1.0, 1.0)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("scale", [1.0, 37.0])
def test_clip200_is_the_released_definition(seed: int, scale: float) -> None:
    maps, masks = smooth_sample(seed)
    maps = (1 / (1 + np.exp(-scale * maps))).astype(np.float32)

    result = pixel_metrics(maps, masks, aupro="clip200")

    assert result.aupro == pytest.approx(looped_clip200(maps, masks), abs=1e-11)


@pytest.mark.parametrize("seed", range(4))
def test_clip200_is_right_for_pixels_a_rounding_away_from_its_thresholds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lowest, highest = np.float32(0.0123 * (seed + 1)), np.float32(0.98765)
    near = np.arange(lowest, highest, (highest - lowest) / 200).astype(np.float32)[1:200]
    pixels = np.concatenate([near, np.nextafter(near, np.float32(0)), [lowest, highest]])
    maps = rng.permutation(pixels).reshape(1, 20, 20).astype(np.float32)
    masks = (rng.random(maps.shape) < 0.2).astype(np.uint8)

    result = pixel_metrics(maps, masks, aupro="clip200")

    assert result.aupro == pytest.approx(looped_clip200(maps, masks), abs=1e-13)


def test_clip200_depends_on_the_scale_and_exact_does_not() -> None:
    maps, masks = smooth_sample(1)
    stretched = np.exp(20 * maps)

    clipped, exact = pixel_metrics(maps, masks, aupro="clip200"), pixel_metrics(maps, masks)

    assert pixel_metrics(stretched, masks) == exact
    assert clipped.aupro is not None
    other = pixel_metrics(stretched, masks, aupro="clip200").aupro
    assert other is not None
    assert abs(other - clipped.aupro) > 0.05


def test_clip200_of_flat_maps_is_undefined_and_the_rest_is_not() -> None:
    maps, masks = np.zeros((1, 4, 4), np.float32), np.zeros((1, 4, 4), np.uint8)
    masks[0, 0, 0] = 1

    result = pixel_metrics(maps, masks, aupro="clip200")

    assert (result.auroc, result.aupro) == (0.5, None)
    assert "clip200 AUPRO is undefined" in str(result.reason)


@given(tied_samples(), st.data())
@settings(deadline=None, max_examples=60)
def test_any_split_in_any_order_merges_to_the_same_bits(
    sample: tuple[Array, Array], data: st.DataObject
) -> None:
    maps, masks = sample
    cuts = data.draw(st.lists(st.integers(1, len(maps)), max_size=3).map(sorted))
    blocks = [
        (maps[start:end], masks[start:end])
        for start, end in zip([0, *cuts], [*cuts, len(maps)], strict=True)
        if end > start
    ]
    blocks = data.draw(st.permutations(blocks))

    firsts = pickle.loads(pickle.dumps([defect_pixels(*block) for block in blocks]))
    defects = merge_defects(firsts)
    counts = merge_counts([count_normals(*block, defects) for block in blocks])

    for aupro in ("exact", "clip200"):
        whole = pixel_metrics(maps, masks, aupro=aupro)
        assert metrics_from_counts(defects, counts, aupro=aupro) == whole
        assert pixel_metrics_of_blocks(lambda: blocks, aupro=aupro) == whole


@pytest.mark.parametrize("seed", range(3))
def test_smooth_maps_split_and_permuted_give_the_same_bits(seed: int) -> None:
    maps, masks = smooth_sample(seed)
    order = np.random.default_rng(seed).permutation(len(maps))
    blocks = [(maps[order[:1]], masks[order[:1]]), (maps[order[1:]], masks[order[1:]])]

    assert pixel_metrics_of_blocks(lambda: blocks) == pixel_metrics(maps, masks)


def test_the_number_of_threads_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    maps, masks = smooth_sample(4, n=20)
    whole = pixel_metrics(maps, masks)

    monkeypatch.setattr("spg_core.pixel_counts.PIXELS_PER_SORT", 1)
    monkeypatch.setattr("spg_core.pixel_counts.PIXELS_PER_THRESHOLD", 0)

    assert pixel_metrics(maps, masks, threads=3) == whole


@pytest.mark.parametrize("rows_per_sort", [1, 10_000])
def test_the_size_of_a_sort_does_not_matter(
    rows_per_sort: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps, masks = smooth_sample(2)
    whole = pixel_metrics(maps, masks)

    monkeypatch.setattr("spg_core.pixel_counts.PIXELS_PER_SORT", rows_per_sort)
    monkeypatch.setattr("spg_core.pixel_counts.PIXELS_PER_THRESHOLD", 0)
    monkeypatch.setattr("spg_core.sorted_pixels.KEYS_PER_LOOK", 3)
    monkeypatch.setattr("spg_core.ranking.SCORES_PER_PIECE", 5)

    small = pixel_metrics(maps, masks)
    assert small.auroc == whole.auroc
    assert small.aupro == pytest.approx(whole.aupro, abs=1e-13)
    assert small.ap == pytest.approx(whole.ap, abs=1e-13)


def test_mirrored_maps_score_the_same() -> None:
    maps, masks = smooth_sample(3)

    assert pixel_metrics(maps[:, ::-1, ::-1], masks[:, ::-1, ::-1]) == pixel_metrics(maps, masks)


def test_curves_are_short_and_integrate_to_the_metrics() -> None:
    maps, masks = smooth_sample(0, n=12, height=90, width=80)
    defects = defect_pixels(maps, masks)
    counts = count_normals(maps, masks, defects)
    result = metrics_from_counts(defects, counts)

    curves = pixel_curves(defects, counts)

    assert curves is not None
    for curve in (curves.roc, curves.pro):
        assert 20 < curve.x.size <= 200
        assert (curve.x[0], curve.y[0], curve.x[-1], curve.y[-1]) == (0, 0, 1, 1)
        assert (np.diff(curve.x) >= 0).all()
        assert (np.diff(curve.y) >= 0).all()
    assert curves.pr.x[-1] == 1
    assert curves.pr.x.size <= 200
    assert areas(curves) == pytest.approx((result.auroc, result.ap, result.aupro), abs=1e-12)


def areas(curves: PixelCurves) -> tuple[float, float, float]:
    """The areas below the lines as drawn; of PRO up to an FPR of 0.3, where the line is cut."""
    x, y = curves.pro.x, curves.pro.y
    shown = x <= 0.3
    pro_x, pro_y = np.append(x[shown], 0.3), np.append(y[shown], np.interp(0.3, x, y))
    roc, pr = curves.roc, curves.pr
    pro = float(np.trapezoid(pro_y, pro_x)) / 0.3
    return float(np.trapezoid(roc.y, roc.x)), float(np.trapezoid(pr.y, pr.x)), pro


@given(seed=st.integers(0, 2**31), n_values=st.integers(1, 40), n_points=st.sampled_from([12, 200]))
def test_the_curves_drawn_are_those_the_metrics_measure(
    seed: int, n_values: int, n_points: int
) -> None:
    rng = np.random.default_rng(seed)
    maps = (rng.integers(0, n_values, (3, 9, 8)) / n_values).astype(np.float32)  # many ties
    masks = (rng.random((3, 9, 8)) < 0.3).astype(np.uint8)
    defects = defect_pixels(maps, masks)
    counts = count_normals(maps, masks, defects)
    result = metrics_from_counts(defects, counts)

    curves = pixel_curves(defects, counts, n_points)

    assert curves is not None
    assert areas(curves) == pytest.approx((result.auroc, result.ap, result.aupro), abs=1e-12)
    for curve in (curves.roc, curves.pr, curves.pro):
        assert curve.x.size <= n_points
        assert (np.diff(curve.x) >= 0).all()
    assert (np.diff(curves.roc.y) >= 0).all()
    assert (np.diff(curves.pro.y) >= 0).all()


def test_every_second_point_of_a_curve_of_many_thresholds_lies_on_the_exact_one() -> None:
    rng = np.random.default_rng(0)
    masks = (rng.random((20, 60, 50)) < 0.4).astype(np.uint8)
    maps = (rng.random(masks.shape) + 0.2 * masks).astype(np.float32)
    defects = defect_pixels(maps, masks)
    counts = count_normals(maps, masks, defects)
    normals, anomalies = np.sort(maps[masks == 0]), np.sort(maps[masks == 1])

    curves = pixel_curves(defects, counts)

    assert anomalies.size > 20_000
    assert curves is not None
    assert curves.roc.x.size > 60
    ends = slice(2, -1, 2)
    for fpr, tpr in zip(curves.roc.x[ends], curves.roc.y[ends], strict=True):
        value = anomalies[anomalies.size - round(tpr * anomalies.size)]
        assert fpr == np.mean(normals >= value)
    assert (curves.roc.x[-1], curves.roc.y[-1], curves.pr.x[-1]) == (1, 1, 1)
    result = metrics_from_counts(defects, counts)
    assert areas(curves) == pytest.approx((result.auroc, result.ap, result.aupro), abs=1e-12)


@pytest.mark.parametrize(("value", "reason"), [(0, "no pixel is anomalous"), (1, "every pixel is")])
@pytest.mark.parametrize("aupro", ["exact", "clip200"])
def test_one_class_has_no_metrics_but_a_reason(value: int, reason: str, aupro: Any) -> None:
    maps, masks = np.ones((2, 3, 4), np.float32), np.full((2, 3, 4), value, np.uint8)

    result = pixel_metrics(maps, masks, aupro=aupro)

    assert (result.auroc, result.ap, result.aupro, result.f1max) == (None, None, None, None)
    assert reason in str(result.reason)
    defects = defect_pixels(maps, masks)
    assert pixel_curves(defects, count_normals(maps, masks, defects)) is None


def test_a_single_pixel_is_one_class_and_not_a_crash() -> None:
    result = pixel_metrics(np.zeros((1, 1, 1), np.float32), np.ones((1, 1, 1), np.uint8))

    assert result.auroc is None


MAPS, MASKS = smooth_sample(0)


@pytest.mark.parametrize(
    ("maps", "masks", "message"),
    [
        (np.where(MASKS == 1, np.float32(np.nan), MAPS), MASKS, "map 0 .* NaN or infinite"),
        (np.where(MASKS == 1, np.float32(np.inf), MAPS), MASKS, "map 0 .* NaN or infinite"),
        (MAPS[:2], MASKS, r"maps have shape \(2, 31, 27\) and masks \(6, 31, 27\)"),
        (MAPS[0], MASKS[0], r"expected \(n, height, width\)"),
        (MAPS.astype(np.float64), MASKS, "dtype float64, expected float32 or float16"),
        (MAPS, MASKS.astype(np.int64), "dtype int64, expected uint8"),
        (MAPS, MASKS * 255, "hold the value 255"),
        (MAPS[:0], MASKS[:0], "no pixel"),
    ],
)
def test_refuses_what_cannot_be_evaluated(maps: Array, masks: Array, message: str) -> None:
    with pytest.raises(MetricError, match=message):
        pixel_metrics(maps, masks)


def test_a_block_left_out_is_noticed() -> None:
    defects = defect_pixels(MAPS, MASKS)
    counts = count_normals(MAPS[1:], MASKS[1:], defects)

    with pytest.raises(MetricError, match="was a block left out"):
        metrics_from_counts(defects, counts)


def test_counts_against_unmerged_defects_are_noticed() -> None:
    parts = [
        count_normals(MAPS[half], MASKS[half], defect_pixels(MAPS[half], MASKS[half]))
        for half in (slice(0, 1), slice(1, 6))
    ]

    with pytest.raises(MetricError, match="against the same merged defects"):
        merge_counts(parts)


def test_counts_without_those_of_clip200_are_noticed() -> None:
    defects = defect_pixels(MAPS, MASKS)
    counts = count_normals(MAPS, MASKS, defects, clip200=False)

    assert metrics_from_counts(defects, counts) == pixel_metrics(MAPS, MASKS)
    with pytest.raises(MetricError, match=r"above 0 thresholds .* with clip200=True"):
        metrics_from_counts(defects, counts, aupro="clip200")


def test_a_thread_without_memory_ends_the_count_and_nobody_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> int:
        raise MemoryError("no room to sort")

    maps, masks = np.zeros((8, 4, 4), np.float32), np.zeros((8, 4, 4), np.uint8)
    masks[0, 0, 0] = 1
    for limit in ("PIXELS_PER_SORT", "PIXELS_PER_THRESHOLD"):
        monkeypatch.setattr(f"spg_core.pixel_counts.{limit}", 1)
    monkeypatch.setattr("spg_core.pixel_counts._add_images", fail)

    with pytest.raises(MemoryError, match="no room to sort"):
        count_normals(maps, masks, defect_pixels(maps, masks), threads=2)


def test_nothing_to_merge_is_refused() -> None:
    with pytest.raises(MetricError, match="no blocks"):
        merge_defects([])
    with pytest.raises(MetricError, match="no blocks"):
        merge_counts([])


def test_an_unknown_aupro_is_refused() -> None:
    name: Any = "200"
    with pytest.raises(MetricError, match="'200', expected 'exact' or 'clip200'"):
        pixel_metrics(MAPS, MASKS, aupro=name)

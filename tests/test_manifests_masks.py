"""Masks of every make: class ids, palettes, greys that were a JPEG once, and other sizes."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from manifests.build import build_manifest
from manifests.images import decode_mask, fit_mask
from spg_core.errors import DatasetError

Pixels = NDArray[np.uint8]


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decode(pixels: Pixels) -> NDArray[np.bool_]:
    return decode_mask(encode(Image.fromarray(pixels)), "m.png")


def drawn(value: int = 255, side: int = 96, *, scale: int = 1) -> Image.Image:
    """Two blobs and a scratch, as an annotation tool draws them."""
    image = Image.new("L", (side * scale, side * scale))
    draw = ImageDraw.Draw(image)
    for box in ((10, 13, 45, 40), (60, 61, 75, 90)):
        draw.ellipse([scale * corner for corner in box], fill=value)
    draw.line([scale * 5, scale * 80, scale * 50, scale * 55], fill=value, width=3 * scale)
    return image


@pytest.mark.parametrize("quality", [30, 50, 75, 90, 95])
def test_a_mask_that_was_a_jpeg_once_does_not_grow(quality: int) -> None:
    true = np.asarray(drawn()) > 0
    again = Image.open(io.BytesIO(encode(drawn(), "JPEG", quality=quality)))

    as_png = decode_mask(encode(again), "m.png")
    as_jpeg = decode_mask(encode(drawn(), "JPEG", quality=quality), "m.jpg")

    assert np.count_nonzero(np.asarray(again)) > 1.1 * true.sum()
    assert np.array_equal(as_png, as_jpeg)
    assert abs(int(as_png.sum()) - int(true.sum())) <= 0.03 * true.sum()


def test_a_colour_mask_that_was_a_jpeg_once_does_not_grow() -> None:
    true = np.asarray(drawn()) > 0
    red = Image.merge("RGB", [drawn(), Image.new("L", (96, 96)), Image.new("L", (96, 96))])
    again = Image.open(io.BytesIO(encode(red, "JPEG", quality=85, subsampling=0)))

    grown = decode_mask(encode(again), "m.png")

    assert abs(int(grown.sum()) - int(true.sum())) <= 0.05 * true.sum()


def test_smooth_edges_are_cut_at_half() -> None:
    smooth = drawn(scale=4).resize((96, 96), Image.Resampling.BILINEAR)

    assert np.array_equal(decode_mask(encode(smooth), "m"), np.asarray(smooth) > 127)


def test_small_class_ids_all_count() -> None:
    ids = np.random.default_rng(0).integers(0, 12, (40, 40), dtype=np.uint8)

    assert np.array_equal(decode(ids), ids > 0)


def test_classes_in_widely_spaced_greys_all_count() -> None:
    pixels = np.zeros((60, 60), np.uint8)
    for number, value in enumerate((40, 80, 120, 200, 255)):
        pixels[5:20, 11 * number : 11 * number + 9] = value

    assert np.array_equal(decode(pixels), pixels > 0)


@pytest.mark.parametrize("value", [1, 2, 38, 100, 236, 255])
def test_one_level_counts_whatever_it_is(value: int) -> None:
    assert np.array_equal(decode(np.asarray(drawn(value))), np.asarray(drawn()) > 0)


def test_a_black_and_white_palette_counts_by_colour() -> None:
    # as optimisers of PNG files and painters of bitmaps write it: white may come first
    pixels = np.asarray(drawn(1))
    image = Image.fromarray(1 - pixels)
    image.putpalette([255, 255, 255, 0, 0, 0])

    assert image.mode == "P"
    for kind in ("PNG", "BMP"):
        assert np.array_equal(decode_mask(encode(image, kind), "m"), pixels > 0)


def test_a_palette_of_greys_is_cut_as_greys_are() -> None:
    smooth = drawn(scale=4).resize((96, 96), Image.Resampling.LANCZOS)
    palette = Image.fromarray(np.asarray(smooth))
    palette.putpalette([level for level in range(256) for _ in range(3)])

    assert palette.mode == "P"
    assert np.array_equal(decode_mask(encode(palette), "m"), np.asarray(smooth) > 127)


def test_a_mask_in_the_alpha_channel_is_refused_rather_than_empty() -> None:
    image = Image.new("RGBA", (96, 96))
    image.putalpha(drawn())

    with pytest.raises(DatasetError, match=r"m\.png: one colour everywhere.*transparency"):
        decode_mask(encode(image), "m.png")


def test_a_jpeg_mask_of_class_ids_is_refused_and_an_empty_one_is_read() -> None:
    with pytest.raises(DatasetError, match=r"m\.jpg: a mask stored as JPEG has noise.*PNG"):
        decode_mask(encode(drawn(9), "JPEG"), "m.jpg")
    assert not decode_mask(encode(Image.new("L", (64, 64)), "JPEG"), "m.jpg").any()


def test_a_mask_is_brought_to_its_image_by_the_nearest_pixel() -> None:
    mask = np.array([[True, False], [False, True]])

    assert fit_mask(mask, 2, 4).tolist() == [[True, True, False, False], [False, False, True, True]]


def write_defect(root: Path, name: str, size: tuple[int, int], mask: Image.Image) -> None:
    rng = np.random.default_rng(len(name))
    for folder in ("bolt/test/cut", "bolt/test/good", "bolt/ground_truth/cut"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(root / f"bolt/test/cut/{name}.png")
    mask.save(root / f"bolt/ground_truth/cut/{name}_mask.png")


def test_masks_of_another_size_are_resized_counted_and_said_once(tmp_path: Path) -> None:
    for name in ("1", "22"):
        write_defect(tmp_path, name, (40, 20), Image.new("L", (20, 10), 255))
    write_defect(tmp_path, "333", (20, 10), Image.new("L", (20, 10), 255))

    built = build_manifest(tmp_path, layout="mvtec", dataset="d", split="test", workers=1)

    large, warning = built.warnings
    assert large.startswith("3 x mask that covers more than half of its image")
    assert warning.startswith("2 x mask of another size than its image, brought to it")
    assert "bolt/ground_truth/cut/1_mask.png: 20 x 10 pixels, its image 40 x 20" in warning
    assert built.manifest.column("mask_pixels") == [800, 800, 200]


def test_a_mask_of_another_shape_is_refused(tmp_path: Path) -> None:
    write_defect(tmp_path, "1", (40, 20), Image.new("L", (40, 30), 255))

    with pytest.raises(DatasetError, match=r"mask of another size than its image \(1\)"):
        build_manifest(tmp_path, layout="mvtec", dataset="d", split="test", workers=1)


def test_a_cut_mask_is_said(tmp_path: Path) -> None:
    again = Image.open(io.BytesIO(encode(drawn(), "JPEG", quality=60)))
    write_defect(tmp_path, "1", (96, 96), again.copy())

    built = build_manifest(tmp_path, layout="mvtec", dataset="d", split="test", workers=1)

    (warning,) = built.warnings
    assert warning.startswith("1 x mask of many greys, cut at half of its largest: bolt/ground_")

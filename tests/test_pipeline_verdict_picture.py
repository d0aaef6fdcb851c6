"""The overlay a person acts on: its size, what is outlined, that anything can be drawn."""

import numpy as np
import pytest
from PIL import Image

from pipeline.drawing.palette import OUTLINE
from pipeline.drawing.verdict_picture import Said, regions, verdict_picture

ANOMALOUS = Said(0.7, 0.6, "anomalous", None)


def hot_spot(side=16, low=0.2, high=0.9):
    values = np.full((side, side), low, np.float32)
    values[4:8, 8:12] = high
    return values


def count(picture, colour=OUTLINE):
    return int((np.abs(np.asarray(picture, np.int64) - colour).sum(-1) <= 6).sum())


def photo_of(size, level=120):
    return Image.new("RGB", size, (level,) * 3)


@pytest.mark.parametrize(
    "size", [(100, 100), (1, 1), (4000, 3000), (3000, 40), (40, 3000), (640, 480)]
)
def test_a_photo_of_any_size_is_drawn_whole_with_a_band_and_a_scale(size):
    photo = Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    )

    drawn = verdict_picture(photo, np.zeros((16, 16), np.float32), Said(0.1, 0.6, "normal", None))

    factor = max(1, min(8, 360 // max(size)))
    width, height = size[0] * factor, size[1] * factor
    assert drawn.width == max(width, 480)
    assert 48 <= drawn.height - height <= 6 * 72
    left = (drawn.width - width) // 2
    pixels = np.asarray(drawn)[:, left : left + width]
    wanted = np.asarray(photo.resize((width, height), Image.Resampling.NEAREST))
    top = next(at for at in range(drawn.height - height) if (pixels[at] == wanted[0]).all())
    np.testing.assert_array_equal(pixels[top : top + height], wanted)


def test_a_line_goes_round_what_reaches_the_threshold_and_nothing_else():
    values = hot_spot()
    values[12:14, 2:4] = 0.59

    [line] = regions(values, 0.6)

    assert (line[0] == line[-1]).all()
    low, high = line.min(0), line.max(0)
    # between the outermost hot pixels' middles and those of their neighbours
    assert 7.5 / 16 <= low[0] <= 8.5 / 16
    assert 11.5 / 16 <= high[0] <= 12.5 / 16
    assert 3.5 / 16 <= low[1] <= 4.5 / 16
    assert 7.5 / 16 <= high[1] <= 8.5 / 16


@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
def test_a_map_that_is_all_hot_is_outlined_along_its_border(threshold):
    [line] = regions(np.full((8, 8), threshold, np.float32), threshold)

    assert (line[0] == line[-1]).all()
    assert line.min() < 0.07
    assert line.max() > 0.93


def test_every_region_gets_a_line_of_its_own():
    values = hot_spot()
    values[12:14, 2:4] = 0.8

    assert len(regions(values, 0.6)) == 2
    assert not regions(values, 0.95)


@pytest.mark.parametrize("level", [0, 120, 255])
def test_the_line_is_seen_on_dark_and_on_bright_photos(level):
    photo = photo_of((500, 500), level)

    hot = count(verdict_picture(photo, hot_spot(), ANOMALOUS))
    cold = count(verdict_picture(photo, hot_spot(high=0.5), ANOMALOUS))

    assert hot > cold + 300


def test_without_a_threshold_nothing_is_outlined():
    said = Said(0.7, None, None, "no threshold")

    assert count(verdict_picture(photo_of((500, 500)), hot_spot(), said)) == 0


def test_each_verdict_has_its_colour_and_a_long_reason_its_lines():
    photo, values = photo_of((500, 500)), hot_spot()
    pictures = {
        verdict: verdict_picture(photo, values, Said(0.5, 0.6, verdict, None))
        for verdict in ("normal", "anomalous", "unsure")
    }

    assert len({picture.getpixel((0, 0)) for picture in pictures.values()}) == 3
    told = verdict_picture(photo, values, Said(0.5, 0.6, "unsure", "it is unlike é " * 30))
    assert told.height > pictures["unsure"].height
    assert told.width == 500


def test_colour_starts_at_half_the_threshold():
    values = np.full((8, 8), 0.29, np.float32)
    photo = photo_of((500, 500))

    def middle(threshold):
        picture = verdict_picture(photo, values, Said(0.29, threshold, None, None))
        return picture.getpixel((250, picture.height // 2))

    assert middle(0.6) == (120, 120, 120)
    assert middle(None) != (120, 120, 120)
    assert middle(0.3) != (120, 120, 120)

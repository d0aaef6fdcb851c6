"""Images and masks as they come from disk."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import Resize  # type: ignore[import-untyped]
from torchvision.transforms.functional import to_tensor  # type: ignore[import-untyped]

from manifests.images import (
    decode_image,
    decode_mask,
    load_mask,
    open_image,
    resize_mask,
    thumbnail,
)
from spg_core.errors import DatasetError


def png(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def noise(height: int, width: int, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_a_mask_is_anomalous_where_its_raw_value_is_not_zero(tmp_path: Path) -> None:
    raw = np.array([[0, 1, 0], [255, 0, 7]], dtype=np.uint8)
    Image.fromarray(raw).save(tmp_path / "mask.png")

    mask = load_mask(tmp_path / "mask.png", "mask.png").pixels

    assert mask.dtype == np.bool_
    assert mask.tolist() == [[False, True, False], [True, False, True]]


def test_a_palette_mask_counts_by_index_not_by_colour() -> None:
    raw = np.array([[0, 1], [2, 0]], dtype=np.uint8)
    image = Image.fromarray(raw)
    image.putpalette([200, 10, 10, 0, 0, 0, 0, 0, 0])

    assert image.mode == "P"
    assert decode_mask(png(image), "m.png").tolist() == [[False, True], [True, False]]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "I;16"])
def test_a_mask_reads_the_same_in_every_mode(mode: str) -> None:
    raw = np.array([[0, 255, 0], [0, 0, 255]], dtype=np.uint8)
    image = (
        Image.fromarray(raw.astype(np.uint16) * 200)
        if mode == "I;16"
        else Image.fromarray(raw).convert(mode)
    )

    assert image.mode == mode
    assert decode_mask(png(image), "m.png").tolist() == (raw > 0).tolist()


def test_a_mask_with_loss_is_refused(tmp_path: Path) -> None:
    Image.new("L", (8, 8), 255).save(tmp_path / "mask.jpg")

    with pytest.raises(DatasetError, match=r"mask\.jpg: a mask stored as JPEG has noise"):
        load_mask(tmp_path / "mask.jpg", str(tmp_path / "mask.jpg"))


def test_half_a_pixel_is_anomalous_as_in_the_released_code_and_less_is_not() -> None:
    half = np.zeros((4, 4), dtype=np.bool_)
    half[:, :2] = True
    checkers = np.indices((8, 8)).sum(axis=0) % 2 == 0
    thick = np.zeros((4, 8), dtype=np.bool_)
    thick[:, :5] = True

    assert resize_mask(half, 2, 2).tolist() == [[1, 0], [1, 0]]
    assert resize_mask(checkers, 1, 1).tolist() == [[1]]
    assert resize_mask(thick, 1, 1).tolist() == [[1]]
    assert resize_mask(~thick, 1, 1).tolist() == [[0]]


def test_masks_are_resized_as_torchvision_resizes_them_for_the_released_code() -> None:
    mask = np.random.default_rng(3).random((97, 61)) < 0.4
    image = Image.fromarray(mask.astype(np.uint8) * np.uint8(255))

    theirs = to_tensor(Resize((32, 40))(image))[0].numpy() > 0.5

    assert np.array_equal(resize_mask(mask, 32, 40), theirs)


def test_a_small_defect_vanishes_when_the_mask_shrinks() -> None:
    mask = np.zeros((90, 60), dtype=np.bool_)
    mask[44, 30] = True

    assert mask.sum() == 1
    assert resize_mask(mask, 9, 6).sum() == 0


@settings(deadline=None, max_examples=50)
@given(height=st.integers(1, 40), width=st.integers(1, 40), seed=st.integers(0, 99))
def test_a_mask_resized_to_its_own_size_is_itself(height: int, width: int, seed: int) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < 0.3

    resized = resize_mask(mask, height, width)

    assert resized.dtype == np.uint8
    assert np.array_equal(resized, mask)


@settings(deadline=None, max_examples=50)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    new_height=st.integers(1, 60),
    new_width=st.integers(1, 60),
    value=st.booleans(),
)
def test_a_constant_mask_stays_constant(
    height: int, width: int, new_height: int, new_width: int, value: bool
) -> None:
    mask = np.full((height, width), value)

    resized = resize_mask(mask, new_height, new_width)

    assert resized.shape == (new_height, new_width)
    assert (resized == int(value)).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_every_eight_bit_mode_opens_as_rgb(mode: str) -> None:
    image = noise(5, 7).convert(mode)

    opened = decode_image(png(image), "a.png")

    assert opened.mode == "RGB"
    assert opened.size == (7, 5)
    expected = image.convert("RGBA").convert("RGB")
    assert np.array_equal(np.asarray(opened), np.asarray(expected))


def test_alpha_is_dropped_not_blended() -> None:
    image = Image.new("RGBA", (2, 1), (10, 20, 30, 0))

    assert decode_image(png(image), "a.png").getpixel((0, 0)) == (10, 20, 30)


def test_a_palette_image_with_transparent_entries_opens_without_a_warning() -> None:
    image = noise(5, 7).convert("P")
    data = png(image, transparency=bytes([0, 128] + [255] * 254))

    assert decode_image(data, "a.png").mode == "RGB"


def test_cmyk_opens_as_rgb(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 0, 0, 0)).save(tmp_path / "a.jpg", quality=95)

    assert open_image(tmp_path / "a.jpg").getpixel((3, 3)) == (255, 255, 255)


def test_sixteen_bit_grey_is_refused_rather_than_clipped(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 4095, dtype=np.uint16)).save(tmp_path / "deep.png")

    with pytest.raises(DatasetError, match=r"deep\.png: pixel mode I;16 has more than 8 bits"):
        open_image(tmp_path / "deep.png")


def test_float_images_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 0.5, dtype=np.float32)).save(tmp_path / "f.tif")

    with pytest.raises(DatasetError, match="pixel mode F"):
        open_image(tmp_path / "f.tif")
    with pytest.raises(DatasetError, match="pixel mode F is not a mask"):
        load_mask(tmp_path / "f.tif", str(tmp_path / "f.tif"))


def test_exif_rotation_is_off_unless_asked_for(tmp_path: Path) -> None:
    image = noise(4, 6)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to show
    image.save(tmp_path / "a.png", exif=exif)

    plain, turned = open_image(tmp_path / "a.png"), open_image(tmp_path / "a.png", exif=True)

    assert np.array_equal(np.asarray(plain), np.asarray(image))
    assert np.array_equal(np.asarray(turned), np.rot90(np.asarray(image), k=-1))


def test_a_thumbnail_is_a_square_jpeg() -> None:
    data = thumbnail(noise(30, 70), side=16)

    opened = Image.open(io.BytesIO(data))
    assert (opened.format, opened.size) == ("JPEG", (16, 16))
    assert data == thumbnail(noise(30, 70), side=16)


def test_missing_and_empty_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()

    with pytest.raises(DatasetError, match=r"nothing\.png: cannot be read \(No such file"):
        open_image(tmp_path / "nothing.png")
    with pytest.raises(DatasetError, match=r"empty\.png: the file is empty \(0 bytes\)"):
        load_mask(tmp_path / "empty.png", str(tmp_path / "empty.png"))


def test_text_that_is_called_png_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("not a picture")

    with pytest.raises(DatasetError, match=r"a\.png: cannot be decoded \(not an image of a known"):
        open_image(tmp_path / "a.png")


@pytest.mark.parametrize("kind", ["GIF", "AVIF", "JPEG2000", "PDF"])
def test_a_format_that_is_not_read_is_named_whatever_the_files_ending(kind: str) -> None:
    if kind not in (*Image.registered_extensions().values(), "PDF"):
        pytest.skip(f"this Pillow writes no {kind}")
    buffer = io.BytesIO()
    Image.new("RGB", (40, 40)).save(buffer, kind)

    with pytest.raises(DatasetError, match=rf"decoded \({kind[:4]}.*, which is not read: save it"):
        decode_image(buffer.getvalue(), "a.jpg")


def test_postscript_is_never_run() -> None:
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"

    with pytest.raises(DatasetError, match="not an image of a known format"):
        decode_image(script, "a.png")


@pytest.mark.parametrize("side", [9_500, 60_000])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_decompression_bomb_is_refused_before_it_is_decoded(side: int) -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")

    with pytest.raises(DatasetError, match=r"bomb\.png: .*are more than the limit of 89478485;"):
        decode_image(data, "bomb.png")


def test_a_strip_that_no_filter_can_take_in_is_refused() -> None:
    buffer = io.BytesIO()
    Image.new("1", ((1 << 20) + 1, 2)).save(buffer, "PNG")

    with pytest.raises(DatasetError, match=r"strip: 1048577 x 2 pixels have a side above 1048576"):
        decode_image(buffer.getvalue(), "strip")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF", "WEBP"])
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_a_damaged_file_is_a_dataset_error_or_a_picture(kind: str, data: st.DataObject) -> None:
    buffer = io.BytesIO()
    noise(12, 9).save(buffer, kind)
    whole = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(0, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(whole[: data.draw(st.integers(1, len(whole)))])

    try:
        outcome = decode_image(damaged, "a.png", exif=True).mode
    except DatasetError as error:
        outcome = str(error)

    assert outcome == "RGB" or outcome.startswith("a.png: ")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF", "WEBP"])
def test_a_file_cut_in_half_is_refused(kind: str) -> None:
    buffer = io.BytesIO()
    noise(64, 64).save(buffer, kind)
    data = buffer.getvalue()

    with pytest.raises(DatasetError, match=r"cut: cannot be decoded \("):
        decode_image(data[: len(data) // 2], "cut")

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from manifests.images import open_image
from pipeline.backbones import preprocess as module
from pipeline.backbones.preprocess import normalise, preprocess, squash
from pipeline.backbones.spec import BackboneSpec
from spg_core.errors import ConfigError, DatasetError
from spg_core.types import PatchGrid
from tests.pretended_gpu import pretended_gpu

SPEC = BackboneSpec(
    name="timm:x",
    library="timm",
    model="x",
    weights_sha256="0" * 64,
    layer=None,
    final_norm=True,
    projection=False,
    height=4,
    width=6,
    grid=PatchGrid(2, 3),
    d_model=8,
    has_cls=False,
    resize_filter="bicubic",
    mean=(0.0, 0.5, 1.0),
    std=(1.0, 0.5, 0.25),
    compute_dtype="float32",
    exif=False,
)


def save(folder: Path, name: str, size: tuple[int, int], seed: int = 0) -> Path:
    """Write a random RGB image of (width, height) and give its path."""
    width, height = size
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    path = folder / name
    Image.fromarray(values).save(path)
    return path


def test_a_flat_colour_is_normalised_channel_by_channel() -> None:
    image = Image.new("RGB", (13, 5), (255, 0, 51))

    pixels = preprocess(image, SPEC)

    assert pixels.shape == (3, 4, 6)
    assert pixels.dtype == torch.float32
    torch.testing.assert_close(pixels[0], torch.full((4, 6), 1.0))
    torch.testing.assert_close(pixels[1], torch.full((4, 6), -1.0))
    torch.testing.assert_close(pixels[2], torch.full((4, 6), (0.2 - 1.0) / 0.25))


def test_the_whole_image_is_squashed_and_nothing_is_cropped() -> None:
    image = Image.new("RGB", (60, 8), (0, 0, 0))
    image.paste((255, 255, 255), (0, 0, 10, 8))  # the left sixth, which a centre crop would lose

    pixels = preprocess(
        image, replace(SPEC, resize_filter="bilinear", mean=(0.0,) * 3, std=(1.0,) * 3)
    )

    assert pixels[:, :, 0].min() > 0.8
    assert pixels[:, :, 2:].max() < 0.05


def test_shrinking_is_antialiased() -> None:
    stripes = np.zeros((64, 96, 3), dtype=np.uint8)
    stripes[:, ::2] = 255

    pixels = preprocess(Image.fromarray(stripes), replace(SPEC, mean=(0.0,) * 3, std=(1.0,) * 3))

    assert (pixels - 0.5).abs().max() < 0.05


@given(width=st.integers(1, 40), height=st.integers(1, 40))
def test_any_size_gives_the_input_size_in_range(width: int, height: int) -> None:
    values = np.random.default_rng(width * 41 + height).integers(0, 256, (height, width, 3))
    image = Image.fromarray(values.astype(np.uint8))

    pixels = preprocess(image, replace(SPEC, mean=(0.0,) * 3, std=(1.0,) * 3))

    assert pixels.shape == (3, 4, 6)
    assert pixels.is_contiguous()
    assert pixels.min() >= 0
    assert pixels.max() <= 1


def test_the_two_filters_differ() -> None:
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (9, 9, 3), dtype=np.uint8))

    bicubic = preprocess(image, SPEC)
    bilinear = preprocess(image, replace(SPEC, resize_filter="bilinear"))

    assert not torch.equal(bicubic, bilinear)


def test_exif_rotation_follows_the_spec(tmp_path: Path) -> None:
    image = Image.new("RGB", (6, 4), (0, 0, 0))
    image.paste((255, 255, 255), (0, 0, 6, 2))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    path = tmp_path / "turned.png"
    image.save(path, exif=exif)

    as_stored = preprocess(open_image(path), SPEC)
    turned = preprocess(open_image(path, exif=True), SPEC)

    assert as_stored[0, 0].mean() > as_stored[0, -1].mean()
    assert torch.equal(turned, as_stored.flip(1))


def test_what_preprocess_cannot_take_is_refused() -> None:
    with pytest.raises(DatasetError, match="image of mode L; expected RGB"):
        preprocess(Image.new("L", (3, 3)), SPEC)
    with pytest.raises(ConfigError, match="resize filter 'nearest'; use bilinear or bicubic"):
        preprocess(Image.new("RGB", (3, 3)), replace(SPEC, resize_filter="nearest"))


def test_a_batch_is_normalised_image_by_image_and_a_gpu_has_the_same_bits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (9, 5, 3), np.uint8)) for _ in range(3)]
    squashed = torch.from_numpy(np.stack([squash(image, SPEC) for image in images]))
    tables: list[torch.Tensor] = []
    look_up = module._look_up

    def note(table: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        tables.append(table)
        return look_up(table, pixels)

    monkeypatch.setattr(module, "_look_up", note)

    batch = normalise(squashed, SPEC)
    with pretended_gpu():
        there = normalise(torch.empty(3, 4, 6, 3, dtype=torch.uint8, device="cuda"), SPEC)

    assert squashed.dtype == torch.uint8
    for image, pixels in zip(images, batch, strict=True):
        assert torch.equal(pixels, preprocess(image, SPEC))
    levels = torch.arange(256, dtype=torch.float32) / 255.0
    mean, std = torch.tensor(SPEC.mean)[:, None], torch.tensor(SPEC.std)[:, None]
    assert torch.equal(look_up((levels - mean) / std, squashed), batch)
    assert [table.device.type for table in tables] == ["cuda"]
    assert (there.device.type, there.dtype, there.shape) == ("cuda", torch.float32, batch.shape)

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from spg_core.gabor import (
    N_ORIENTATIONS,
    N_POOLED,
    N_SCALES,
    RARITY_FLOOR,
    SPREAD_FLOOR,
    WAVELENGTH,
    GaborTokens,
    gabor_bank,
    patch_statistics,
    rarity,
)


def grating(wavelength: float, angle: float, size: int = 96, contrast: float = 0.5) -> Tensor:
    """Make a grey sinusoid `(1, 3, size, size)` in [-contrast, contrast], `angle` in radians."""
    axis = torch.arange(size, dtype=torch.float32)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    phase = 2 * math.pi / wavelength * (x * math.cos(angle) + y * math.sin(angle))
    return (contrast * torch.cos(phase)).expand(1, 3, size, size).contiguous()


def energies(pixels: Tensor) -> Tensor:
    """Give the mean log energies over the inner patches, `(scale, orientation)`."""
    content, _ = patch_statistics(pixels, gabor_bank())
    inner = content[0, : N_SCALES * N_ORIENTATIONS, 1:-1, 1:-1]
    return inner.mean((1, 2)).reshape(N_SCALES, N_ORIENTATIONS)


def test_the_bank_answers_one_to_its_own_sinusoid_and_nothing_to_a_flat_patch() -> None:
    bank = gabor_bank()
    patch = grating(WAVELENGTH, 0.0, size=9, contrast=1.0)[
        :, :1
    ]  # starts at phase 0, centre at 8 pi

    even = torch.nn.functional.conv2d(patch, bank)[0, :N_ORIENTATIONS, 0, 0]
    flat = torch.nn.functional.conv2d(torch.ones(1, 1, 9, 9), bank)

    assert even[0].item() == pytest.approx(1.0, abs=1e-5)
    assert even[1:].abs().max() < 0.2
    assert flat.abs().max() < 1e-5


@pytest.mark.parametrize("scale", range(N_SCALES))
@pytest.mark.parametrize("orientation", range(N_ORIENTATIONS))
def test_a_grating_excites_its_own_scale_and_orientation_most(scale: int, orientation: int) -> None:
    pixels = grating(WAVELENGTH * 2**scale, math.pi * orientation / N_ORIENTATIONS, size=160)

    found = energies(pixels)

    assert found.argmax().item() == scale * N_ORIENTATIONS + orientation


def test_a_patch_without_a_like_is_rare_and_the_others_are_not() -> None:
    statistics = torch.zeros(N_POOLED, 8, 9)
    statistics[:, :, ::2] = 1.0  # two kinds of patches, each with likes
    statistics[:, 3, 4] = 3.0

    found = rarity(statistics)

    assert found.shape == (15, 8, 9)
    for channel in found:
        assert channel.argmax().item() == 3 * 9 + 4
    # 39 patches hold 1, 32 hold 0 and one 3: the median is 1,
    # the mean distance from it (32 * 1 + 2) / 72; the odd patch's nearest are those that hold 1.
    unit = (32 * 1 + 2) / 72 + SPREAD_FLOOR
    expected = math.log(math.log1p(2 / unit) / RARITY_FLOOR + 1)
    assert found[0, 3, 4].item() == pytest.approx(expected, abs=1e-3)
    assert found[0, 0, 0].item() == pytest.approx(0.0, abs=1e-6)


def test_a_large_defect_does_not_vouch_for_itself() -> None:
    statistics = torch.zeros(N_POOLED, 8, 9)
    statistics[:, 2:5, 3:6] = 1.0

    found = rarity(statistics)

    assert (found[:, 3, 4] > 1).all()
    assert (found[:, :2] == 0).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (3, 3), (5, 5)])
def test_a_patch_with_nothing_to_compare_with_is_not_rare(shape: tuple[int, int]) -> None:
    statistics = torch.randn(N_POOLED, *shape, generator=torch.Generator().manual_seed(0))

    found = rarity(statistics)

    assert torch.isfinite(found).all()
    assert (found[:, shape[0] // 2, shape[1] // 2] == 0).all()


def test_a_flat_grey_image_has_only_its_colour() -> None:
    tokens, cls = GaborTokens()(torch.full((1, 3, 48, 64), 0.25))

    assert cls is None
    assert tokens.shape == (1, 12, GaborTokens.d_model)
    assert GaborTokens.d_model == 160
    assert torch.isfinite(tokens).all()
    torch.testing.assert_close(tokens, tokens[:, :1].expand_as(tokens))


def test_tokens_are_row_major_over_the_patches() -> None:
    pixels = torch.zeros(1, 3, 48, 64)
    pixels[:, :, 16:32, 48:64] = 0.8  # row 1, column 3 of 3 x 4

    tokens, _ = GaborTokens()(pixels)

    brightness = tokens[0, :, N_SCALES * N_ORIENTATIONS]
    assert brightness.argmax().item() == 1 * 4 + 3


@settings(max_examples=10, deadline=None)
@given(n_images=st.integers(2, 4), rows=st.integers(1, 5), cols=st.integers(1, 5))
def test_each_image_is_described_on_its_own(n_images: int, rows: int, cols: int) -> None:
    generator = torch.Generator().manual_seed(rows * 10 + cols)
    pixels = torch.rand(n_images, 3, rows * 16, cols * 16, generator=generator) * 2 - 1
    gabor = GaborTokens()

    together, _ = gabor(pixels)

    assert together.shape == (n_images, rows * cols, gabor.d_model)
    assert together.dtype == torch.float32
    for index in range(n_images):
        alone, _ = gabor(pixels[index : index + 1])
        torch.testing.assert_close(alone[0], together[index])


def test_the_same_image_gives_the_same_bits() -> None:
    pixels = torch.rand(1, 3, 96, 80, generator=torch.Generator().manual_seed(1)) * 2 - 1

    first, _ = GaborTokens()(pixels)
    second, _ = GaborTokens()(pixels)

    assert torch.equal(first, second)


def test_extreme_pixels_give_finite_tokens() -> None:
    checks = torch.ones(1, 3, 64, 64)
    checks[:, :, ::2] = -1.0

    for pixels in (checks, -checks, torch.ones(1, 3, 16, 16), torch.rand(1, 3, 32, 32) * 1e-6):
        tokens, _ = GaborTokens()(pixels)

        assert torch.isfinite(tokens).all()
        assert tokens.abs().max() < 20


@pytest.mark.parametrize("defect", ["scratch", "spot", "colour"])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_defect_is_where_the_contrast_channels_are_largest(defect: str, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    pixels = 0.1 * torch.randn(1, 3, 160, 160, generator=generator)
    match defect:
        case "scratch":
            pixels[:, :, 64:80, 70:72] = 0.9
        case "spot":
            pixels[:, :, 68:76, 68:76] = -0.9
        case _:
            pixels[:, 0, 64:80, 64:80] += 0.5
            pixels[:, 2, 64:80, 64:80] -= 0.5

    tokens, _ = GaborTokens()(pixels)

    strangeness = tokens[0, :, 24:].abs().mean(dim=1)
    assert strangeness.argmax().item() == 4 * 10 + 4

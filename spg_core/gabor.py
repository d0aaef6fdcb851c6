"""The embedded descriptor: how rare a patch's texture and colour are in its image, and what it is.

A classical texture descriptor, computed from fixed filters: nothing is learned and nothing is
downloaded. B images, H x W pixels, R x C patches of 16 px, d channels.

A token joins four views of its patch, the first the strongest:
- rarity: how far away the most similar patches elsewhere in the image are;
- content: log Gabor energy at 4 wavelengths and 4 orientations, mean colour and its spread;
- contrast: how far each rotation-pooled statistic lies from the patch's surroundings (two rings)
  and from the typical patch of its image, in units of that image's own spread;
- a constant. Guides are compared by cosine, which has no offset: only beside a constant does "how
  rare" become an angle. Without it pixel AUROC on unseen generated products was 69, with it 91.
Rarity and contrast mean the same on every product, which lets guides fitted on one apply to
another. They are statistics of one image: nothing is kept from other images.

Source: Jain and Farrokhnia, Unsupervised texture segmentation using Gabor filters, Pattern
Recognition 24 (1991), for the filter bank and the pooled energies. Centre-surround differences as
in Itti, Koch and Niebur, PAMI 20 (1998); rarity within the image as in Goferman, Zelnik-Manor and
Tal, PAMI 34 (2012). Different here: a pyramid instead of one filter a frequency, log energies,
and patch statistics instead of a window around each pixel.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

VERSION = "gabor-2"
"""Part of the cache key: raise it with any change that changes a token."""
PATCH_SIZE = 16
N_SCALES = 4
N_ORIENTATIONS = 4
WAVELENGTH = 4.0
"""Of the finest filters, in pixels; each pyramid level doubles it."""
ENVELOPE = 0.5 * WAVELENGTH
"""Standard deviation of the Gaussian window, in pixels: about one octave of bandwidth."""
KERNEL_RADIUS = 4
ENERGY_FLOOR = 0.01
"""Added before the log, on a pixel range of 2: about one grey level, so noise stays small."""

N_CONTENT = N_SCALES * N_ORIENTATIONS + 8
N_POOLED = 3 * N_SCALES + 8

# Typical value and spread of the content channels, measured over the generated sample and four
# public products: log energy by scale; light, red-green, yellow-blue, their log spreads, darkest
# and brightest. Without them a few large constants rule every cosine.
ENERGY_CENTRE = (-3.86, -3.70, -3.69, -3.68)
ENERGY_SCALE = (0.46, 0.62, 0.68, 0.72)
COLOUR_CENTRE = (0.01, 0.05, 0.06, -2.62, -3.82, -3.80, -0.18, 0.22)
COLOUR_SCALE = (0.44, 0.19, 0.17, 0.81, 0.89, 0.93, 0.45, 0.47)
# Weights of the views. Content is what differs between products: at 0.3 the mean pixel AUROC on
# unseen generated products was 2 to 3 points lower (three seeds, both directions).
CONTENT_WEIGHT = 0.1
CONTRAST_WEIGHT = 0.05
RARITY_WEIGHT = 2.3
CONSTANT = 0.5
USUAL_CONTRAST = 0.6
SPREAD_FLOOR = 0.05
RARITY_FLOOR = 0.05
"""Added to distances before the log: closer than this, patches are the same but for noise."""
NEIGHBOURS = (1, 5, 20)
"""Rarity is the mean distance to this many most similar patches."""
APART = 2
"""Patches this close, in rows and in columns, do not count: a defect resembles itself."""
POOLED_GROUPS = (slice(0, 20), slice(0, 12), slice(12, 20), slice(0, 6), slice(6, 12))
"""Of the pooled statistics: all, energies, colours, fine energies, coarse energies."""


def gabor_bank() -> Tensor:
    """Make the finest filters: `(2 * N_ORIENTATIONS, 1, 9, 9)`, even ones first, then odd.

    Each has no response to a flat patch, and answers with magnitude 1 to its own sinusoid of
    amplitude 1.
    """
    axis = torch.arange(-KERNEL_RADIUS, KERNEL_RADIUS + 1, dtype=torch.float64)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    window = torch.exp(-(x**2 + y**2) / (2 * ENVELOPE**2))
    window = window / window.sum()
    even, odd = [], []
    for index in range(N_ORIENTATIONS):
        angle = math.pi * index / N_ORIENTATIONS
        phase = 2 * math.pi / WAVELENGTH * (x * math.cos(angle) + y * math.sin(angle))
        cosine = window * (torch.cos(phase) - (window * torch.cos(phase)).sum())
        even.append(cosine / (cosine * torch.cos(phase)).sum())
        sine = window * torch.sin(phase)
        odd.append(sine / (sine * torch.sin(phase)).sum())
    return torch.stack(even + odd).unsqueeze(1).float()


class GaborTokens(nn.Module):
    """The descriptor as a frozen module: it holds only its filters and its scales."""

    bank: Tensor
    centre: Tensor
    scale: Tensor
    d_model = N_CONTENT + 6 * N_POOLED + len(POOLED_GROUPS) * len(NEIGHBOURS) + 1

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("bank", gabor_bank(), persistent=False)
        self.register_buffer("centre", _per_channel(ENERGY_CENTRE, COLOUR_CENTRE), persistent=False)
        self.register_buffer("scale", _per_channel(ENERGY_SCALE, COLOUR_SCALE), persistent=False)

    def forward(self, pixels: Tensor) -> tuple[Tensor, None]:
        """Describe each patch of each image on its own.

        Args:
            pixels: `(B, 3, H, W)` float32 RGB in [-1, 1]; H and W are multiples of 16.

        Returns:
            Tokens `(B, R * C, d)` float32, row-major over the patches; no class token.
        """
        content, pooled = patch_statistics(pixels, self.bank)
        views = [
            CONTENT_WEIGHT * (content - self.centre) / self.scale,
            CONTRAST_WEIGHT * contrasts(pooled),
            RARITY_WEIGHT * torch.stack([rarity(image) for image in pooled]),
            torch.full_like(content[:, :1], CONSTANT),
        ]
        tokens = torch.cat(views, dim=1)
        return tokens.flatten(2).transpose(1, 2).contiguous(), None


def patch_statistics(pixels: Tensor, bank: Tensor) -> tuple[Tensor, Tensor]:
    """Measure each patch by itself.

    Returns:
        Content `(B, 24, R, C)`: 16 log energies (scale-major), mean and spread of the colours, its
        darkest and brightest value; and the rotation-pooled statistics `(B, 20, R, C)`.
    """
    red, green, blue = pixels.chunk(3, dim=1)
    colour = torch.cat([(red + green + blue) / 3, red - green, (red + green) / 2 - blue], dim=1)
    mean = F.avg_pool2d(colour, PATCH_SIZE)
    spread = (F.avg_pool2d(colour**2, PATCH_SIZE) - mean**2).clamp(min=0).sqrt()
    light = colour[:, :1]
    brightest = F.max_pool2d(light, PATCH_SIZE)
    darkest = -F.max_pool2d(-light, PATCH_SIZE)
    colours = torch.cat([mean, (spread + ENERGY_FLOOR).log(), darkest, brightest], dim=1)

    energies, pooled = [], []
    for level in range(N_SCALES):
        average, peak = _level_energies(light, bank, PATCH_SIZE >> level)
        energies.append(average)
        middle = average.mean(1, keepdim=True)
        pooled += [middle, average.amax(1, keepdim=True) - middle, peak]
        light = F.avg_pool2d(light, 2)
    return torch.cat([*energies, colours], dim=1), torch.cat([*pooled, colours], dim=1)


def contrasts(statistics: Tensor) -> Tensor:
    """Say how far statistics `(B, s, R, C)` lie from two rings around them and from the image.

    Returns:
        `(B, 6 s, R, C)`: for each of the three references the signed distance, then its size less
        its usual value; both as logs of the distance in units of the image's mean distance.
    """
    typical = statistics.flatten(2).median(dim=2).values[..., None, None]
    found = []
    for reference in (_ring(statistics, 1), _ring(statistics, 3), typical):
        off = statistics - reference
        spread = off.abs().flatten(2).mean(dim=2)[..., None, None] + SPREAD_FLOOR
        size = torch.log1p((off / spread).abs())
        found += [size * off.sign(), size - USUAL_CONTRAST]
    return torch.cat(found, dim=1)


def rarity(statistics: Tensor) -> Tensor:
    """Say how far one image's patches are from the most similar ones elsewhere in it.

    One image at a time, so that no batch can change its last digit.

    Args:
        statistics: pooled statistics `(20, R, C)`.

    Returns:
        `(5 * 3, R, C)`: for each group of statistics the mean distance to the 1, 5 and 20 nearest
        patches, as a log, less the image's median of it. 0 where there is no patch to compare with.
    """
    rows, cols = statistics.shape[1:]
    off = statistics.flatten(1) - statistics.flatten(1).median(dim=1, keepdim=True).values
    off = off / (off.abs().mean(dim=1, keepdim=True) + SPREAD_FLOOR)
    points = (torch.log1p(off.abs()) * off.sign()).T
    close = _close_patches(rows, cols).to(points.device)
    n_nearest = min(NEIGHBOURS[-1], rows * cols)
    found = []
    for channels in POOLED_GROUPS:
        group = points[:, channels].contiguous()
        products = group @ group.T
        # Squared lengths from the same product, so equal patches are at distance 0.
        lengths = products.diagonal().clone()
        squares = (
            products.mul_(-2).add_(lengths[:, None]).add_(lengths).masked_fill_(close, math.inf)
        )
        nearest = squares.topk(n_nearest, largest=False).values
        there = nearest.isfinite()
        nearest = (nearest.clamp(min=0) / group.shape[1]).sqrt()
        for count in NEIGHBOURS:
            total = nearest.where(there, 0)[:, :count].sum(dim=1)
            distance = total / there[:, :count].sum(dim=1).clamp(min=1)
            size = (distance + RARITY_FLOOR).log()
            # choosing the sizes that are there would make a GPU wait; their median leaves NaN out
            middle = size.masked_fill(~there[:, 0], math.nan).nanmedian()
            found.append(torch.where(there[:, 0], size - middle, 0))
    return torch.stack(found).reshape(-1, rows, cols)


def _close_patches(rows: int, cols: int) -> Tensor:
    """Say which pairs of patches lie within `APART` rows and columns: `(R * C, R * C)` bool."""
    index = torch.arange(rows * cols)
    row, col = index // cols, index % cols
    far_rows = (row[:, None] - row).abs() > APART
    return ~(far_rows | ((col[:, None] - col).abs() > APART))


def _level_energies(light: Tensor, bank: Tensor, patch: int) -> tuple[Tensor, Tensor]:
    """Give log mean energies `(B, 4, R, C)` and the log peak energy `(B, 1, R, C)` of one scale."""
    stride = 2 if patch > 8 else 1
    padded = F.pad(light, (KERNEL_RADIUS,) * 4, mode="replicate")
    response = F.conv2d(padded, bank, stride=stride)
    even, odd = response.chunk(2, dim=1)
    energy = (even**2 + odd**2).sqrt()
    average = F.avg_pool2d(energy, patch // stride)
    peak = F.max_pool2d(energy.amax(1, keepdim=True), patch // stride)
    return (average + ENERGY_FLOOR).log(), (peak + ENERGY_FLOOR).log()


def _ring(statistics: Tensor, radius: int) -> Tensor:
    """Average the patches within `radius` of each, itself left out, as many as there are."""
    window = 2 * radius + 1
    total = F.avg_pool2d(statistics, window, 1, radius, divisor_override=1) - statistics
    ones = torch.ones_like(statistics[:1, :1])
    count = F.avg_pool2d(ones, window, 1, radius, divisor_override=1) - 1
    return total / count.clamp(min=1)


def _per_channel(energy: tuple[float, ...], colour: tuple[float, ...]) -> Tensor:
    """Spread one number a scale over its orientations, and append the colours: `(24, 1, 1)`."""
    repeated = [value for value in energy for _ in range(N_ORIENTATIONS)]
    return torch.tensor([*repeated, *colour]).reshape(N_CONTENT, 1, 1)

"""From patch probabilities to pixel maps and image scores.

Bilinear upsampling and the Gaussian are both linear and separable, so together they are two small
matrices: `map = rows_to_pixels @ patches @ cols_to_pixels.T`. Exact, differentiable, one image
never touches another, and the same two matrices go into the exported detector.

Axes: B images, R x C patch rows and columns, H x W pixels.
Source: arXiv 2604.02871, Eq. 7 and 11; sigma and border from github.com/riips/SPG at 864fca7.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from spg_core.errors import ConfigError
from spg_core.pooling import Pooling
from spg_core.types import PatchGrid

_TRUNCATE = 4.0  # SciPy's gaussian_filter stops at 4 sigma; matched so that maps agree


@dataclass(frozen=True)
class MapOperator:
    """The linear map from patches to pixels: `rows_to_pixels (H, R)`, `cols_to_pixels (W, C)`."""

    rows_to_pixels: Tensor
    cols_to_pixels: Tensor

    def __call__(self, patches: Tensor) -> Tensor:
        """Give maps `(..., H, W)` for patch values `(..., R * C)`, row-major."""
        rows, cols = self.rows_to_pixels.shape[1], self.cols_to_pixels.shape[1]
        grid = patches.reshape(*patches.shape[:-1], rows, cols)
        return torch.matmul(self.rows_to_pixels @ grid, self.cols_to_pixels.T)

    def to(self, device: torch.device | str) -> "MapOperator":
        """Give the same operator on another device."""
        return MapOperator(self.rows_to_pixels.to(device), self.cols_to_pixels.to(device))


def map_operator(grid: PatchGrid, height: int, width: int, sigma: float) -> MapOperator:
    """Build the operator: bilinear to `height` x `width`, then a Gaussian of `sigma` pixels.

    `sigma` 0 leaves the blur out. The border is SciPy's default `reflect` (d c b a | a b c d).
    """
    if sigma < 0:
        raise ConfigError(f"sigma is a length in pixels and cannot be negative, got {sigma}")
    rows = bilinear_matrix(height, grid.rows)
    cols = bilinear_matrix(width, grid.cols)
    if sigma > 0:
        rows = gaussian_matrix(height, sigma) @ rows
        cols = gaussian_matrix(width, sigma) @ cols
    return MapOperator(rows.float(), cols.float())


def bilinear_matrix(size_out: int, size_in: int) -> Tensor:
    """Give 1-D bilinear interpolation as a matrix `(size_out, size_in)` float64, rows summing to 1.

    Same as `torch.nn.functional.interpolate(mode="bilinear", align_corners=False)`.
    """
    at = (torch.arange(size_out, dtype=torch.float64) + 0.5) * (size_in / size_out) - 0.5
    at = at.clamp(0, size_in - 1)
    low = at.floor().long()
    high = (low + 1).clamp_max(size_in - 1)
    share = at - low
    matrix = torch.zeros(size_out, size_in, dtype=torch.float64)
    line = torch.arange(size_out)
    matrix.index_put_((line, low), 1 - share, accumulate=True)
    matrix.index_put_((line, high), share, accumulate=True)
    return matrix


def gaussian_matrix(size: int, sigma: float) -> Tensor:
    """Give a 1-D Gaussian blur as a matrix `(size, size)` float64, rows summing to 1.

    Same as `scipy.ndimage.gaussian_filter1d` with its defaults (4 sigma, `reflect`); a signal
    shorter than the kernel is reflected as often as needed.
    """
    radius = int(_TRUNCATE * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1)
    kernel = torch.exp(-0.5 * (offsets.double() / sigma).square())
    kernel /= kernel.sum()
    positions = torch.arange(size)[:, None] + offsets[None, :]
    wrapped = positions.remainder(2 * size)
    source = torch.minimum(wrapped, 2 * size - 1 - wrapped)
    matrix = torch.zeros(size, size, dtype=torch.float64)
    return matrix.scatter_add_(1, source, kernel.expand(size, -1).contiguous())


def image_scores(values: Tensor, pooling: Pooling) -> Tensor:
    """Pool maps `(B, H, W)`, or patches `(B, P)`, into one score an image, `(B,)`.

    Which of the two a pooling is of, is for the caller to see to. Raises: ConfigError.
    """
    if pooling.top is not None:
        return top_mean(values, pooling.top)
    return log_mean_exp(values, pooling.tau)


def log_mean_exp(maps: Tensor, tau: float) -> Tensor:
    """Pool maps `(B, H, W)` into `S_tau = tau log(mean exp(p / tau))`, `(B,)`.

    `tau` 0 is its limit, the maximum, and `tau` infinite the mean. Computed relative to the
    maximum, so a small tau cannot overflow.
    """
    flat = maps.flatten(1)
    if tau == 0:
        return flat.amax(1)
    if math.isinf(tau) and tau > 0:
        return flat.mean(1)
    if not tau > 0:
        raise ConfigError(f"tau must be 0 (max), positive or inf (mean), got {tau}")
    top = flat.amax(1, keepdim=True)
    # mean exp((p - top)/tau) is 1 + mean expm1(...): log1p keeps the digits when tau is large
    return top[:, 0] + tau * torch.log1p(torch.expm1((flat - top) / tau).mean(1))


def top_mean(values: Tensor, share: float) -> Tensor:
    """Pool values `(B, ...)` of pixels or patches into the mean `(B,)` of the largest share.

    As the release counts pixels: a part of one is none, but one is taken at least. Of 1 % of an
    image's patches it is AnomalyDINO's image score.
    """
    if not 0 < share <= 1:
        raise ConfigError(f"a share of the pixels is above 0 and at most 1, got {share}")
    flat = values.flatten(1)
    # 1e-9: 0.29 of 100 pixels are 29, whatever the last bit of the product
    n_kept = max(1, int(flat.shape[1] * share + 1e-9))
    # in order of size, so that the sum does not depend on how they were found
    return flat.topk(n_kept, dim=1).values.mean(1)

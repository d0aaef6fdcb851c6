"""Guides: sparse coefficients over a dictionary that point at normal and at anomalous tokens.

Axes: G fits trained side by side, C n_latents, d d_model, B images, P patches. The pair axis always
holds (normal, anomalous) in that order.

Source: arXiv 2604.02871, Section 3 (ReLU + l1) and Supplement A (TopK guides).
"""

import torch
from torch import Tensor
from torch.nn import functional

from spg_core.errors import ConfigError, FitError
from spg_core.guide_config import GuideConfig

NORMAL, ANOMALY = 0, 1
SMALLEST_NORM = 1e-12


def initial_coefficients(n_latents: int, seed: int) -> Tensor:
    """Draw the start of a fit, 0.1 + 0.01 * randn, `(2, C)` float32, on the CPU.

    Zeros would never train: their gradient through ReLU is zero. Drawn on the CPU so that a seed
    means the same on every device.
    """
    generator = torch.Generator().manual_seed(seed)
    return 0.1 + 0.01 * torch.randn(2, n_latents, generator=generator)


def active_coefficients(
    raw: Tensor, config: GuideConfig, *, alive: Tensor, free: bool = False
) -> Tensor:
    """Give the coefficients `(..., 2, C)` that raw parameters `(..., 2, C)` stand for.

    `relu` keeps the positive part; `softplus` is smooth and has no zeros. `topk` keeps the
    `topk_guides` largest of the positive part and is straight through: all of the positive part
    gets the gradient, so an atom that is not kept can come back. `free` takes the parameters as
    they are, negative ones too: the control without sparsity. Atoms that are not `alive`
    `(..., 1 or 2, C)` (bool) are held at 0.

    Raises: ConfigError for more `topk_guides` than atoms.
    """
    match "free" if free else config.sparsity:
        case "free":
            return raw * alive
        case "relu":
            return torch.relu(raw) * alive
        case "softplus":
            return functional.softplus(raw) * alive
        case "topk":
            return _largest(torch.relu(raw) * alive, config.topk_guides)


def _largest(positive: Tensor, n_kept: int) -> Tensor:
    n_latents = positive.shape[-1]
    if n_kept > n_latents:
        raise ConfigError(
            f"topk-guides must lie in 1 .. {n_latents}, the atoms there are; got {n_kept}"
        )
    values, indices = positive.topk(n_kept, dim=-1)
    kept = torch.zeros_like(positive).scatter(-1, indices, values)
    return positive + (kept - positive).detach()


def compose_guides(coefficients: Tensor, dictionary: Tensor) -> Tensor:
    """Combine atoms `(C, d)` by coefficients `(..., 2, C)` into guides `(..., 2, d)`."""
    return torch.matmul(coefficients, dictionary)


def unit(vectors: Tensor) -> Tensor:
    """Scale the last axis to length 1; a zero vector stays zero."""
    norms = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return torch.div(vectors, norms.clamp_min(SMALLEST_NORM))


def patch_probabilities(unit_tokens: Tensor, guides: Tensor, temperature: float) -> Tensor:
    """Give p_A, the probability `(..., B, P)` in [0, 1] that a patch is anomalous.

    The two-class softmax of `cos(token, guide) / temperature` equals the sigmoid of the
    difference, so one channel is enough: p_N = 1 - p_A, before and after bilinear upsampling.

    Args:
        unit_tokens: tokens of length 1, `(B, P, d)`.
        guides: `(2, d)`, or `(G, 2, d)` for G fits at once, which gives `(G, B, P)`.
        temperature: T of the softmax, 0.07 in the paper.
    """
    directions = unit(guides)
    difference = (directions[..., ANOMALY, :] - directions[..., NORMAL, :]) / temperature
    if difference.ndim == 1:
        return torch.sigmoid(unit_tokens @ difference)
    return torch.einsum("bpd,gd->gbp", unit_tokens, difference).sigmoid()


def require_nonzero(coefficients: Tensor, name: str) -> None:
    """Refuse coefficients `(2, C)` of which a guide is all zero: its cosine has no meaning.

    Raises: FitError that names the guide and the remedy, also for values that are not finite.
    """
    if not bool(coefficients.isfinite().all()):
        raise FitError(f"the guides' coefficients are not finite ({name}); lower --learning-rate")
    for which, label in ((NORMAL, "normal"), (ANOMALY, "anomalous")):
        if not bool((coefficients[which] != 0).any()):
            raise FitError(
                f"the {label} guide has no coefficient above 0 ({name}); the l1 weight (--beta) is "
                "too large for this many steps, or every atom it used is dead in the SAE"
            )


def sparsity_summary(coefficients: Tensor) -> dict[str, tuple[float, float]]:
    """Count what a pair of guides `(2, C)` uses: `nnz` and `l1`, each as (normal, anomalous)."""
    sums = {"nnz": (coefficients != 0).sum(-1), "l1": coefficients.abs().sum(-1)}
    return {name: (float(pair[NORMAL]), float(pair[ANOMALY])) for name, pair in sums.items()}

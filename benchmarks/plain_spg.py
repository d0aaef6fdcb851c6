"""SPG once more, as plainly as it can be written: ours should be no better or worse.

    python -m benchmarks.plain_spg STORE AUXILIARY TARGET BACKBONE [--epochs 5] [--seeds 1 2]

Dense autograd, torch's interpolation, SciPy's filter, torch's own random numbers; the released
recipe without AuxK (no atom is dead within 10,000,000 tokens here). Only tokens, masks and metrics
are the project's. Prints image AUROC, pixel AUROC and AUPRO in %, averaged and last coefficients.
"""

import argparse

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor

from cache.store import open_store
from pipeline.inputs import CachedDataset, open_dataset
from spg_core.image_metrics import image_metrics
from spg_core.pixel_metrics import pixel_metrics


def fit_dictionary(tokens: Tensor, width: int, k: int, epochs: int) -> Tensor:
    """Train the SAE on tokens `(n, P, d)`, 16 images a step; give its unit atoms `(width, d)`."""
    n_images, _, d_model = tokens.shape
    atoms = torch.nn.Parameter(F.normalize(torch.randn(width, d_model), dim=1))
    encoder = torch.nn.Parameter(atoms.detach().clone())
    adam = torch.optim.Adam([atoms, encoder], lr=1e-3, betas=(0.5, 0.999))
    for _ in range(epochs):
        for rows in torch.randperm(n_images).split(16):
            batch = tokens[rows].reshape(-1, d_model)
            pre = batch @ encoder.T
            values, indices = pre.topk(k, dim=1)
            latents = torch.zeros_like(pre).scatter(1, indices, values.relu())
            loss = (batch - latents @ F.normalize(atoms, dim=1)).square().mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
            with torch.no_grad():
                atoms.copy_(F.normalize(atoms, dim=1))
    return atoms.detach()


def fit_guides(tokens: Tensor, masks: Tensor, atoms: Tensor, grid: tuple[int, int]) -> list[Tensor]:
    """Fit coefficients `(2, width)`, 8 images a step, 15 epochs; give the average and the last."""
    raw = torch.nn.Parameter(0.1 + 0.01 * torch.randn(2, len(atoms)))
    adam = torch.optim.Adam([raw], lr=1e-2, betas=(0.5, 0.999))
    average: Tensor | None = None
    for _ in range(15):
        for rows in torch.randperm(len(tokens)).split(8):
            positive = raw.relu()
            guides = F.normalize(positive @ atoms, dim=1)
            logits = F.normalize(tokens[rows], dim=2) @ guides.T / 0.07
            patches = logits.softmax(2).permute(0, 2, 1).reshape(-1, 2, *grid)
            p = F.interpolate(patches, masks.shape[1:], mode="bilinear", align_corners=False)
            y = masks[rows].float()
            onehot = torch.stack([1 - y, y], 1).clamp(1e-5, 1 - 1e-5)
            pt = (onehot * p).sum(1) + 1e-5
            loss = (-((1 - pt) ** 2) * pt.log()).mean()
            loss = loss + dice(p[:, 1], y) + dice(p[:, 0], 1 - y) + 2.5e-4 * positive.sum()
            adam.zero_grad()
            loss.backward()
            adam.step()
            now = raw.detach().clone()
            average = now if average is None else 0.999 * average + 0.001 * now
    assert average is not None
    return [average, raw.detach()]


def dice(p: Tensor, y: Tensor) -> Tensor:
    """Give the Dice loss of maps `(B, H, W)`, smooth 1, mean over images."""
    p, y = p.flatten(1), y.flatten(1)
    return 1 - ((2 * (p * y).sum(1) + 1) / (p.sum(1) + y.sum(1) + 1)).mean()


def report(target: CachedDataset, guides: Tensor, label: str) -> None:
    """Print the metrics of each category for guides `(2, d)`."""
    spec = target.spec
    for category in target.manifest.categories:
        rows = target.manifest.rows_of(category)
        tokens = F.normalize(torch.from_numpy(target.cache.tokens(rows)).float(), dim=2)
        p = (tokens @ F.normalize(guides, dim=1).T / 0.07).softmax(2)[..., 1]
        p = p.reshape(-1, 1, spec.grid.rows, spec.grid.cols)
        maps = F.interpolate(p, (spec.height, spec.width), mode="bilinear")[:, 0].numpy()
        maps = np.stack([gaussian_filter(one, 4) for one in maps])
        pixel = pixel_metrics(maps, target.cache.masks(rows))
        image = image_metrics(maps.max((1, 2)), target.manifest.labels[rows])
        values = [image.auroc, pixel.auroc, pixel.aupro]
        shown = " ".join("-" if value is None else f"{100 * value:.1f}" for value in values)
        print(label, category, shown, flush=True)


def main() -> None:
    """Fit and report for each seed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name in ("store", "auxiliary", "target", "backbone"):
        parser.add_argument(name)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    store = open_store(options.store, read_only=True)
    auxiliary = open_dataset(store, options.auxiliary, options.backbone)
    target = open_dataset(store, options.target, options.backbone)
    everything = slice(0, auxiliary.cache.n_images)
    tokens = torch.from_numpy(auxiliary.cache.tokens(everything)).float()
    masks = torch.from_numpy(auxiliary.cache.masks(everything))
    for seed in options.seeds:
        torch.manual_seed(seed)
        atoms = fit_dictionary(tokens, 1024, 32, options.epochs)
        grid = (auxiliary.spec.grid.rows, auxiliary.spec.grid.cols)
        for label, raw in zip(("EMA", "last"), fit_guides(tokens, masks, atoms, grid), strict=True):
            report(target, raw.relu() @ atoms, f"seed {seed} {label}")


if __name__ == "__main__":
    main()

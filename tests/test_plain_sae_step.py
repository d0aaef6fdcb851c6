"""Read this first: an SAE training step in twenty lines, and that ours is the same.

Everything else about SAEs in this repository makes these lines faster (gradients written out, in a
dense and a sparse form), goes on from a checkpoint, or varies them: `test_spg_core_sae_step.py`
has AuxK, the paper's recipe and ReLU.
"""

import torch

from spg_core.sae_config import SaeConfig
from spg_core.sae_step import SaeTrainer
from spg_core.sae_weights import initial_weights

CONFIG = SaeConfig(width=48, k=5, auxk=0)
D_MODEL = 20


def plain_training(batches):
    """Train on tokens `(n, d_model)`, batch after batch; give encoder, dictionary and losses."""
    encoder, dictionary = initial_weights(CONFIG, D_MODEL, torch.float64)
    encoder.requires_grad_()
    dictionary.requires_grad_()
    adam = torch.optim.Adam([encoder, dictionary], lr=1e-3, betas=(0.5, 0.999))
    losses = []
    for tokens in batches:
        values, indices = (tokens @ encoder.T).topk(CONFIG.k, dim=1)
        latents = torch.zeros(len(tokens), CONFIG.width, dtype=tokens.dtype)
        latents = latents.scatter(1, indices, values.clamp_min(0))
        atoms = dictionary / dictionary.norm(dim=1, keepdim=True)
        loss = (tokens - latents @ atoms).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        with torch.no_grad():
            dictionary /= dictionary.norm(dim=1, keepdim=True)
        losses.append(loss.item())
    return encoder.detach(), dictionary.detach(), losses


def test_our_steps_are_the_plain_ones():
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(37, D_MODEL, generator=generator, dtype=torch.float64) for _ in range(8)]
    encoder, dictionary, losses = plain_training(batches)

    trainer = SaeTrainer(CONFIG, D_MODEL, path="dense", precision="float64")
    found = [trainer.step(tokens).loss.item() for tokens in batches]

    torch.testing.assert_close(torch.tensor(found), torch.tensor(losses), rtol=1e-9, atol=0)
    torch.testing.assert_close(trainer.sae().encoder, encoder, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(trainer.sae().dictionary, dictionary, rtol=1e-9, atol=1e-12)

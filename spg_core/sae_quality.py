"""Running sums over batches of tokens that say how good an SAE is; see `sae_loss.fvu`."""

import torch
from torch import Tensor

from spg_core.sae import CHUNK_TOKENS, Sae, decode, encode
from spg_core.sae_loss import squared_error


class SaeSums:
    """What an SAE makes of the tokens so far; tensors, so that a GPU is not waited for."""

    def __init__(self, sae: Sae) -> None:
        """Start with no token."""
        device = sae.encoder.device
        self.sae = sae
        self.error = torch.zeros((), dtype=torch.float64, device=device)
        """Squared error of the reconstructions."""
        self.n_nonzero = torch.zeros((), dtype=torch.int64, device=device)
        """Non-zero latents."""
        self._fired = torch.zeros(sae.n_latents + 1, dtype=torch.bool, device=device)

    def add(self, tokens: Tensor) -> None:
        """Take in tokens `(n, d_model)`."""
        for chunk in torch.split(tokens, CHUNK_TOKENS):
            latents = encode(self.sae, chunk)
            self.error += squared_error(chunk - decode(self.sae, latents)).double()
            self.n_nonzero += latents.values.count_nonzero()
            # 0 and not AuxK's threshold: the released code masks atoms that never fired at all
            fired = torch.where(latents.values > 0, latents.indices, self.sae.n_latents)
            self._fired.index_fill_(0, fired.reshape(-1), True)

    @property
    def ever_active(self) -> Tensor:
        """Tell which atoms `(n_latents,)` some token activated."""
        return self._fired[:-1]


class TokenSums:
    """How far the tokens so far lie from their mean."""

    def __init__(self, d_model: int, device: torch.device | str = "cpu") -> None:
        """Start with no token."""
        self._squares = torch.zeros((), dtype=torch.float64, device=device)
        self._total = torch.zeros(d_model, dtype=torch.float64, device=device)
        self._n_tokens = 0

    def add(self, tokens: Tensor) -> None:
        """Take in tokens `(n, d_model)`."""
        self._squares += squared_error(tokens).double()
        self._total += tokens.sum(0, dtype=torch.float64)
        self._n_tokens += len(tokens)

    @property
    def variation(self) -> Tensor:
        """Sum the squared distances of all tokens to their mean. 0-d float64."""
        return self._squares - self._total.square().sum() / self._n_tokens

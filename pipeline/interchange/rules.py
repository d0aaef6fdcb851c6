"""By what rule an SAE of others encodes: which latents a token activates.

    pre-activations = W_enc (f - b_dec) + b_enc     b_dec only where the rule says so
    topk            the k largest, those above 0
    relu            all above 0
    jumprelu        all above their threshold

    reconstruction = latents W_dec + b_dec

C atoms of width d, n tokens f.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

_ENCODERS = {"W_enc": True, "encoder.weight": False, "encoder": False}
"""Names of the encoder's matrix, and whether it has to be turned to have a row an atom."""
_RULES = {"topk": "topk", "standard": "relu", "relu": "relu", "jumprelu": "jumprelu"}
"""What `cfg.json` calls the rules that are known."""
_LARGEST_K = 1 << 24


@dataclass(frozen=True)
class Rule:
    """How latents follow from tokens."""

    name: str
    """topk, relu or jumprelu."""
    encoder: Tensor
    """`(C, d)`."""
    bias: Tensor
    """`(C,)`; what the decoder's bias does to the input is in it."""
    k: int
    """Of topk."""
    threshold: Tensor
    """`(C,)`, of jumprelu; 0 otherwise."""
    scale: Tensor
    """`(C,)`, by which pre-activations are ranked; 1 unless the rule weighs by atom length."""
    decoder: Tensor
    """`(C, d)`."""
    shift: Tensor
    """`(d,)`, the decoder's bias."""

    def __str__(self) -> str:
        return f"topk k={self.k}" if self.name == "topk" else self.name

    def latents(self, tokens: Tensor) -> Tensor:
        """Give the latents `(n, C)` of tokens `(n, d)`, 0 where they are not active."""
        sums = tokens @ self.encoder.T + self.bias
        ranked = sums * self.scale
        if self.name != "topk":
            return torch.where(ranked > self.threshold, sums, 0.0)
        values, indices = ranked.topk(self.k, dim=1)
        kept = torch.where(values > 0, sums.gather(1, indices), 0.0)
        return torch.zeros_like(sums).scatter_(1, indices, kept)

    def decode(self, latents: Tensor) -> Tensor:
        """Give reconstructions `(n, d)` of latents `(n, C)`."""
        return latents @ self.decoder + self.shift

    def to(self, device: torch.device) -> "Rule":
        """Give the same rule on another device."""
        return replace(
            self,
            encoder=self.encoder.to(device),
            bias=self.bias.to(device),
            threshold=self.threshold.to(device),
            scale=self.scale.to(device),
            decoder=self.decoder.to(device),
            shift=self.shift.to(device),
        )


def rule_of(
    config: Mapping[str, object], tensors: Mapping[str, Tensor], decoder: Tensor
) -> Rule | None:
    """Give the rule that a file and its `cfg.json` tell, None where they do not, or tell another.

    Args:
        config: `cfg.json` of sae-lens or sparsify.
        tensors: of the file.
        decoder: `(C, d)`, one of them, turned where it has to be.
    """
    n_latents, d_model = decoder.shape
    encoder = _encoder(tensors, n_latents, d_model)
    called = config.get("architecture", config.get("activation", "topk" if "k" in config else None))
    name = _RULES.get(str(called))
    normalised = config.get("normalize_activations", "none") not in ("none", False)
    if encoder is None or name is None or normalised:
        return None
    bias = _vector(tensors, ("b_enc", "encoder.bias"), n_latents)
    minus = _vector(tensors, ("b_dec", "decoder.bias"), d_model)
    if config.get("apply_b_dec_to_input", True):
        bias = bias - encoder @ minus
    k = config.get("k", 0)
    if name == "topk" and not (isinstance(k, int) and 1 <= k <= min(n_latents, _LARGEST_K)):
        return None
    scale = torch.ones(n_latents)
    if config.get("rescale_acts_by_decoder_norm", False):
        scale = torch.linalg.vector_norm(tensors["W_dec"], dim=1)
    threshold = _vector(tensors, ("threshold",), n_latents)
    if name == "jumprelu" and "threshold" not in tensors:
        return None
    k = k if isinstance(k, int) else 0
    return Rule(name, encoder, bias, k, threshold, scale, decoder, minus)


def _encoder(tensors: Mapping[str, Tensor], n_latents: int, d_model: int) -> Tensor | None:
    name = next((name for name in _ENCODERS if name in tensors), None)
    if name is None:
        return None
    rows = tensors[name].T.contiguous() if _ENCODERS[name] else tensors[name]
    return rows if tuple(rows.shape) == (n_latents, d_model) else None


def _vector(tensors: Mapping[str, Tensor], names: tuple[str, ...], length: int) -> Tensor:
    """Give the first of some vectors that is there, zeros where none is."""
    found = next((tensors[name] for name in names if name in tensors), None)
    return torch.zeros(length) if found is None or tuple(found.shape) != (length,) else found

"""What a detector knows of its product: tokens of known good parts, and how strange one may be.

Axes: m kept tokens; n images; P patches; d d_model.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pipeline.prediction.look import TURNED, Look, problems_of
from spg_core.familiarity import applicability, kept_rows, strangeness, usual_limit

ASPECT_STRETCH = 1.25
"""How many times as long and narrow as any own good part a picture may be."""


@dataclass(frozen=True)
class Familiar:
    """The good parts of a product, as far as it is stored."""

    name: str
    """Of the threshold that was chosen on them."""
    tokens: Tensor = field(repr=False)
    """`(m, d)` float16 of the first part of the detector that draws."""
    limit: float
    """Strangeness up to which an image is like them."""
    aspects: tuple[float, float]
    """Lowest and highest width by height."""
    images: int
    """How many good parts there were."""
    waived: frozenset[str] = frozenset()
    """Checks of a picture that some good part fails itself, and which so say nothing."""

    def applicability(self, tokens: Tensor) -> list[float]:
        """Give, for tokens `(n, P, d)`, how well the detector applies: 1 fully, below 0.5 not."""
        found = strangeness(tokens, self.tokens.to(tokens.device))
        return applicability(found, self.limit).tolist()


class Learner:
    """Takes good parts one by one, and then gives what is to be stored of them."""

    def __init__(self) -> None:
        self._aspects: list[float] = []
        self._looks: list[Look] = []
        self._tokens: list[Tensor] = []
        self._generator = torch.Generator().manual_seed(0)

    def __len__(self) -> int:
        return len(self._tokens)

    def add(self, tokens: Tensor, aspect: float, look: Look | None = None) -> None:
        """Take one good part.

        Args:
            tokens: `(P, d)`.
            aspect: width by height of its picture.
            look: of its picture, where that is at hand.
        """
        self._aspects.append(aspect)
        if look is not None:
            self._looks.append(look)
        if len(self._tokens) < MOST_IMAGES:
            # of each image others: parts that lie alike would look nearer than a later one will
            rows = torch.randperm(len(tokens), generator=self._generator)[:MOST_PATCHES]
            self._tokens.append(tokens.to("cpu", torch.float16)[rows])

    def familiar(self, name: str) -> Familiar:
        """Give what is kept of them. Raises: MetricError for too few."""
        tokens = torch.stack(self._tokens)
        rows = kept_rows(len(tokens), tokens.shape[1])
        limit = usual_limit(tokens, rows)
        kept = torch.cat([one[row] for one, row in zip(tokens, rows, strict=True)])
        waived = {name for one in self._looks for name in problems_of(one, self._aspects)}
        if len(self._looks) < len(self._aspects):  # of cached images nobody knows any more
            waived.add(TURNED)
        aspects = (min(self._aspects), max(self._aspects))
        return Familiar(name, kept, limit, aspects, len(self._aspects), frozenset(waived))


MOST_IMAGES = 256
"""Good parts whose tokens are looked at; further ones change little, and take memory."""
MOST_PATCHES = 256
"""Patches of each that are, by chance."""


def doubts_of(
    look: Look,
    applies: float | None,
    familiar: Familiar | None,
    aspects: Sequence[float] = (1.0,),
) -> list[str]:
    """Say why a detector may not apply to an image; empty where nothing speaks against it.

    Args:
        look: of its picture.
        applies: of `Familiar.applicability`.
        familiar: the good parts, where they are known.
        aspects: width by height of other images that the detector knows, where they are not.
    """
    if familiar is None:
        seen = problems_of(look, aspects).items()
        return [text for name, text in seen if name != TURNED]
    problems = problems_of(look, familiar.aspects, ASPECT_STRETCH)
    found = [text for name, text in problems.items() if name not in familiar.waived]
    if applies is not None and applies < 0.5:
        times = (1 - applies) / applies
        found.append(
            f"it is unlike the good parts of {familiar.name}: {times:.1f} times as far from them "
            "as an image may be"
        )
    return found

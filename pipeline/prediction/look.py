"""What can be said of a picture before any model: its shape, and whether it shows anything.

The limits are wide. They name pictures on which no detector can say anything, whatever its product:
a covered lens, a cable that lost its signal, a strip cut from something else. What a product of
one's own looks like, its good parts tell (`pipeline.prediction.familiar`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from manifests.images import is_to_be_turned

SMALLEST_SIDE: Final = 32
"""Pixels: two patches of a vision transformer."""
FLATTEST: Final = 2.0
"""Standard deviation of grey levels, 0 to 255, below which a picture shows nothing."""
CLIPPED: Final = 0.98
"""Share of the pixels that are white, or black, from which on nothing is left between."""
LEAST_LIKENESS: Final = 0.4
"""Correlation of neighbouring pixels below which a picture is noise."""
STRETCH: Final = 3.0
"""How many times as long and narrow as any training image a picture may be."""
TURNED: Final = "turned"
"""The check that only known good parts give a meaning: whether they lay upright all."""
_WHITE: Final = 250
_BLACK: Final = 5
_SIDE: Final = 128  # pixels of the small copy; on it noise is noise, also if it was enlarged


@dataclass(frozen=True)
class Look:
    """What a picture looks like."""

    width: int
    height: int
    contrast: float
    """Standard deviation of the grey levels of a small copy."""
    white: float
    """Share of pixels at the white end, in [0, 1]."""
    black: float
    likeness: float
    """Correlation of its neighbouring pixels, in [-1, 1]; 1 for a picture of one colour."""
    turned: bool
    """Whether its EXIF tag says that it is to be turned, and it was not."""

    @property
    def aspect(self) -> float:
        """Width by height."""
        return self.width / self.height


def look_of(picture: Image.Image) -> Look:
    """Look at an RGB picture of any size; a 12-megapixel one takes some milliseconds."""
    grey = picture.convert("L")
    small = np.asarray(grey.resize((_SIDE, _SIDE), Image.Resampling.BOX), np.float64)
    levels = np.asarray(grey.histogram(), np.float64) / (grey.width * grey.height)
    return Look(
        picture.width,
        picture.height,
        float(small.std()),
        float(levels[_WHITE:].sum()),
        float(levels[: _BLACK + 1].sum()),
        _likeness(small),
        is_to_be_turned(picture),
    )


def _likeness(pixels: NDArray[np.float64]) -> float:
    """Give the correlation of each pixel with those right of it and below it, the larger one."""
    found = []
    for one, other in ((pixels[:, :-1], pixels[:, 1:]), (pixels[:-1], pixels[1:])):
        spread = float(one.std() * other.std())
        if spread > 0:
            found.append(float(((one - one.mean()) * (other - other.mean())).mean()) / spread)
    return max(found, default=1.0)


def problems_of(
    look: Look, aspects: Sequence[float] = (1.0,), stretch: float = STRETCH
) -> dict[str, str]:
    """Say what is wrong with a picture, by the name of the check; empty where nothing is.

    Args:
        look: of the picture.
        aspects: width by height of images that the detector knows; the extremes are enough.
        stretch: how many times as long and narrow it may be.
    """
    low, high = min(aspects) / stretch, max(aspects) * stretch
    found = {}
    if min(look.width, look.height) < SMALLEST_SIDE:
        found["small"] = f"it is {look.width} x {look.height} pixels, which show nothing"
    if not low <= look.aspect <= high:
        found["aspect"] = (
            f"it is {look.width} x {look.height} pixels, far from the shape of the images that the "
            "detector knows"
        )
    if look.contrast < FLATTEST:
        found["flat"] = "it is of one colour"
    if look.white >= CLIPPED:
        found["white"] = f"{look.white:.0%} of its pixels are white: overexposed"
    if look.black >= CLIPPED:
        found["black"] = f"{look.black:.0%} of its pixels are black: underexposed"
    if look.likeness < LEAST_LIKENESS:
        found["noise"] = "it is noise: neighbouring pixels have nothing in common"
    if look.turned:
        found[TURNED] = (
            "its EXIF tag says that it is to be turned, which this detector does not do: "
            "`extract --exif` makes one that does"
        )
    return found

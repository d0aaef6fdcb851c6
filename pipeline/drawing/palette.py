"""The colours: inferno for maps, on a scale that is stated; a few that all eyes tell apart.

A map's pixel v in [0, top] takes colour round(255 v / top), so that the same colour means the same
value wherever it stands.
"""

from typing import Final

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

N_COLOURS: Final = 256
INFERNO: Final[bytes] = matplotlib.colormaps["inferno"](np.arange(N_COLOURS), bytes=True)[
    :, :3
].tobytes()
"""RGB of each level, as Pillow takes a palette."""
OUTLINE: Final = (64, 224, 255)
"""Lines over an inferno map, which has no such colour."""
LINES: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Lines of a plot. Source: Okabe and Ito 2008, colour universal design."""


def levels(values: NDArray[np.floating], top: float = 1.0) -> Image.Image:
    """Give a map `(h, w)` as an 8-bit image of palette levels; above `top` is the last one."""
    share = np.clip(values / top, 0, 1)
    return Image.fromarray(np.rint(share * (N_COLOURS - 1)).astype(np.uint8))


def coloured(image: Image.Image) -> Image.Image:
    """Give an image of levels its colours, as a palette image."""
    painted = image.copy()
    painted.putpalette(INFERNO)
    return painted

"""What a picture is inside the service.

Shapes are given in letters: `H` height and `W` width in pixels, `T` frames in time, `N` pictures of one size.
A picture is grey, [H W], or colour, [H W 3] in the order red, green, blue; samples are 8 bit, 0 is black and
255 is white.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Pixels: TypeAlias = NDArray[np.uint8]
MAX_PIXELS = 16_000_000
"""Most pixels of an upload, by default."""
BYTES_PER_PIXEL = 4
"""Memory that a pixel takes: one byte of grey, and three of colour."""
Points: TypeAlias = NDArray[np.floating]
"""Positions [... 2], x before y."""


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A decoded upload, upright and opaque."""

    grey: Pixels
    """[H W]; may be read-only."""
    colour: Pixels | None = None
    """[H W 3], or None when the upload was grey; may be read-only."""

    @property
    def width(self) -> int:
        """In pixels."""
        return int(self.grey.shape[1])

    @property
    def height(self) -> int:
        """In pixels."""
        return int(self.grey.shape[0])

    def rgb(self) -> Pixels:
        """Return a fresh [H W 3] copy that may be drawn upon."""
        return as_rgb(self.grey) if self.colour is None else self.colour.copy()


def as_rgb(grey: Pixels) -> Pixels:
    """[... H W] in grey -> [... H W 3], a fresh copy."""
    return np.repeat(grey[..., None], 3, axis=-1)

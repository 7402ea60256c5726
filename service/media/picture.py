"""The representation of pictures inside the service.

Axis letters: `H` height and `W` width in pixels, `T` frames in time, `N` pictures of one size. A picture is grey,
[H W], or colour, [H W 3] in the order red, green, blue; samples are uint8, where 0 is black and 255 is white.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Pixels: TypeAlias = NDArray[np.uint8]
MAX_PIXELS = 16_000_000
"""Default maximum number of pixels of an upload."""
BYTES_PER_PIXEL = 4
"""Memory per pixel of a decoded upload in bytes: one for grey and three for colour."""
Points: TypeAlias = NDArray[np.floating]
"""Positions [... 2], x before y."""


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A decoded upload, upright and opaque."""

    grey: Pixels
    """Grey pixels, [H W]; may be read-only."""
    colour: Pixels | None = None
    """Colour pixels, [H W 3], or None if the upload was grey; may be read-only."""

    @property
    def width(self) -> int:
        """Width in pixels."""
        return int(self.grey.shape[1])

    @property
    def height(self) -> int:
        """Height in pixels."""
        return int(self.grey.shape[0])

    def rgb(self) -> Pixels:
        """Return a new, writable copy in colour, [H W 3]."""
        return as_rgb(self.grey) if self.colour is None else self.colour.copy()


def as_rgb(grey: Pixels) -> Pixels:
    """Convert grey [... H W] to colour [... H W 3], as a new array."""
    return np.repeat(grey[..., None], 3, axis=-1)

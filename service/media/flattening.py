"""Converts pictures that Pillow decoded to the service's format: opaque, grey or RGB, 8 bits per sample.

A transparent picture is composited onto white or black, whichever `_paper` chooses.
"""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.media.picture import Picture, Pixels

SOFT_SHARE = 0.01
"""Largest share of visible pixels of the opposite brightness in a picture that counts as all dark or all light."""
BAND_ROWS = 64
"""Number of rows that are processed at a time."""


def flattened(image: Image.Image) -> Picture:
    """Convert an image of any Pillow mode, with its pixels loaded."""
    if image.mode.startswith("I;16"):
        samples = np.asarray(image)
        grey = _in_8_bits(samples, black=0, span=65535)
        if "transparency" in image.info:
            is_clear = samples == image.info["transparency"]
            grey[is_clear] = _paper(grey, ~is_clear)
        return Picture(grey)
    if image.mode in ("I", "F"):
        return Picture(_stretched(np.asarray(image)))
    if image.has_transparency_data:
        return in_colour(np.asarray(_opaque(image.convert("RGBA"))))
    if image.mode in ("1", "L"):
        return Picture(np.asarray(image.convert("L")))
    return in_colour(np.asarray(image if image.mode == "RGB" else image.convert("RGB")))  # `convert` always copies


def in_colour(rgb: Pixels) -> Picture:
    """Return a colour picture from [H W 3] uint8 in the order red, green, blue."""
    return Picture(grey=np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8), colour=rgb)


def _opaque(image: Image.Image) -> Image.Image:
    """Composite a picture with alpha onto paper, in bands of rows because Pillow holds the GIL during each call."""
    grey, is_visible = np.empty(image.size[::-1], np.uint8), np.empty(image.size[::-1], np.bool_)
    boxes = [(0, top, image.width, min(top + BAND_ROWS, image.height)) for top in range(0, image.height, BAND_ROWS)]
    for box, greys, visible in zip(boxes, _bands(grey), _bands(is_visible), strict=True):
        band = image.crop(box)
        greys[:], visible[:] = band.convert("L"), np.asarray(band.getchannel("A")) >= 128
    paper = _paper(grey, is_visible)
    page = Image.new("RGBA", image.size, (paper, paper, paper, 255))
    for box in boxes:
        page.alpha_composite(image, box[:2], box)
    return page.convert("RGB")


def _paper(grey: Pixels, is_visible: NDArray[np.bool_]) -> int:
    """Return the grey value of the paper: 255 (white) or 0 (black).

    If the visible pixels are all dark or all light, apart from soft edges, they are ink without paper, and the paper
    contrasts with them. Otherwise they are ink cut out with some of its page, and the paper is like their border: black
    if the border is darker than their mean. The picture's own edge does not count as border.
    """
    visible = np.count_nonzero(is_visible)
    light = np.count_nonzero(is_visible & (grey >= 128))
    if light <= SOFT_SHARE * visible:
        return 255
    if light >= (1 - SOFT_SHARE) * visible:
        return 0
    if visible == grey.size:
        return 255
    inside = cv2.erode(is_visible.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=1)
    border = grey[is_visible & (inside == 0)]
    return 0 if border.mean() < grey[is_visible].mean() else 255


def _stretched(values: NDArray[np.number]) -> Pixels:
    """Scale 32-bit samples, for which files declare no white level, to 8 bits.

    White is the smallest of 1 (floats only), 255 and 65535 that no sample exceeds. If there is none, or a sample is
    negative, the range from the darkest to the lightest sample is stretched to 0..255. NaN and infinity count as 0.
    """
    low = min(_finite(band).min() for band in _bands(values))
    high = max(_finite(band).max() for band in _bands(values))
    whites = (1, 255, 65535) if np.issubdtype(values.dtype, np.floating) else (255, 65535)
    white = next((white for white in whites if low >= 0 and high <= white), None)
    if white is None:
        return _in_8_bits(values, black=low, span=high - low or 1)
    return _in_8_bits(values, black=0, span=white)


def _in_8_bits(values: NDArray[np.number], black: float, span: float) -> Pixels:
    pixels = np.empty(values.shape, np.uint8)
    for band, target in zip(_bands(values), _bands(pixels), strict=True):
        target[:] = np.rint((_finite(band) - black) * (255.0 / span))
    return pixels


def _finite(values: NDArray[np.number]) -> NDArray[np.float64]:
    return np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)


def _bands(values: NDArray[np.generic]) -> list[NDArray[Any]]:
    """Return views of `BAND_ROWS` rows each, because in double precision a picture takes eight bytes per pixel."""
    return [values[row : row + BAND_ROWS] for row in range(0, len(values), BAND_ROWS)]

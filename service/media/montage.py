"""Combines several pictures into one: contact sheets and panels side by side."""

from collections.abc import Iterable, Sequence
from itertools import chain

import cv2
import numpy as np

from service.media.framing import resize
from service.media.lettering import lettering
from service.media.picture import Pixels, as_rgb

GAP, GAP_GREY = 1, 96
"""Width of the gaps between pictures in pixels, and their grey value."""
STRIP_MARGIN = 12
STRIP_TEXT_SIZE = 22
MAX_STRIP_ASPECT = 4


def enlarge(images: Pixels, scale: int) -> Pixels:
    """Enlarge every pixel of [N H W] or [N H W 3] to a block of `scale` x `scale`."""
    return images if scale == 1 else images.repeat(scale, axis=1).repeat(scale, axis=2)


def sheet(images: Iterable[Pixels], rows: int, columns: int) -> Pixels:
    """Lay out pictures of one size, each [H W] or [H W 3], row by row, with gaps between them.

    The pictures are consumed one at a time, so that they need not all be in memory. Cells without a picture are grey.
    """
    remaining = iter(images)
    first = next(remaining)
    height, width, *channels = first.shape
    page = np.full((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, *channels), GAP_GREY, np.uint8)
    for index, image in enumerate(chain([first], remaining)):
        row, column = divmod(index, columns)
        top, left = row * (height + GAP), column * (width + GAP)
        page[top : top + height, left : left + width] = image
    return page


def grid(images: Pixels, columns: int) -> Pixels:
    """Lay out pictures [N H W] or [N H W 3] row by row in `columns` columns, with gaps between them."""
    return images.squeeze(0) if len(images) == columns == 1 else sheet(images, -(-len(images) // columns), columns)


def strip(panels: Sequence[Pixels], caption: str, height: int) -> Pixels:
    """Lay out pictures, grey or colour, side by side on white with a caption below; return [H W 3].

    Pictures are scaled to `height`, or less if they would be wider than `MAX_STRIP_ASPECT` times `height`.
    """
    scaled = [_fitted(panel, height, MAX_STRIP_ASPECT * height) for panel in panels]
    text = lettering(caption, STRIP_TEXT_SIZE)
    width = max(sum(panel.shape[1] + STRIP_MARGIN for panel in scaled), text.shape[1] + STRIP_MARGIN) + STRIP_MARGIN
    page = np.full((height + text.shape[0] + 3 * STRIP_MARGIN, width, 3), 255, np.uint8)
    left = STRIP_MARGIN
    for panel in scaled:
        top = STRIP_MARGIN + (height - panel.shape[0]) // 2
        page[top : top + panel.shape[0], left : left + panel.shape[1]] = panel
        left += panel.shape[1] + STRIP_MARGIN
    top = height + 2 * STRIP_MARGIN
    page[top : top + text.shape[0], STRIP_MARGIN : STRIP_MARGIN + text.shape[1]] = 255 - text[..., None]
    return page


def _fitted(panel: Pixels, height: int, width: int) -> Pixels:
    """Scale a picture to fit into `height` x `width` pixels, keeping its aspect ratio; no side is less than 1."""
    scale = min(height / panel.shape[0], width / panel.shape[1])
    rows, columns = (max(1, round(side * scale)) for side in panel.shape[:2])
    scaled = resize(panel, columns, rows, enlarging=cv2.INTER_NEAREST)
    return scaled if scaled.ndim == 3 else as_rgb(scaled)

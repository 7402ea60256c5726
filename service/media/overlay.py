"""Draws marks on pictures: DRAW's attention windows, and the outline of what the spatial transformer samples."""

import cv2
import numpy as np
from numpy.typing import NDArray

from service.media.picture import Pixels, Points

RED = (255, 0, 0)
GREEN = (0, 255, 0)

SUBPIXEL_BITS = 4


def draw_windows(
    frames: Pixels,
    g_X: NDArray[np.floating],
    g_Y: NDArray[np.floating],
    delta: NDArray[np.floating],
    sigma: NDArray[np.floating],
    *,
    N: int,
    scale: int,
    colour: tuple[int, int, int],
) -> None:
    """Draw its attention window onto each frame in place, as in the figures of the DRAW paper.

    The window is a square with centre (g_X, g_Y) and sides of (N - 1) delta, the distance between the outermost
    filters. The line is thicker for wider filters. Parts outside the frame are clipped.

    Args:
        frames: [T H W 3] uint8, canvases enlarged `scale` times; modified in place.
        g_X: [T], x of the centre in canvas pixels, where the first pixel's centre is 1, as in the paper.
        g_Y: [T], y of the centre, likewise.
        delta: [T], distance between neighbouring filters in canvas pixels.
        sigma: [T], standard deviation of the filters in canvas pixels.
        N: number of filters along a side.
        scale: factor by which the canvases were enlarged.
        colour: colour of the line: red, green, blue.
    """
    line = np.rint(np.clip(scale * sigma / 2, 1, 2 * scale))[:, None]
    centre = (np.stack([g_Y, g_X], axis=1) - 0.5) * scale
    reach = ((N - 1) * delta * scale)[:, None] / 2 + line / 2
    low, high = np.rint(centre - reach), np.rint(centre + reach)
    edges = np.stack([low, np.minimum(low + line, high), np.maximum(high - line, low), high], axis=2)  # [T 2 4]
    limits = np.array(frames.shape[1:3])[:, None]
    for frame, (y, x) in zip(frames, np.clip(edges, 0, limits).astype(int).tolist(), strict=True):
        frame[y[0] : y[1], x[0] : x[3]] = colour
        frame[y[2] : y[3], x[0] : x[3]] = colour
        frame[y[0] : y[3], x[0] : x[1]] = colour
        frame[y[0] : y[3], x[2] : x[3]] = colour


def draw_outline(image: Pixels, polygon: Points) -> None:
    """Draw a closed, anti-aliased red polygon onto a picture in place.

    Args:
        image: [H W 3] uint8; modified in place.
        polygon: [P 2] in pixels, with pixel centres at half-integers; corners may be far outside the picture.
    """
    far = 4 * max(image.shape)
    corners = np.clip(polygon, -far, far) - 0.5  # in OpenCV, the first pixel's centre is 0
    fixed_point = np.rint(corners * (1 << SUBPIXEL_BITS)).astype(np.int32)
    thickness = max(1, round(max(image.shape) / 160))
    cv2.polylines(image, [fixed_point], True, RED, thickness, cv2.LINE_AA, SUBPIXEL_BITS)

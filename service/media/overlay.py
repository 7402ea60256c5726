"""Marks on a picture: the window that DRAW attends to, the outline of what the transformer samples."""

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
    """Draw the attention window of every frame upon it, as in the paper's figures.

    The window is a square around (g_X, g_Y) whose sides are the (N - 1) delta that its outermost filters lie
    apart; its line is the thicker the wider the filters are. What lies outside the frame is cut off.

    Args:
        frames: [T H W 3], canvases that were enlarged `scale` times; drawn upon.
        g_X: [T], the centre, counted in pixels of the canvas from 1, as in the paper.
        g_Y: [T], likewise.
        delta: [T], the distance between filters, in pixels of the canvas.
        sigma: [T], their standard deviation, in pixels of the canvas.
        N: filters along a side.
        scale: how many times the canvases were enlarged.
        colour: of the line.
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
    """Draw a closed, smooth red line upon a picture.

    Args:
        image: [H W 3]; drawn upon.
        polygon: [P 2] in pixels, a pixel's centre at a half; corners far outside are allowed.
    """
    far = 4 * max(image.shape)
    corners = np.clip(polygon, -far, far) - 0.5  # OpenCV counts from the first pixel's centre
    fixed_point = np.rint(corners * (1 << SUBPIXEL_BITS)).astype(np.int32)
    thickness = max(1, round(max(image.shape) / 160))
    cv2.polylines(image, [fixed_point], True, RED, thickness, cv2.LINE_AA, SUBPIXEL_BITS)

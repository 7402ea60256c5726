"""Frames a picture of any shape as the square that the network sees, and samples the picture itself for more detail.

Convention: normalised coordinates run from -1 to 1 between the *outer edges* of an area, x to the right and y down, so
that the centre of pixel i of n is at (2 i + 1) / n - 1 (`align_corners=False`). The square is the smallest one around
the picture, with the same centre; outside the picture, it is filled with the mean of the picture's outermost ring of
pixels.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from service.media.picture import Pixels, Points


@dataclass(frozen=True, slots=True)
class Frame:
    """The mapping from the square around a picture of `width` x `height` pixels to the picture."""

    width: int
    height: int

    @property
    def scale_x(self) -> float:
        """Factor from x in the square to x in the picture, both normalised; at least 1."""
        return max(self.width, self.height) / self.width

    @property
    def scale_y(self) -> float:
        """Factor from y in the square to y in the picture, both normalised; at least 1."""
        return max(self.width, self.height) / self.height

    def to_pixels(self, points: Points) -> Points:
        """Convert normalised points [... 2] of the square to pixel coordinates of the picture.

        The picture's outer edges are at 0 and `width`, 0 and `height`; pixel centres are at half-integers.
        """
        side = max(self.width, self.height)
        return (np.asarray(points) * side + (self.width, self.height)) / 2


def square(picture: Pixels, side: int) -> Pixels:
    """Frame a picture [H W] or [H W 3] as [side side] or [side side 3]; return one of that size as it is."""
    height, width = picture.shape[:2]
    if height != width:
        return sample(picture, identity_grid(side))
    return picture if height == side else resize(picture, side, side)


def identity_grid(side: int) -> Points:
    """Return the normalised pixel centres of a square, [side side 2] float32."""
    centres = (2 * np.arange(side, dtype=np.float32) + 1) / side - 1
    return np.stack(np.meshgrid(centres, centres), axis=-1)


def sample(picture: Pixels, grid: Points) -> Pixels:
    """Sample a picture [H W] or [H W 3] bilinearly at normalised points [S S 2], S > 1, of the square around it.

    To avoid aliasing, if the grid is coarser than the picture's pixels, the picture is first shrunk by area averaging
    until a step of the grid is about one pixel. Samples outside the picture are the mean of its outermost ring.
    """
    height, width = picture.shape[:2]
    paper = ring_mean(picture)
    frame = Frame(width, height)
    step = _typical_step(frame.to_pixels(grid))
    if step > 1:
        picture = resize(picture, max(1, round(width / step)), max(1, round(height / step)))
    shrunk_height, shrunk_width = picture.shape[:2]
    x = (grid[..., 0] * frame.scale_x + 1) * (shrunk_width / 2) - 0.5
    y = (grid[..., 1] * frame.scale_y + 1) * (shrunk_height / 2) - 0.5
    return np.asarray(
        cv2.remap(
            picture,
            x.astype(np.float32),
            y.astype(np.float32),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=paper,
        ),
        np.uint8,
    )


def resize(picture: Pixels, width: int, height: int, enlarging: int = cv2.INTER_LINEAR) -> Pixels:
    """Resize a picture: shrink by area averaging, enlarge with `enlarging`, one of OpenCV's interpolations."""
    is_smaller = width * height < picture.shape[0] * picture.shape[1]
    return np.asarray(
        cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if is_smaller else enlarging),
        np.uint8,
    )


def ring_mean(picture: Pixels) -> tuple[float, ...]:
    """Return the mean of the outermost ring of pixels, per channel."""
    channels = picture.reshape(*picture.shape[:2], -1)
    if min(picture.shape[:2]) > 2:
        sides = (channels[0], channels[-1], channels[1:-1, 0], channels[1:-1, -1])
    else:  # all pixels are in the ring
        sides = tuple(channels)
    return tuple(np.concatenate(sides).mean(axis=0).tolist())


def _typical_step(points: Points) -> float:
    """Return the median distance between neighbouring points along the middle row and the middle column."""
    rows, columns = points.shape[:2]
    steps = [np.diff(points[rows // 2], axis=0), np.diff(points[:, columns // 2], axis=0)]
    return float(np.median(np.linalg.norm(np.concatenate(steps), axis=-1)))

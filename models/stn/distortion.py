"""The paper's distortions: each turns clean digits into pictures and returns where the digits' points ended up.

M. Jaderberg, K. Simonyan, A. Zisserman, K. Kavukcuoglu, "Spatial Transformer Networks", 2015,
https://arxiv.org/abs/1506.02025, appendix A.

All but the elastic one are projective, defined by the new positions of the 28x28 digit's four corners.
Pictures are rendered at the frame's own size; `framed` then resizes them to the network's input in the same way
as the service does with uploads. The paper does not say what happens when displaced corners fold the picture
over itself; here such corners are redrawn, and by default so are those that nearly fold it.

Coordinates are normalised as in `transformer`: a digit's over its 28x28 picture, a frame's over the smallest
centred square that contains it, so that a frame that is not square reaches 1 along its longer side only.

Axes: B batch, H W height and width of a frame, S side of the network's input.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from models.stn.transformer import ThinPlateSplineGrid, pixel_centres, projective_equations

DIGIT_SIDE = 28
CORNERS = ((-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0))
"""Top-left, top-right, bottom-right, bottom-left."""
CONTROL = ThinPlateSplineGrid().control
"""Control points of a digit, [16 2], whose new positions every distortion returns."""
DRAWS = 8
"""Number of candidates for a picture's corners; if all of them make it too flat, the first is used."""
MIN_TURN = 0.1
"""Smallest turn at each corner of a picture that is not too flat: twice the area of the triangle at the corner, as a
share of the undistorted square's area. As P is drawn, 3.0 % of the pictures are below it, including the 1.4 % that are
folded, where a turn is negative."""
OUTSIDE = 2.0
"""Coordinate that is outside every picture."""


class Distorted(NamedTuple):
    """Distorted pictures, and where and how the digits appear in them."""

    pictures: Float[Tensor, "B 1 H W"]
    points: Float[Tensor, "B 16 2"]
    """Positions of the digit's control points (those of `ThinPlateSplineGrid`) in the picture."""
    greys: Float[Tensor, "B 2"]
    """Grey levels of paper and ink, in this order, 0..1; they are 0 and 1 in a clean digit."""


Distortion = Callable[[Float[Tensor, "B 1 28 28"], torch.Generator], Distorted]
"""Function that distorts digits in 0..1, white on black; all randomness comes from the generator."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """R: rotation by up to 90 degrees either way."""

    degrees: float = 90.0

    def __call__(self, digits: Float[Tensor, "B 1 28 28"], generator: torch.Generator) -> Distorted:
        """Rotate about the centre."""
        size = len(digits)
        angle = uniform(generator, (size,), -self.degrees, self.degrees)
        corners = similar_corners(angle, torch.ones_like(angle), angle.new_zeros(size, 2))
        return place(digits, corners, DIGIT_SIDE, DIGIT_SIDE)


@dataclass(frozen=True, slots=True)
class RotationScaleTranslation:
    """RTS: rotation by up to 45 degrees either way, scaling by 0.7 to 1.2, any position in a 42x42 frame."""

    degrees: float = 45.0
    scale: tuple[float, float] = (0.7, 1.2)
    side: int = 42

    def __call__(self, digits: Float[Tensor, "B 1 28 28"], generator: torch.Generator) -> Distorted:
        """Rotate, scale and translate; the digit's box, scaled but not rotated, stays within the frame."""
        size = len(digits)
        angle = uniform(generator, (size,), -self.degrees, self.degrees)
        half = uniform(generator, (size,), *self.scale) * DIGIT_SIDE / self.side
        centre = uniform(generator, (size, 2), -1.0, 1.0) * (1 - half).unsqueeze(1)
        return place(digits, similar_corners(angle, half, centre), self.side, self.side)


@dataclass(frozen=True, slots=True)
class Perspective:
    """P: scaling by 0.75 to 1, then a normal displacement of each corner, with a standard deviation of 5 pixels."""

    scale: tuple[float, float] = (0.75, 1.0)
    corner_pixels: float = 5.0
    min_turn: float = MIN_TURN

    def __call__(self, digits: Float[Tensor, "B 1 28 28"], generator: torch.Generator) -> Distorted:
        """Scale, then displace the corners."""
        size = len(digits)
        half = uniform(generator, (size,), *self.scale)
        square = similar_corners(torch.zeros_like(half), half, half.new_zeros(size, 2))
        corners = pulled_corners(square, self.corner_pixels * 2 / DIGIT_SIDE, generator, self.min_turn)
        return place(digits, corners, DIGIT_SIDE, DIGIT_SIDE)


@dataclass(frozen=True, slots=True)
class Elastic:
    """E: a thin-plate spline on a 4x4 grid over the picture.

    Each point of the grid gets a normal displacement with a standard deviation of 1.5 pixels.
    """

    point_pixels: float = 1.5

    def __call__(self, digits: Float[Tensor, "B 1 28 28"], generator: torch.Generator) -> Distorted:
        """Sample the digit through the spline f; control point c ends up at the p with f(p) = c."""
        spline, theta = self._spline(len(digits), generator)
        pictures = _through(spline, theta, digits)

        # The iteration p <- p + (c - f(p)) solves f(p) = c; it is a contraction as long as f is far from folding.
        goal = CONTROL.to(digits.device)
        points = goal.expand(len(digits), -1, -1)
        for _ in range(12):
            points = (points + goal - spline(theta, points)).clamp(-OUTSIDE, OUTSIDE)
        return Distorted(pictures, points, _white_on_black(digits))

    def pictures(self, digits: Float[Tensor, "B 1 28 28"], generator: torch.Generator) -> Float[Tensor, "B 1 28 28"]:
        """Return the pictures only, without the cost of locating the points."""
        return _through(*self._spline(len(digits), generator), digits)

    def _spline(self, size: int, generator: torch.Generator) -> tuple[ThinPlateSplineGrid, Float[Tensor, "B 32"]]:
        spline = ThinPlateSplineGrid(reach=1.0).to(generator.device)
        moved = normal(generator, (size, 32)) * self.point_pixels * 2 / DIGIT_SIDE
        return spline, spline.identity + moved


@dataclass(frozen=True, slots=True)
class Clutter:
    """Translated and cluttered: any position in a 60x60 frame, among 6x6 patches of other digits."""

    side: int = 60
    patches: tuple[int, int] = (6, 16)
    """Smallest and largest number of patches."""
    patch_side: int = 6

    def __call__(self, digits: Float[Tensor, "B 1 28 28"], generator: torch.Generator) -> Distorted:
        """Move by whole pixels and add patches of the batch's other digits; overlapping pixels take their maximum."""
        size, device = len(digits), digits.device
        room = self.side - DIGIT_SIDE
        offset = torch.randint(room + 1, (size, 2), generator=generator, device=device)
        half = torch.full((size,), DIGIT_SIDE / self.side, device=device)
        corners = similar_corners(torch.zeros_like(half), half, (2 * offset - room) / self.side)
        clean = place(digits, corners, self.side, self.side)

        min_count, max_count = self.patches
        count = torch.randint(min_count, max_count + 1, (size, 1, 1), generator=generator, device=device)
        step = torch.randint(1, max(size, 2), (size, max_count, 1), generator=generator, device=device)
        others = (torch.arange(size, device=device).view(-1, 1, 1) + step) % size
        ink = digits.flatten(1)[others, self._pixels(size, max_count, DIGIT_SIDE, generator)]
        ink = ink * (torch.arange(max_count, device=device).view(1, -1, 1) < count)
        where = self._pixels(size, max_count, self.side, generator)
        pictures = clean.pictures.flatten(1).scatter_reduce(1, where.flatten(1), ink.flatten(1), "amax")
        return clean._replace(pictures=pictures.view_as(clean.pictures))

    def _pixels(self, size: int, count: int, side: int, generator: torch.Generator) -> Tensor:
        """Return the flat pixel indices of random patches of a square picture, [size, count, patch_side ** 2]."""
        device = generator.device
        inside = torch.arange(self.patch_side, device=device)
        row, column = torch.randint(side - self.patch_side + 1, (2, size, count, 1), generator=generator, device=device)
        patch = (inside.view(-1, 1) * side + inside).flatten()
        pixels: Tensor = row * side + column + patch
        return pixels


def framed(pictures: Float[Tensor, "B 1 H W"], side: int) -> Float[Tensor, "B 1 S S"]:
    """Return the network's input, 0..1: pictures padded to squares with their outermost ring's mean, then resized."""
    height, width = pictures.shape[-2:]
    rows, columns = pictures[..., [0, -1], :], pictures[..., 1:-1, [0, -1]]
    ring = torch.cat((rows.flatten(1), columns.flatten(1)), 1)
    level = ring.mean(1).view(-1, 1, 1, 1)
    beside, below = max(height - width, 0), max(width - height, 0)
    # Zero padding of the difference from the level pads the picture with the level.
    margins = (beside // 2, beside - beside // 2, below // 2, below - below // 2)
    square = F.pad(pictures - level, margins) + level
    resized = F.interpolate(square, (side, side), mode="bilinear", align_corners=False, antialias=True)
    return resized.clamp(0, 1)


def uniform(generator: torch.Generator, shape: tuple[int, ...], low: float, high: float) -> Tensor:
    """Return uniform numbers from `low` to `high` on the generator's device."""
    return low + (high - low) * torch.rand(shape, generator=generator, device=generator.device)


def normal(generator: torch.Generator, shape: tuple[int, ...]) -> Tensor:
    """Return standard normal numbers on the generator's device."""
    return torch.randn(shape, generator=generator, device=generator.device)


def similar_corners(
    degrees: Float[Tensor, "B"], half: Float[Tensor, "B"], centre: Float[Tensor, "B 2"]
) -> Float[Tensor, "B 4 2"]:
    """Return the corners of a square of half side `half`, rotated about its centre, clockwise on screen."""
    cosine, sine = (degrees * math.pi / 180).cos(), (degrees * math.pi / 180).sin()
    turned = torch.stack((cosine, -sine, sine, cosine), -1).view(-1, 2, 2)
    square = torch.tensor(CORNERS, device=degrees.device) * half.view(-1, 1, 1)
    return square @ turned.mT + centre.unsqueeze(1)


def pulled_corners(
    corners: Float[Tensor, "B 4 2"],
    deviation: float | Float[Tensor, "B 1 1"],
    generator: torch.Generator,
    min_turn: float = MIN_TURN,
) -> Float[Tensor, "B 4 2"]:
    """Return corners with normal displacements, redrawn (up to `DRAWS` candidates) until all turn more than `min_turn`.

    `deviation` is the standard deviation of the displacements, in normalised coordinates; see `MIN_TURN` for turns.
    """
    drawn = corners + deviation * normal(generator, (DRAWS, *corners.shape))
    edges = drawn.roll(-1, -2) - drawn
    following = edges.roll(-1, -2)
    turns = edges[..., 0] * following[..., 1] - edges[..., 1] * following[..., 0]
    untouched = (corners[:, 1] - corners[:, 0]).square().sum(-1)
    is_open = (turns > min_turn * untouched.view(1, -1, 1)).all(-1)
    first = is_open.byte().argmax(0)
    return drawn[first, torch.arange(len(corners), device=corners.device)]


def homography(corners: Float[Tensor, "B 4 2"]) -> Float[Tensor, "B 3 3"]:
    """Return the projective map that takes the digit's corners to `corners`."""
    solution = torch.linalg.solve(*projective_equations(torch.tensor(CORNERS, device=corners.device), corners))
    return F.pad(solution, (0, 1), value=1.0).view(-1, 3, 3)


def place(digits: Float[Tensor, "B 1 28 28"], corners: Float[Tensor, "B 4 2"], height: int, width: int) -> Distorted:
    """Draw digits on black, with their corners at `corners`."""
    matrix = homography(corners)
    longer = max(height, width)
    frame = pixel_centres(height, width).to(digits.device) * torch.tensor(
        (width / longer, height / longer), device=digits.device
    )
    source = _projected(matrix.inverse(), frame)
    points = _projected(matrix, CONTROL.to(digits.device))
    return Distorted(_sample(digits, source, height, width), points, _white_on_black(digits))


def _projected(matrix: Tensor, points: Tensor) -> Tensor:
    """Apply a projective map to points; those behind its horizon become `OUTSIDE`."""
    mapped = F.pad(points, (0, 1), value=1.0) @ matrix.mT
    w = mapped[..., 2:]
    return torch.where(w > 1e-3, mapped[..., :2] / mapped[..., 2:], OUTSIDE)


def _through(spline: ThinPlateSplineGrid, theta: Tensor, digits: Tensor) -> Tensor:
    """Sample digits through a spline."""
    frame = pixel_centres(DIGIT_SIDE, DIGIT_SIDE).to(digits.device)
    return _sample(digits, spline(theta, frame), DIGIT_SIDE, DIGIT_SIDE)


def _sample(digits: Tensor, source: Tensor, height: int, width: int) -> Tensor:
    return F.grid_sample(digits, source.view(-1, height, width, 2), "bilinear", "zeros", align_corners=False)


def _white_on_black(digits: Tensor) -> Tensor:
    return torch.tensor((0.0, 1.0), device=digits.device).expand(len(digits), -1)

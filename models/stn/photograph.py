"""Photographs and scans of digits: pen on paper (or chalk on a board), light, lens and noise.

Not from the paper: it simulates what people upload. A grey value is illumination times reflectance: ink changes
the reflectance, light and shadow the illumination. The blur of the lens and the noise of the sensor come last.

Axes: B batch, H W height and width of the photograph.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from models.stn.distortion import (
    DIGIT_SIDE,
    Distorted,
    normal,
    place,
    pulled_corners,
    similar_corners,
    uniform,
)
from models.stn.transformer import pixel_centres

INK_SIDE = 20
"""Side in pixels of the box that MNIST scales its digits to, within 28."""


@dataclass(frozen=True, slots=True)
class Photograph:
    """Photographs of digits on paper; the defaults are careless ones. Pairs are ranges."""

    shorter_side: tuple[int, int] = (64, 112)
    """Shorter side of the photographs in pixels; one random size per call."""
    aspect: float = 4 / 3
    """Largest ratio of the longer side to the shorter one."""
    fill: tuple[float, float] = (0.25, 0.9)
    """Height of the ink as a share of the shorter side."""
    degrees: float = 30.0
    """Largest rotation, either way."""
    corner: float = 0.08
    """Standard deviation of each corner's displacement, as a share of the digit's side."""
    stroke: tuple[float, float] = (0.2, 0.7)
    """Grey level of the MNIST digit at which the edge of the stroke is put."""
    sharpness: float = 3.0
    """Largest steepness of that edge, relative to MNIST's."""
    light_ink_share: float = 0.25
    """Share of the photographs with light ink on dark paper."""
    contrast: tuple[float, float] = (0.3, 0.95)
    """Difference between the reflectances of ink and paper, as a share of the higher one."""
    light: tuple[float, float] = (0.4, 0.9)
    """Illumination at the centre of the picture; 1 shows white as white."""
    slope: float = 0.3
    """Largest change of the illumination from the centre to an edge, as a share."""
    blotch: float = 0.07
    """Standard deviation of the illumination's smooth unevenness, as a share."""
    blur: float = 1.0
    """Largest weight of a 5x5 box blur, which is mixed with the sharp picture."""
    noise: float = 0.06
    """Largest standard deviation of the pixel noise."""

    def __call__(self, digits: Float[Tensor, "B 1 28 28"], generator: torch.Generator) -> Distorted:
        """Photograph every digit on its own page; all photographs of a call have the same size."""
        size = len(digits)
        height, width = self._frame(generator)
        ink, points, _ = place(digits, self._corners(size, height, width, generator), height, width)
        # A pen's stroke has sharper edges than MNIST's, and is thicker (low level) or thinner.
        level = uniform(generator, (size, 1, 1, 1), *self.stroke)
        ink = level + (ink - level) * uniform(generator, (size, 1, 1, 1), 1.0, self.sharpness)
        ink = ink.clamp(0, 1)
        is_light = uniform(generator, (size, 1, 1, 1), 0.0, 1.0) < self.light_ink_share
        contrast = uniform(generator, (size, 1, 1, 1), *self.contrast)
        illumination = self._illumination(size, height, width, generator)
        picture = illumination * (1 - contrast * torch.where(is_light, 1 - ink, ink))
        lighter = (illumination * ink).sum((2, 3)) / ink.sum((2, 3)).clamp(min=1)  # mean over the ink
        darker = lighter * (1 - contrast.flatten(1))
        greys = torch.where(is_light.flatten(1), torch.cat((darker, lighter), 1), torch.cat((lighter, darker), 1))
        blurred = F.avg_pool2d(F.pad(picture, (2, 2, 2, 2), mode="replicate"), 5, stride=1)
        picture = picture.lerp(blurred, uniform(generator, (size, 1, 1, 1), 0.0, self.blur))
        if self.noise > 0:
            deviation = uniform(generator, (size, 1, 1, 1), 0.0, self.noise)
            picture = picture + deviation * normal(generator, tuple(picture.shape))
        return Distorted(picture.clamp(0, 1), points, greys.clamp(0, 1))

    def _frame(self, generator: torch.Generator) -> tuple[int, int]:
        """Return a random height and width, both even, so that padding to a square keeps the centre."""
        pick, stretch, tall = uniform(generator, (3,), 0.0, 1.0).tolist()
        low, high = self.shorter_side
        shorter = 2 * round((low + (high - low) * pick) / 2)
        longer = 2 * round(shorter * (1 + (self.aspect - 1) * stretch) / 2)
        return (longer, shorter) if tall < 0.5 else (shorter, longer)

    def _corners(self, size: int, height: int, width: int, generator: torch.Generator) -> Float[Tensor, "B 4 2"]:
        longer = max(height, width)
        extent = torch.tensor((width / longer, height / longer), device=generator.device)
        ink_half = uniform(generator, (size, 1), *self.fill) * min(height, width) / longer
        room = (extent - 1.2 * ink_half).clamp(min=0)  # a rotated digit is somewhat wider
        centre = room * uniform(generator, (size, 2), -1.0, 1.0)
        half = (ink_half * DIGIT_SIDE / INK_SIDE).squeeze(1)
        angle = uniform(generator, (size,), -self.degrees, self.degrees)
        corners = similar_corners(angle, half, centre)
        return pulled_corners(corners, self.corner * 2 * half.view(-1, 1, 1), generator)

    def _illumination(self, size: int, height: int, width: int, generator: torch.Generator) -> Float[Tensor, "B 1 H W"]:
        direction = uniform(generator, (size, 2, 1), -1.0, 1.0) * self.slope
        slope = (pixel_centres(height, width).to(generator.device) @ direction).view(size, 1, height, width)
        blotches = F.interpolate(normal(generator, (size, 1, 5, 5)), (height, width), mode="bicubic")
        return uniform(generator, (size, 1, 1, 1), *self.light) * (1 + slope + self.blotch * blotches)


SCAN = Photograph(
    shorter_side=(28, 84),
    fill=(0.3, 1.0),
    degrees=10.0,
    corner=0.0,
    light_ink_share=0.4,
    contrast=(0.5, 1.0),
    light=(0.8, 1.0),
    slope=0.0,
    blotch=0.0,
    blur=0.5,
    noise=0.02,
)
"""Photographs with even light and no perspective, as from a drawing program or a scanner; some have wide margins."""

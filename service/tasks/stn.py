"""Rectification: from a picture of a digit to the upright digit, its class and the transformation."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from export.manifest import Array, Manifest
from service.engine.request import Request
from service.media.framing import Frame, identity_grid, sample, square
from service.media.montage import strip
from service.media.overlay import draw_outline
from service.media.picture import Picture, Pixels, Points
from service.tasks.transform import Floats, Kind, rescaled, source_points

NATIVE_SIDE = 28
"""Side in pixels of the rectified picture that the network itself samples and classifies."""
MIN_STRIP_SIDE = 256
"""Minimum height of a strip in pixels; details are hard to see in a lower one."""
OUTLINE_POINTS_PER_SIDE = 16
"""Number of outline points per side of the output, because a thin-plate spline's outline is curved."""
CORNERS = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
"""Corners of the output, normalised: top left, top right, bottom right, bottom left."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The network's outputs for one picture."""

    picture: Picture
    kind: Kind
    rectified: Pixels
    """Rectified digit, [28 28] uint8, white ink on black."""
    probabilities: Floats
    """Probabilities of the digits 0 to 9, [10] float32."""
    theta: Floats
    """Parameters, [6], [8] or [32] float32, of the map from the output to the square around the picture."""
    tone: Floats
    """Gain and bias, [2] float32: ink = gain x grey + bias, with ink and grey in 0..1."""

    @property
    def label(self) -> int:
        """Most likely class."""
        return int(self.probabilities.argmax())

    @property
    def confidence(self) -> float:
        """Probability of the most likely class."""
        return float(self.probabilities[self.label])

    def theta_in_picture(self) -> Floats:
        """Return theta as the paper defines it: from the output to the uploaded picture, both normalised."""
        frame = self._frame()
        return rescaled(self.kind, self.theta, frame.scale_x, frame.scale_y)

    def corners(self) -> Points:
        """Return the output's corners in pixels of the upload, [4 2], in the order of `CORNERS`."""
        return self._frame().to_pixels(source_points(self.kind, self.theta, CORNERS))

    def sampled(self, side: int) -> Pixels:
        """Return the rectified digit, [side side] uint8; other sides than 28 are sampled from the uploaded picture.

        As in the network, points outside the square around the picture have no ink, whatever the tone.
        """
        if side == NATIVE_SIDE:
            return self.rectified
        gain, bias = self.tone
        points = source_points(self.kind, self.theta, identity_grid(side))
        ink = sample(self.picture.grey, points) * gain + 255 * bias
        ink[(np.abs(points) > 1).any(axis=-1)] = 0
        return np.asarray(np.rint(np.clip(ink, 0, 255)), np.uint8)

    def overlay(self) -> Pixels:
        """Return the upload in colour, [H W 3], with a red outline of the sampled area."""
        along = np.linspace(-1, 1, OUTLINE_POINTS_PER_SIDE, endpoint=False)
        top = np.stack([along, np.full_like(along, -1)], axis=-1)
        right = np.stack([np.ones_like(along), along], axis=-1)
        border = np.concatenate([top, right, -top, -right])
        polygon = self._frame().to_pixels(source_points(self.kind, self.theta, border))
        marked = self.picture.rgb()
        draw_outline(marked, polygon)
        return marked

    def side_by_side(self, side: int) -> Pixels:
        """Return the upload, overlay and rectified digit side by side with the class below, [H W 3].

        The pictures are scaled to a height of `side` pixels, or `MIN_STRIP_SIDE` if that is more.
        """
        caption = f"{self.label} ({self.confidence:.1%})"
        return strip(
            [self.picture.rgb(), self.overlay(), self.sampled(side)], caption, height=max(side, MIN_STRIP_SIDE)
        )

    def _frame(self) -> Frame:
        return Frame(self.picture.width, self.picture.height)


def network_input(picture: Picture, manifest: Manifest) -> Pixels:
    """Return a picture as the network's input, [side side] uint8: grey, framed as a square of the trained size."""
    return square(picture.grey, int(manifest.config["side"]))


def request(squares: Sequence[Pixels], deadline: float) -> Request:
    """Return one request for several pictures.

    Args:
        squares: network inputs, [side side] uint8 each; see `network_input`.
        deadline: on the engine's clock (`time.monotonic`), in seconds.
    """
    rows: Array = squares[0][None] if len(squares) == 1 else np.stack(squares)
    return Request({"picture": rows}, len(squares), 1, deadline)


def readings(pictures: Sequence[Picture], answered: Request, manifest: Manifest) -> list[Reading]:
    """Return the readings of a finished request's pictures, in the same order."""
    kind = Kind(manifest.config["kind"])
    outputs = answered.outputs
    return [
        Reading(
            picture,
            kind,
            outputs["rectified"][row],
            outputs["probabilities"][row],
            outputs["theta"][row],
            outputs["tone"][row],
        )
        for row, picture in enumerate(pictures)
    ]

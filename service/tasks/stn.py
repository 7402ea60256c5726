"""Rectification: a picture of a digit in, the digit upright, its class and the transformation out."""

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
"""Side of the picture that the network itself samples and reads."""
MIN_STRIP_SIDE = 256
"""Height in pixels below which there is little to see of a strip."""
OUTLINE_POINTS_PER_SIDE = 16
"""A thin-plate spline's outline is curved."""
CORNERS = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
"""Corners of the output: top left, top right, bottom right, bottom left."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What was found in one picture."""

    picture: Picture
    kind: Kind
    rectified: Pixels
    """[28 28], white ink on black."""
    probabilities: Floats
    theta: Floats
    """Flat; from targets to sources in the square around the picture."""
    tone: Floats
    """(gain, bias): what turns a grey value 0..1 of the picture into ink."""

    @property
    def label(self) -> int:
        """The likeliest class."""
        return int(self.probabilities.argmax())

    @property
    def confidence(self) -> float:
        """The likeliest class's probability."""
        return float(self.probabilities[self.label])

    def theta_in_picture(self) -> Floats:
        """Theta in the paper's form: from targets to sources, normalised to the picture as it was uploaded."""
        frame = self._frame()
        return rescaled(self.kind, self.theta, frame.scale_x, frame.scale_y)

    def corners(self) -> Points:
        """Where the output's corners lie in the upload, [4 2] in pixels, in the order of `CORNERS`."""
        return self._frame().to_pixels(source_points(self.kind, self.theta, CORNERS))

    def sampled(self, side: int) -> Pixels:
        """The rectified digit, [side side]. Beyond the native side it is sampled from the picture as uploaded.

        As in the network, nothing lies outside the square around the picture, whatever the tone.
        """
        if side == NATIVE_SIDE:
            return self.rectified
        gain, bias = self.tone
        points = source_points(self.kind, self.theta, identity_grid(side))
        ink = sample(self.picture.grey, points) * gain + 255 * bias
        ink[(np.abs(points) > 1).any(axis=-1)] = 0
        return np.asarray(np.rint(np.clip(ink, 0, 255)), np.uint8)

    def overlay(self) -> Pixels:
        """The upload in colour with the outline of what was sampled in red, [H W 3]."""
        along = np.linspace(-1, 1, OUTLINE_POINTS_PER_SIDE, endpoint=False)
        top = np.stack([along, np.full_like(along, -1)], axis=-1)
        right = np.stack([np.ones_like(along), along], axis=-1)
        border = np.concatenate([top, right, -top, -right])
        polygon = self._frame().to_pixels(source_points(self.kind, self.theta, border))
        marked = self.picture.rgb()
        draw_outline(marked, polygon)
        return marked

    def side_by_side(self, side: int) -> Pixels:
        """Upload, overlay and rectified digit in a row, `side` or more pixels high, with the class below, [H W 3]."""
        caption = f"{self.label} ({self.confidence:.1%})"
        return strip(
            [self.picture.rgb(), self.overlay(), self.sampled(side)], caption, height=max(side, MIN_STRIP_SIDE)
        )

    def _frame(self) -> Frame:
        return Frame(self.picture.width, self.picture.height)


def network_input(picture: Picture, manifest: Manifest) -> Pixels:
    """A picture as the network sees it: grey, framed as a square, of the side that it was trained on."""
    return square(picture.grey, int(manifest.config["side"]))


def request(squares: Sequence[Pixels], deadline: float) -> Request:
    """Pictures that belong together, as one request."""
    rows: Array = squares[0][None] if len(squares) == 1 else np.stack(squares)
    return Request({"picture": rows}, len(squares), 1, deadline)


def readings(pictures: Sequence[Picture], answered: Request, manifest: Manifest) -> list[Reading]:
    """What a finished request says of its pictures, in their order."""
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

"""The spatial transformer's sampling grids in NumPy, for any points of the output.

Jaderberg, Simonyan, Zisserman, Kavukcuoglu, "Spatial Transformer Networks", 2015, https://arxiv.org/abs/1506.02025,
section 3.2. Coordinates are normalised (-1 and 1 are a picture's outer edges); theta maps target points (of the output)
to source points (of the input).
"""

from enum import Enum
from functools import cache

import numpy as np
from numpy.typing import NDArray

from service.media.picture import Points

Floats = NDArray[np.floating]

MIN_DENOMINATOR = 0.1
"""Lower bound to which the projective denominator is clamped, as in training."""
CONTROL_REACH = 0.75
"""Outermost coordinate of the thin-plate spline's 4 x 4 control points, as in training."""
BAND_POINTS = 2**15
"""Number of points that a spline maps at a time; each takes about 900 bytes of temporary memory."""


class Kind(Enum):
    """A family of transformations."""

    AFFINE = "affine"
    PROJECTIVE = "projective"
    TPS = "tps"


def source_points(kind: Kind, theta: Floats, target: Points) -> Points:
    """Map target points to source points.

    Args:
        kind: family of the transformation.
        theta: its parameters, flat: [6] for affine, [8] for projective, [32] for thin-plate splines.
        target: [... 2], x before y, normalised.

    Returns:
        Source points in the shape of `target`, float64.
    """
    flat = target.reshape(-1, 2).astype(np.float64)
    if kind is Kind.AFFINE:
        source = _homogeneous(flat) @ theta.reshape(2, 3).T
    elif kind is Kind.PROJECTIVE:
        projected = _homogeneous(flat) @ np.append(theta, 1.0).reshape(3, 3).T
        source = projected[:, :2] / np.maximum(projected[:, 2:], MIN_DENOMINATOR)
    else:
        bands = [flat[begin : begin + BAND_POINTS] for begin in range(0, len(flat), BAND_POINTS)]
        source = np.concatenate([_splined(band, theta) for band in bands])
    return np.asarray(source.reshape(target.shape))


def rescaled(kind: Kind, theta: Floats, scale_x: float, scale_y: float) -> Floats:
    """Return the theta that maps to the same source points as `theta`, with x and y multiplied by their scales."""
    if kind is Kind.TPS:
        return np.asarray(theta * np.tile([scale_x, scale_y], 16))
    rows = np.repeat([scale_x, scale_y], 3)
    return np.asarray(theta * (rows if kind is Kind.AFFINE else np.append(rows, [1.0, 1.0])))


def _splined(target: Points, theta: Floats) -> Points:
    """Map target points [N 2] with a thin-plate spline."""
    control, solution = _spline()
    basis = np.concatenate([_radial(target, control), _homogeneous(target)], axis=1)
    return np.asarray(basis @ (solution @ theta.reshape(16, 2)))


@cache
def _spline() -> tuple[Floats, Floats]:
    """Return the control points [16 2], and the matrix [19 16] that maps their source points to the coefficients."""
    line = np.linspace(-CONTROL_REACH, CONTROL_REACH, 4)
    control = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    P = _homogeneous(control)
    system = np.block([[_radial(control, control), P], [P.T, np.zeros((3, 3))]])
    return control, np.linalg.inv(system)[:, :16]


def _radial(points: Floats, control: Floats) -> Floats:
    """Return U(r) = r^2 log r^2 of the distances between points and control points, with U(0) = 0."""
    squared = ((points[:, None] - control[None]) ** 2).sum(axis=-1)
    return np.asarray(squared * np.log(np.where(squared > 0, squared, 1.0)))


def _homogeneous(points: Floats) -> Floats:
    return np.concatenate([points, np.ones((len(points), 1))], axis=1)

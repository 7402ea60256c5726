"""The spatial transformer's grids in NumPy: what theta says about any point of the output.

Jaderberg, Simonyan, Zisserman, Kavukcuoglu, "Spatial Transformer Networks", 2015, https://arxiv.org/abs/1506.02025,
section 3.2. Coordinates are normalised (-1 and 1 are a picture's outer edges); theta maps targets to sources.
"""

from enum import Enum
from functools import cache

import numpy as np
from numpy.typing import NDArray

from service.media.picture import Points

Floats = NDArray[np.floating]

MIN_DENOMINATOR = 0.1
"""The projective denominator is kept above this, as in training."""
CONTROL_REACH = 0.75
"""Outermost coordinate of the thin-plate spline's 4 x 4 control points, as in training."""
BAND_POINTS = 2**15
"""Points that go through a spline at a time: each needs about 900 bytes on its way."""


class Kind(Enum):
    """The families of transformations."""

    AFFINE = "affine"
    PROJECTIVE = "projective"
    TPS = "tps"


def source_points(kind: Kind, theta: Floats, target: Points) -> Points:
    """Where in the source the target points [... 2] are to be sampled; theta is flat (6, 8 or 32 numbers)."""
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
    """The theta whose source points are those of `theta`, each coordinate multiplied by its scale."""
    if kind is Kind.TPS:
        return np.asarray(theta * np.tile([scale_x, scale_y], 16))
    rows = np.repeat([scale_x, scale_y], 3)
    return np.asarray(theta * (rows if kind is Kind.AFFINE else np.append(rows, [1.0, 1.0])))


def _splined(target: Points, theta: Floats) -> Points:
    """Target points [N 2] through a thin-plate spline."""
    control, solution = _spline()
    basis = np.concatenate([_radial(target, control), _homogeneous(target)], axis=1)
    return np.asarray(basis @ (solution @ theta.reshape(16, 2)))


@cache
def _spline() -> tuple[Floats, Floats]:
    """Control points [16 2], and what turns their sources into the spline's 19 coefficients."""
    line = np.linspace(-CONTROL_REACH, CONTROL_REACH, 4)
    control = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    P = _homogeneous(control)
    system = np.block([[_radial(control, control), P], [P.T, np.zeros((3, 3))]])
    return control, np.linalg.inv(system)[:, :16]


def _radial(points: Floats, control: Floats) -> Floats:
    """U(r) = r^2 log r^2, zero at zero."""
    squared = ((points[:, None] - control[None]) ** 2).sum(axis=-1)
    return np.asarray(squared * np.log(np.where(squared > 0, squared, 1.0)))


def _homogeneous(points: Floats) -> Floats:
    return np.concatenate([points, np.ones((len(points), 1))], axis=1)

"""The grids in NumPy equal those of training, and can be rescaled from the square to the picture."""

import tracemalloc

import numpy as np
import pytest
import torch

from models.stn.transformer import grid_generator
from service.tasks.transform import BAND_POINTS, Kind, rescaled, source_points

KINDS = list(Kind)


def theta_of(kind: Kind, seed: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Return a random transformation near the identity."""
    identity = grid_generator(kind.value).identity.numpy()
    return (identity + np.random.default_rng(seed).normal(0, 0.2, len(identity))).astype(np.float32)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", KINDS)
def test_source_points_are_those_of_the_training_grid(kind: Kind, seed: int) -> None:
    """They agree for any theta and any target, inside the picture, on its edge and outside."""
    theta = theta_of(kind, seed)
    target = np.random.default_rng(seed + 10).uniform(-2, 2, (50, 2))

    found = source_points(kind, theta, target)

    grid = grid_generator(kind.value)
    expected = grid(torch.from_numpy(theta)[None], torch.from_numpy(target).float())[0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-3, rtol=1e-3)


def test_points_beyond_the_horizon_are_those_of_the_training_grid() -> None:
    """The denominator, here from 2.8 down to -0.8, is clamped from below."""
    theta = grid_generator("projective").identity.numpy().copy()
    theta[6] = 0.9
    target = np.stack([np.linspace(-2, 2, 21), np.linspace(-1, 1, 21)], axis=-1)

    found = source_points(Kind.PROJECTIVE, theta, target)

    expected = grid_generator("projective")(torch.from_numpy(theta)[None], torch.from_numpy(target).float())[0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)
    assert found[0] == pytest.approx([-20.0, -10.0])


@pytest.mark.parametrize("kind", KINDS)
def test_identity_leaves_points_where_they_are(kind: Kind) -> None:
    """Also between and beyond the control points of a spline."""
    target = np.random.default_rng(1).uniform(-1.5, 1.5, (4, 5, 2))

    found = source_points(kind, grid_generator(kind.value).identity.numpy(), target)

    assert found.shape == (4, 5, 2)
    np.testing.assert_allclose(found, target, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_rescaled_theta_scales_the_source_points(kind: Kind) -> None:
    """Each coordinate is multiplied by its own scale, at every target point."""
    theta = theta_of(kind, 7)
    target = np.random.default_rng(2).uniform(-1, 1, (20, 2))

    found = source_points(kind, rescaled(kind, theta, 1.0, 2.5), target)

    np.testing.assert_allclose(found, source_points(kind, theta, target) * (1.0, 2.5), atol=1e-9)


def test_spline_of_many_points_is_that_of_each_in_bounded_memory() -> None:
    """Peak memory is four float64 per point, plus one band."""
    theta = theta_of(Kind.TPS, 3)
    target = np.random.default_rng(4).uniform(-1, 1, (8 * BAND_POINTS + 1, 2))

    tracemalloc.start()
    found = source_points(Kind.TPS, theta, target)
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert most_bytes < 900 * BAND_POINTS + 8 * found.nbytes
    some = [0, BAND_POINTS - 1, BAND_POINTS, len(target) - 1]
    np.testing.assert_allclose(found[some], source_points(Kind.TPS, theta, target[some]), atol=1e-12)

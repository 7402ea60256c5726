"""Grid generators and sampler: their algebra, a naive loop, the lecture's gradients."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from models.stn.transformer import (
    AffineGrid,
    Kind,
    ProjectiveGrid,
    SpatialTransformer,
    ThinPlateSplineGrid,
    Warp,
    control_points,
    grid_generator,
    identity_head,
    pixel_centres,
)

KINDS: tuple[Kind, ...] = ("affine", "projective", "tps")
TOLERANCE = 1e-5


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def naive_sample(U: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """V_i = sum_n sum_m U_nm max(0, 1 - |x_i - m|) max(0, 1 - |y_i - n|), x and y in pixels."""
    V = np.zeros(len(x))
    for i in range(len(x)):
        for n in range(U.shape[0]):
            for m in range(U.shape[1]):
                V[i] += U[n, m] * max(0, 1 - abs(x[i] - m)) * max(0, 1 - abs(y[i] - n))
    return V


def test_pixel_centres_lie_half_a_pixel_inside_the_edges() -> None:
    """Four columns have their centres at odd eighths of the width, and x comes before y."""
    centres = pixel_centres(height=2, width=4).view(2, 4, 2)

    assert centres[0, :, 0].tolist() == [-0.75, -0.25, 0.25, 0.75]
    assert centres[:, 0, 1].tolist() == [-0.5, 0.5]


@pytest.mark.parametrize("kind", KINDS)
def test_identity_theta_leaves_points_where_they_are(kind: Kind) -> None:
    """Every family's identity maps target points to themselves."""
    grid = grid_generator(kind)
    target = pixel_centres(5, 7)

    source = grid(grid.identity.expand(3, -1), target)

    torch.testing.assert_close(source, target.expand(3, -1, -1), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_identity_warp_returns_the_picture(kind: Kind) -> None:
    """The last row and column survive: the identity samples every pixel at its centre."""
    grid = grid_generator(kind)
    U = noise(0, 2, 3, 6, 9)

    V = Warp(grid, 6, 9)(U, grid.identity.expand(2, -1))

    torch.testing.assert_close(V, U, atol=1e-4, rtol=0)


def test_affine_theta_maps_target_to_source_with_x_right_and_y_down() -> None:
    """A shift of the source by one pixel to the right shows each pixel's right neighbour."""
    U = torch.arange(20.0).view(1, 1, 4, 5)
    theta = torch.tensor([[1.0, 0.0, 2 / 5, 0.0, 1.0, 0.0]])

    V = Warp(AffineGrid(), 4, 5)(U, theta)

    torch.testing.assert_close(V[..., :-1], U[..., 1:], atol=TOLERANCE, rtol=1e-5)
    assert V[..., -1].abs().max() < TOLERANCE


def test_quarter_turn_is_exact() -> None:
    """The matrix [[0, -1, 0], [1, 0, 0]] turns a square picture by a quarter, pixel for pixel."""
    U = noise(1, 1, 2, 8, 8)

    V = Warp(AffineGrid(), 8, 8)(U, torch.tensor([[0.0, -1.0, 0.0, 1.0, 0.0, 0.0]]))

    torch.testing.assert_close(V, torch.rot90(U, -1, (3, 2)), atol=TOLERANCE, rtol=1e-5)


def test_theta_means_the_same_at_every_resolution() -> None:
    """Each source point of a grid is the mean of the four of the grid that is twice as fine."""
    theta = torch.tensor([[0.5, 0.2, -0.1, 0.3, 0.9, 0.4]])

    coarse = AffineGrid()(theta, pixel_centres(4, 6)).view(4, 6, 2)
    fine = AffineGrid()(theta, pixel_centres(8, 12)).view(4, 2, 6, 2, 2)

    torch.testing.assert_close(fine.mean((1, 3)), coarse, atol=TOLERANCE, rtol=0)


def test_projective_grid_without_perspective_is_affine() -> None:
    """With a last row of (0, 0, 1) the denominator is 1."""
    theta = noise(2, 4, 6)

    projective = ProjectiveGrid()(torch.cat((theta, torch.zeros(4, 2)), 1), pixel_centres(3, 3))

    torch.testing.assert_close(projective, AffineGrid()(theta, pixel_centres(3, 3)))


def test_projective_grid_stays_finite_at_the_horizon() -> None:
    """A denominator that would vanish within the picture is held away from zero."""
    theta = torch.tensor([[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, -4.0, 0.0]])

    source = ProjectiveGrid()(theta, torch.tensor([[0.25, 0.5], [1.0, 1.0]]))

    assert source.isfinite().all()


def test_spline_takes_control_points_to_the_named_sources() -> None:
    """Interpolation: f(c_k) = theta_k."""
    theta = noise(3, 5, 32)

    source = ThinPlateSplineGrid(0.75)(theta, control_points(0.75))

    torch.testing.assert_close(source, theta.view(5, 16, 2), atol=1e-4, rtol=0)


def test_spline_of_affinely_moved_points_is_affine() -> None:
    """The smoothest warp through the values of an affine map is that map."""
    affine = noise(4, 2, 6)
    moved = AffineGrid()(affine, control_points(0.75))

    source = ThinPlateSplineGrid(0.75)(moved.flatten(1), pixel_centres(9, 9))

    torch.testing.assert_close(source, AffineGrid()(affine, pixel_centres(9, 9)), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_targets_of_their_own_equal_shared_targets(kind: Kind) -> None:
    """Repeating the target points for each member of the batch changes nothing."""
    grid = grid_generator(kind)
    theta = grid.identity + 0.1 * noise(5, 3, len(grid.identity))
    target = pixel_centres(4, 4)

    torch.testing.assert_close(grid(theta, target.expand(3, -1, -1)), grid(theta, target))


@pytest.mark.parametrize("kind", KINDS)
def test_every_family_is_closed_under_an_affine_map_on_the_outside(kind: Kind) -> None:
    """`within` names the theta of the composed map, and an identity on either side changes nothing."""
    grid, outer = grid_generator(kind), AffineGrid()
    affine = outer.identity + 0.2 * noise(6, 3, 6)
    theta = grid.identity + 0.05 * noise(7, 3, len(grid.identity))
    target = pixel_centres(5, 4)

    composed = grid(grid.within(affine, theta), target)

    torch.testing.assert_close(composed, outer(affine, grid(theta, target)), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(grid.within(outer.identity.expand(3, -1), theta), theta)
    unmoved = grid(grid.within(affine, grid.identity.expand(3, -1)), target)
    torch.testing.assert_close(unmoved, outer(affine, target), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_fit_to_what_theta_maps_is_theta(kind: Kind) -> None:
    """What the family can do, the fit finds."""
    grid, target = grid_generator(kind), pixel_centres(6, 5)
    theta = grid.identity + 0.05 * noise(8, 3, len(grid.identity))

    torch.testing.assert_close(grid.fitted(target, grid(theta, target)), theta, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["affine", "tps"])
def test_fit_is_closest(kind: Kind) -> None:
    """What the family cannot do is approached: the distances' squares have no gradient there."""
    grid, target = grid_generator(kind), pixel_centres(6, 5)
    source = target + 0.1 * noise(9, 3, 30, 2)
    theta = grid.fitted(target, source).requires_grad_()

    (grid(theta, target) - source).square().sum().backward()

    assert theta.grad is not None
    torch.testing.assert_close(theta.grad, torch.zeros_like(theta), atol=1e-3, rtol=0)


@settings(max_examples=10)
@given(seed=st.integers(0, 2**32), height=st.integers(1, 6), width=st.integers(1, 6))
def test_sampler_equals_the_double_sum(seed: int, height: int, width: int) -> None:
    """The sampler is equation 5, outside the picture too."""
    U = noise(seed, 1, 1, height, width).double()
    theta = noise(seed + 1, 1, 6).double()
    warp = Warp(AffineGrid(), 3, 4).double()

    V = warp(U, theta)

    source = warp.grid(theta, warp.target)[0].numpy()
    x, y = ((source + 1) * (width, height) - 1).T / 2
    np.testing.assert_allclose(V.flatten().numpy(), naive_sample(U[0, 0].numpy(), x, y), atol=1e-9)


def test_nothing_lies_outside_the_picture() -> None:
    """A window wholly to the right of the picture shows zeros."""
    beyond = torch.tensor([[1.0, 0.0, 3.0, 0.0, 1.0, 0.0]])

    assert not Warp(AffineGrid(), 4, 4)(noise(6, 1, 1, 4, 4), beyond).any()


def test_sampler_gradients_equal_the_lecture() -> None:
    """dV/dU is the pair of hats, dV/dx a difference of neighbours weighted by the hat in y."""
    H, W = 3, 4
    U = noise(7, 1, 1, H, W).double().requires_grad_()
    point = torch.tensor([[[[0.13, -0.22]]]], dtype=torch.float64, requires_grad=True)

    torch.nn.functional.grid_sample(U, point, align_corners=False).sum().backward()  # type: ignore[no-untyped-call]

    x, y = ((point.detach()[0, 0, 0].numpy() + 1) * (W, H) - 1) / 2
    picture, by_pixel, by_x = U.detach()[0, 0].numpy(), np.zeros((H, W)), 0.0
    for n in range(H):
        for m in range(W):
            hat_x, hat_y = max(0, 1 - abs(x - m)), max(0, 1 - abs(y - n))
            by_pixel[n, m] = hat_x * hat_y
            slope = 0 if abs(m - x) >= 1 else 1 if m >= x else -1
            by_x += picture[n, m] * hat_y * slope
    assert U.grad is not None
    assert point.grad is not None
    np.testing.assert_allclose(U.grad[0, 0].numpy(), by_pixel, atol=1e-12)
    # A pixel is 2 / W wide in normalised coordinates.
    assert float(point.grad[0, 0, 0, 0]) == pytest.approx(by_x * W / 2)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_picture_and_theta(kind: Kind) -> None:
    """Finite differences agree with the gradients of the whole transformer."""
    grid = grid_generator(kind)
    warp = Warp(grid, 3, 3).double()
    U = noise(8, 1, 2, 5, 5).double().requires_grad_()
    theta = (grid.identity + 0.05 * noise(9, 1, len(grid.identity))).double().requires_grad_()

    assert torch.autograd.gradcheck(warp, (U, theta), eps=1e-7, atol=1e-4)


def test_new_spatial_transformer_is_the_identity_and_can_learn() -> None:
    """Zero weights and the identity's bias start a layer that changes nothing and has a gradient."""
    grid = AffineGrid()
    localisation = nn.Sequential(nn.Flatten(), identity_head(4 * 6 * 6, grid.identity))
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), SpatialTransformer(localisation, Warp(grid, 6, 6)), nn.Conv2d(4, 1, 3)
    )
    picture = noise(10, 2, 1, 6, 6)

    network(picture).square().sum().backward()

    torch.testing.assert_close(network[1](network[0](picture)), network[0](picture), atol=TOLERANCE, rtol=0)
    head = localisation[1]
    assert isinstance(head, nn.Linear)
    assert head.weight.grad is not None
    assert math.isfinite(head.weight.grad.norm())
    assert head.weight.grad.norm() > 0

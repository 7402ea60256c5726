"""The spatial transformer: localisation network, grid generator and sampler, differentiable throughout.

M. Jaderberg, K. Simonyan, A. Zisserman, K. Kavukcuoglu, "Spatial Transformer Networks", 2015,
https://arxiv.org/abs/1506.02025, section 3.

Convention: coordinates are normalised and point right and down; -1 and 1 are the outer *edges* of a picture
(`align_corners=False`), so that theta means the same at every resolution. The paper leaves open whether they
are edges or centres of the outermost pixels. theta maps target (output) to source (input) coordinates.

Axes: B batch, C channels, H W height and width of the input, h w of the output, N target points,
P parameters.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

Kind = Literal["affine", "projective", "tps"]

MIN_DENOMINATOR = 0.1
"""Smallest projective denominator: at 0, a target point would be on the horizon and its source point at infinity."""


def pixel_centres(height: int, width: int) -> Float[Tensor, "N 2"]:
    """Return the normalised (x, y) of all pixel centres, row by row; N = height * width."""
    x = (2 * torch.arange(width) + 1) / width - 1
    y = (2 * torch.arange(height) + 1) / height - 1
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    return torch.stack((columns, rows), -1).reshape(-1, 2)


def control_points(reach: float) -> Float[Tensor, "16 2"]:
    """Return a 4x4 grid of (x, y), row by row, that spans -reach..reach."""
    line = torch.linspace(-reach, reach, 4)
    rows, columns = torch.meshgrid(line, line, indexing="ij")
    return torch.stack((columns, rows), -1).reshape(-1, 2)


class GridGenerator(nn.Module):
    """T_theta of section 3.2: where in the source each target point is to be sampled."""

    identity: Tensor
    """Identity theta [P], which leaves every point where it is."""

    def forward(self, theta: Float[Tensor, "B P"], target: Float[Tensor, "*any N 2"]) -> Float[Tensor, "B N 2"]:
        """Return the source points of target points, which are [N 2] for the whole batch or [B N 2]."""
        raise NotImplementedError

    def within(self, affine: Float[Tensor, "B 6"], theta: Float[Tensor, "B P"]) -> Float[Tensor, "B P"]:
        """Return the theta that applies `theta` and then `affine`; every family is closed under this."""
        raise NotImplementedError

    def fitted(self, target: Float[Tensor, "N 2"], source: Float[Tensor, "B N 2"]) -> Float[Tensor, "B P"]:
        """Return the theta that maps the target points to the source points, or close to them, by least squares."""
        raise NotImplementedError


class AffineGrid(GridGenerator):
    """(x_s, y_s) = [[t11, t12, t13], [t21, t22, t23]] (x_t, y_t, 1): equation 1."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("identity", torch.eye(2, 3).flatten(), persistent=False)

    def forward(self, theta: Float[Tensor, "B 6"], target: Float[Tensor, "*any N 2"]) -> Float[Tensor, "B N 2"]:
        """Apply equation 1."""
        return _homogeneous(target) @ theta.view(-1, 2, 3).transpose(1, 2)

    def within(self, affine: Float[Tensor, "B 6"], theta: Float[Tensor, "B 6"]) -> Float[Tensor, "B 6"]:
        """Multiply the two matrices, each completed by the row (0, 0, 1)."""
        linear, shift = affine.view(-1, 2, 3).split_with_sizes((2, 1), 2)
        return (linear @ theta.view(-1, 2, 3) + F.pad(shift, (2, 0))).flatten(1)

    def fitted(self, target: Float[Tensor, "N 2"], source: Float[Tensor, "B N 2"]) -> Float[Tensor, "B 6"]:
        """Solve equation 1 for all N points."""
        return _least_squares(_homogeneous(target).expand(len(source), -1, -1), source).mT.flatten(1)


class ProjectiveGrid(GridGenerator):
    """(x, y, w) = [[t11, t12, t13], [t21, t22, t23], [t31, t32, 1]] (x_t, y_t, 1), source (x, y) / w."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("identity", torch.eye(3).flatten()[:8], persistent=False)

    def forward(self, theta: Float[Tensor, "B 8"], target: Float[Tensor, "*any N 2"]) -> Float[Tensor, "B N 2"]:
        """Apply the projection."""
        points = _homogeneous(target) @ F.pad(theta, (0, 1), value=1.0).view(-1, 3, 3).transpose(1, 2)
        return points[..., :2] / points[..., 2:].clamp(min=MIN_DENOMINATOR)

    def within(self, affine: Float[Tensor, "B 6"], theta: Float[Tensor, "B 8"]) -> Float[Tensor, "B 8"]:
        """Multiply the two matrices; an affine map applied last leaves the denominator unchanged."""
        matrix = F.pad(theta, (0, 1), value=1.0).view(-1, 3, 3)
        return torch.cat(((affine.view(-1, 2, 3) @ matrix).flatten(1), theta[:, 6:]), 1)

    def fitted(self, target: Float[Tensor, "N 2"], source: Float[Tensor, "B N 2"]) -> Float[Tensor, "B 8"]:
        """Solve `projective_equations`: minimise the squared distances, each multiplied by its w."""
        system, values = projective_equations(target, source)
        return _least_squares(system, values.unsqueeze(2)).flatten(1)


class ThinPlateSplineGrid(GridGenerator):
    """The smoothest warp that maps 16 control points to the source points in theta, a list of (x, y).

    f(p) = a_0 + a_x x + a_y y + sum_k w_k U(|p - c_k|), U(r) = r^2 log r^2 (Bookstein, 1989). The
    coefficients (w, a) solve a linear system [[K, P], [P^T, 0]] (w, a) = (theta, 0) whose matrix does not
    depend on theta, so that its inverse is computed only once.
    """

    def __init__(self, reach: float = 0.75) -> None:
        """`reach`: outermost coordinate of the control points; MNIST's ink is within 20/28 = 0.71."""
        super().__init__()
        c = control_points(reach)
        P = _homogeneous(c).double()
        K = _radial(c.double(), c.double())
        system = torch.cat((torch.cat((K, P), 1), F.pad(P.mT, (0, 3))))
        self.register_buffer("control", c, persistent=False)
        self.register_buffer("solution", system.inverse()[:, : len(c)].float(), persistent=False)
        self.register_buffer("identity", c.flatten(), persistent=False)

    control: Tensor
    solution: Tensor

    def forward(self, theta: Float[Tensor, "B 32"], target: Float[Tensor, "*any N 2"]) -> Float[Tensor, "B N 2"]:
        """Evaluate f: a matrix that does not depend on theta, times the source points in theta."""
        return self._basis(target) @ theta.view(-1, 16, 2)

    def within(self, affine: Float[Tensor, "B 6"], theta: Float[Tensor, "B 32"]) -> Float[Tensor, "B 32"]:
        """Move the source points in theta: f is linear in them, and reproduces affine maps."""
        return (_homogeneous(theta.view(-1, 16, 2)) @ affine.view(-1, 2, 3).transpose(1, 2)).flatten(1)

    def fitted(self, target: Float[Tensor, "N 2"], source: Float[Tensor, "B N 2"]) -> Float[Tensor, "B 32"]:
        """Solve for the source points; the fit is exact if the target points are the control points."""
        return _least_squares(self._basis(target).expand(len(source), -1, -1), source).flatten(1)

    def _basis(self, target: Float[Tensor, "*any N 2"]) -> Float[Tensor, "*any N 16"]:
        """Return the weight of each source point in theta at each target point."""
        return torch.cat((_radial(target, self.control), _homogeneous(target)), -1) @ self.solution


def grid_generator(kind: Kind) -> GridGenerator:
    """Return the grid generator of a family."""
    return {"affine": AffineGrid, "projective": ProjectiveGrid, "tps": ThinPlateSplineGrid}[kind]()


def projective_equations(
    target: Float[Tensor, "N 2"], source: Float[Tensor, "B N 2"]
) -> tuple[Float[Tensor, "B 2*N 8"], Float[Tensor, "B 2*N"]]:
    """Return a linear system for a projective theta: t11 u + t12 v + t13 = x (t31 u + t32 v + 1), and the same for y.

    Each point (u, v) -> (x, y) gives two equations; those for x come first. The matrix and the right-hand side are
    returned.
    """
    u, v = target.expand_as(source).unbind(-1)
    x, y = source.unbind(-1)
    one, zero = torch.ones_like(u), torch.zeros_like(u)
    rows_x = torch.stack((u, v, one, zero, zero, zero, -u * x, -v * x), -1)
    rows_y = torch.stack((zero, zero, zero, u, v, one, -u * y, -v * y), -1)
    return torch.cat((rows_x, rows_y), 1), torch.cat((x, y), 1)


class Warp(nn.Module):
    """Grid generator and sampler: resamples a picture through theta.

    V_i = sum_n sum_m U_nm max(0, 1 - |x_i - m|) max(0, 1 - |y_i - n|), equation 5, with the source point
    (x_i, y_i) in pixels, counted from the centre of the first one. Outside U everything is 0.
    """

    target: Tensor

    def __init__(self, grid: GridGenerator, height: int, width: int, reach: float = 1.0) -> None:
        """`reach`: target coordinate of the outer edges of V; above 1, V also shows what surrounds the target."""
        super().__init__()
        self.grid = grid
        self.size = (height, width)
        self.register_buffer("target", reach * pixel_centres(height, width), persistent=False)

    def forward(self, U: Float[Tensor, "B C H W"], theta: Float[Tensor, "B P"]) -> Float[Tensor, "B C h w"]:
        """Sample U at the source points of the pixels of V."""
        source = self.grid(theta, self.target).view(-1, *self.size, 2)
        return F.grid_sample(U, source, "bilinear", "zeros", align_corners=False)


class SpatialTransformer(nn.Module):
    """A layer for any CNN: U -> theta = f_loc(U) -> V.

    `localisation` maps U to theta, [B C H W] -> [B P]; its last layer should be an `identity_head`.
    """

    def __init__(self, localisation: nn.Module, warp: Warp) -> None:
        super().__init__()
        self.localisation = localisation
        self.warp = warp

    def forward(self, U: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C h w"]:
        """Transform the feature maps of each sample by the theta predicted from them."""
        V: Tensor = self.warp(U, self.localisation(U))
        return V


def identity_head(features: int, identity: Float[Tensor, "P"]) -> nn.Linear:
    """Return the last layer of a localisation network, with zero weights and the identity as bias."""
    head = nn.Linear(features, len(identity))
    nn.init.zeros_(head.weight)
    head.bias.data.copy_(identity)
    return head


def _least_squares(system: Tensor, values: Tensor) -> Tensor:
    solution: Tensor = torch.linalg.lstsq(system, values).solution
    return solution


def _homogeneous(points: Tensor) -> Tensor:
    return F.pad(points, (0, 1), value=1.0)


def _radial(points: Tensor, control: Tensor) -> Tensor:
    """Return U(|p - c|) for all pairs; 0 where the points coincide."""
    squared = (points.unsqueeze(-2) - control).square().sum(-1)
    return squared * squared.clamp(min=math.exp(-60)).log()

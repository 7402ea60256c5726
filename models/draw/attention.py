"""Selective attention by Gaussian filters: section 3.2 of DRAW.

DRAW: A Recurrent Neural Network For Image Generation. Gregor, Danihelka, Graves, Rezende, Wierstra. ICML 2015,
https://arxiv.org/abs/1502.04623.

An N x N grid of Gaussian filters is placed on a picture of A x A pixels. Its centre, its stride and the width of the
filters decide where the picture is read or written, and at which resolution.

Convention: pixel centres lie at 1..A, filters are counted from 1 to N, both as in the paper; x runs to the right and
picks columns, y runs down and picks rows.

Axis letters: B batch, C channels, A side of the picture in pixels, N side of the window in filters.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

WINDOW_PARAMETERS = 5


class Window(NamedTuple):
    """Position, size and intensity of a window; lengths are in pixels."""

    g_x: Float[Tensor, " B"]
    """Column of the centre, 1..A inside the picture."""
    g_y: Float[Tensor, " B"]
    """Row of the centre, 1..A inside the picture."""
    delta: Float[Tensor, " B"]
    """Stride between neighbouring filters, > 0."""
    sigma: Float[Tensor, " B"]
    """Standard deviation of the filters, > 0."""
    gamma: Float[Tensor, " B"]
    """Intensity, > 0."""


def window(parameters: Float[Tensor, "B 5"], side: int, filters: int) -> Window:
    """Equations 21 to 24: convert a linear layer's (g~_X, g~_Y, log sigma^2, log delta~, log gamma) to a window.

    All zeros give a window that spans the whole picture, with sigma = 1 pixel and gamma = 1.
    """
    g_x, g_y, log_variance, log_delta, log_gamma = parameters.unbind(-1)
    return Window(
        g_x=(side + 1) / 2 * (g_x + 1),
        g_y=(side + 1) / 2 * (g_y + 1),
        delta=(side - 1) / (filters - 1) * torch.exp(log_delta),
        sigma=torch.exp(log_variance / 2),
        gamma=torch.exp(log_gamma),
    )


def filterbank(
    g: Float[Tensor, " B"], delta: Float[Tensor, " B"], sigma: Float[Tensor, " B"], side: int, filters: int
) -> Float[Tensor, "B N A"]:
    """Equations 19, 20, 25 and 26: return the filters of one axis, each a distribution over its pixels.

    F[i, a] = exp(-(a - mu_i)^2 / (2 sigma^2)) / Z with mu_i = g + (i - N/2 - 1/2) delta. The normalisation Z over the
    pixels makes this a softmax, which stays finite however far outside the picture a filter lies.
    """
    i = torch.arange(1, filters + 1, device=g.device, dtype=g.dtype)
    a = torch.arange(1, side + 1, device=g.device, dtype=g.dtype)
    mu = g[:, None] + (i - filters / 2 - 0.5) * delta[:, None]
    scaled = (a - mu[:, :, None]) / sigma[:, None, None]
    return torch.softmax(scaled.square() * -0.5, dim=-1)


def filterbanks(where: Window, side: int, filters: int) -> tuple[Float[Tensor, "B N A"], Float[Tensor, "B N A"]]:
    """Return the filterbanks F_Y and F_X of a window, in this order; both axes are computed at once."""
    g = torch.cat([where.g_y, where.g_x])
    both = filterbank(g, where.delta.repeat(2), where.sigma.repeat(2), side, filters)
    F_Y, F_X = both.chunk(2)
    return F_Y, F_X


def read(picture: Float[Tensor, "B C A A"], where: Window, filters: int) -> Float[Tensor, "B C N N"]:
    """Equation 27: return gamma F_Y x F_X^T for every channel x of the picture."""
    B, C, A, _ = picture.shape
    F_Y, F_X = filterbanks(where, A, filters)
    columns = torch.bmm(picture.reshape(B, C * A, A), F_X.transpose(1, 2)).view(B, C, A, filters)
    return where.gamma[:, None, None, None] * torch.matmul(F_Y[:, None], columns)


def write(patch: Float[Tensor, "B N N"], where: Window, side: int) -> Float[Tensor, "B A A"]:
    """Equation 29: return F_Y^T w F_X / gamma, the patch w written to a picture of `side` x `side` pixels."""
    F_Y, F_X = filterbanks(where, side, patch.shape[-1])
    scaled = patch / where.gamma[:, None, None]
    return torch.bmm(F_Y.transpose(1, 2), torch.bmm(scaled, F_X))

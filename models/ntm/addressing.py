"""Addressing: where the heads of a neural Turing machine look.

Section 3.3 of Graves, Wayne, Danihelka, "Neural Turing Machines" (2014), https://arxiv.org/abs/1410.5401.

    content          k, beta, memory -> w_c
    interpolation    g, w_c, w_prev  -> w_g
    shift            s, w_g          -> w_tilde
    sharpening       gamma, w_tilde  -> w

All heads are addressed together, along the axis H.
Axes: B batch, H heads, N memory slots, M slot width, S shifts.

Departures from the paper:

- Sharpening is a softmax of `gamma log w`: powers of small weights underflow, and so do their gradients.
- The cosine's denominator carries a small constant, since a slot may be all zeros.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

SHIFTS = (-1, 0, 1)
"""The shifts that a head can make, in the order of `Focus.s`."""
COSINE_EPSILON = 1e-8
"""Constant far below the norm of a fresh slot (4.5e-6), so that it does not damp the cosine there."""
LOGARITHM_EPSILON = 1e-12


class Focus(NamedTuple):
    """Addressing parameters of all heads, emitted by the controller."""

    k: Float[Tensor, "B H M"]
    """Key: the content to look for."""
    beta: Float[Tensor, "B H 1"]
    """Key strength, positive: how much the best matches are favoured."""
    g: Float[Tensor, "B H 1"]
    """Interpolation gate in (0, 1): 1 takes the content weighting, 0 the previous step's weighting."""
    s: Float[Tensor, "B H S"]
    """Shift weighting, the share of each shift in `SHIFTS`; sums to one."""
    gamma: Float[Tensor, "B H 1"]
    """Sharpening, at least 1."""


def address(focus: Focus, memory: Float[Tensor, "B M N"], w_prev: Float[Tensor, "B H N"]) -> Float[Tensor, "B H N"]:
    """Return the weightings of all heads, after content, interpolation, shift and sharpening (figure 2)."""
    w_c = content(focus.k, focus.beta, memory)
    w_g = interpolate(w_c, w_prev, focus.g)
    return sharpen(shift(w_g, focus.s), focus.gamma)


def content(
    k: Float[Tensor, "B H M"], beta: Float[Tensor, "B H 1"], memory: Float[Tensor, "B M N"]
) -> Float[Tensor, "B H N"]:
    """Weight by similarity to the key: w_c(i) = exp(beta cos(k, M(i))) / sum_j exp(beta cos(k, M(j))) (eq. 5, 6)."""
    k_norm = torch.linalg.vector_norm(k, dim=2, keepdim=True)
    memory_norm = torch.sqrt(memory.square().sum(1, keepdim=True) + COSINE_EPSILON**2)
    cosine = k @ memory / (k_norm * memory_norm + COSINE_EPSILON)
    return torch.softmax(beta * cosine, dim=2)


def interpolate(
    w_c: Float[Tensor, "B H N"], w_prev: Float[Tensor, "B H N"], g: Float[Tensor, "B H 1"]
) -> Float[Tensor, "B H N"]:
    """Mix the content weighting and the previous weighting: w_g = g w_c + (1 - g) w_prev (eq. 7)."""
    return w_prev + g * (w_c - w_prev)


def shift(w_g: Float[Tensor, "B H N"], s: Float[Tensor, "B H S"]) -> Float[Tensor, "B H N"]:
    """Shift by circular convolution: w_tilde(i) = sum_j w_g(j) s(i - j), indices modulo N (eq. 8)."""
    s_down, s_stay, s_up = torch.split(s, 1, dim=2)
    one_down = torch.cat((w_g[:, :, 1:], w_g[:, :, :1]), dim=2)
    one_up = torch.cat((w_g[:, :, -1:], w_g[:, :, :-1]), dim=2)
    return s_down * one_down + s_stay * w_g + s_up * one_up


def sharpen(w_tilde: Float[Tensor, "B H N"], gamma: Float[Tensor, "B H 1"]) -> Float[Tensor, "B H N"]:
    """Undo the blur of shifts: w(i) = w_tilde(i)^gamma / sum_j w_tilde(j)^gamma (eq. 9)."""
    return torch.softmax(gamma * torch.log(w_tilde + LOGARITHM_EPSILON), dim=2)

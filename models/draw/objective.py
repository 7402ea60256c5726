"""The variational bound: section 2.2 of DRAW (https://arxiv.org/abs/1502.04623).

Axis letters: B batch, T steps, A side of the canvas in pixels, Z latent variables.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.draw.network import Posterior, Reconstruction


class Bound(NamedTuple):
    """The two terms of the bound, in nats per picture; their sum is an upper bound on -log p(x)."""

    reconstruction: Float[Tensor, " B"]
    latent: Float[Tensor, " B"]

    @property
    def nats(self) -> Float[Tensor, " B"]:
        """Total loss, equation 12."""
        return self.reconstruction + self.latent


def latent_loss(posterior: Posterior) -> Float[Tensor, " B"]:
    """Equations 10 and 11: return KL(Q(Z_t | h_t^enc) || N(0, 1)), summed over steps and latent variables.

    The paper's constant, -T/2, must be meant per latent variable, since the prior's divergence from itself is zero.
    """
    variance = torch.exp(2 * posterior.log_sigma)
    divergence = 0.5 * (posterior.mean.square() + variance - 1) - posterior.log_sigma
    return divergence.sum(dim=(0, 2))


def bound(x: Float[Tensor, "B A A"], seen: Reconstruction) -> Bound:
    """Equations 9 to 12 for binary pictures: return -log D(x | c_T) with Bernoulli pixels, and the latent loss."""
    # -x log sigmoid(c) - (1 - x) log(1 - sigmoid(c)), in a form that is stable for large |c| and exports as it is.
    pixels = nn.functional.softplus(seen.canvas) - x * seen.canvas
    return Bound(pixels.sum(dim=(1, 2)), latent_loss(seen.posterior))


def binarise(images: Float[Tensor, "B A A"], generator: torch.Generator) -> Float[Tensor, "B A A"]:
    """Sample binary pictures: each pixel is 1 with a probability equal to its grey value (0..1)."""
    return torch.bernoulli(images, generator=generator)

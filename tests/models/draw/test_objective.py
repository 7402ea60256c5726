"""The bound: divergences against the formula for any two Gaussians, pixels against logarithms."""

import math

import pytest
import torch

from models.draw.network import Posterior, Reconstruction
from models.draw.objective import binarise, bound, latent_loss


def posterior(seed: int, steps: int = 4, batch: int = 3, latent: int = 5) -> Posterior:
    generator = torch.Generator().manual_seed(seed)
    shape = (steps, batch, latent)
    return Posterior(torch.randn(shape, generator=generator), 0.5 * torch.randn(shape, generator=generator))


def test_prior_does_not_diverge_from_itself() -> None:
    """Zero, not -T/2, nor T (Z - 1)/2."""
    prior = Posterior(torch.zeros(64, 2, 100), torch.zeros(64, 2, 100))

    assert latent_loss(prior).tolist() == [0, 0]


def test_divergence_is_that_of_two_gaussians() -> None:
    """Against PyTorch's own, summed over steps and latent variables."""
    found = posterior(0)

    prior = torch.distributions.Normal(0.0, 1.0)
    q = torch.distributions.Normal(found.mean, found.log_sigma.exp())
    expected = torch.distributions.kl_divergence(q, prior).sum(dim=(0, 2))
    torch.testing.assert_close(latent_loss(found), expected)


def test_divergence_is_the_mean_logarithm_of_the_ratio() -> None:
    """Against its definition, E_q[log q(z) - log p(z)], by many samples of one variable."""
    mean, log_sigma = 0.8, -0.4
    z = mean + math.exp(log_sigma) * torch.randn(200_000, generator=torch.Generator().manual_seed(1))

    log_q = -0.5 * ((z - mean) / math.exp(log_sigma)).square() - log_sigma
    log_p = -0.5 * z.square()
    found = latent_loss(Posterior(torch.full((1, 1, 1), mean), torch.full((1, 1, 1), log_sigma)))
    assert found.item() == pytest.approx((log_q - log_p).mean().item(), abs=0.01)


@pytest.mark.parametrize("seed", range(3))
def test_divergence_is_never_negative(seed: int) -> None:
    """Gibbs' inequality."""
    assert (latent_loss(posterior(seed)) > 0).all()


def test_pixels_cost_minus_the_logarithm_of_their_probability() -> None:
    """-x log p - (1 - x) log(1 - p), pixel by pixel."""
    generator = torch.Generator().manual_seed(2)
    canvas = 3 * torch.randn(2, 6, 6, generator=generator)
    x = torch.bernoulli(torch.full((2, 6, 6), 0.4), generator=generator)

    found = bound(x, Reconstruction(canvas, posterior(2, batch=2)))

    for b in range(2):
        expected = 0.0
        for c, bit in zip(canvas[b].flatten().tolist(), x[b].flatten().tolist(), strict=True):
            p = 1 / (1 + math.exp(-c))
            expected -= math.log(p if bit else 1 - p)
        assert found.reconstruction[b].item() == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(found.nats, found.reconstruction + found.latent)


def test_certain_pixels_cost_nothing_or_much_and_never_infinitely() -> None:
    """Where a sigmoid would round to 0 or 1, the cost is still the canvas itself."""
    canvas = torch.tensor([[[200.0, -200.0], [200.0, -200.0]]])
    x = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    prior = Posterior(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1))

    assert bound(x, Reconstruction(canvas, prior)).nats.item() == pytest.approx(400)


def test_binarised_pixels_are_white_as_often_as_they_are_grey() -> None:
    """Zeros and ones with the grey value as their mean; black and white stay as they are."""
    greys = torch.tensor([0.0, 0.25, 0.8, 1.0]).expand(20_000, 1, 4)

    drawn = binarise(greys, torch.Generator().manual_seed(3))

    assert ((drawn == 0) | (drawn == 1)).all()
    assert drawn.mean(dim=(0, 1)).tolist() == pytest.approx([0, 0.25, 0.8, 1], abs=0.015)

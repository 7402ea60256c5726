"""Addressing: each stage against a NumPy loop over its equation, and the algebra the stages obey."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.ntm.addressing import SHIFTS, Focus, address, content, interpolate, sharpen, shift

B, H, N, M = 2, 3, 7, 4


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def weightings(generator: torch.Generator) -> Tensor:
    return torch.softmax(3 * torch.randn(B, H, N, generator=generator, dtype=torch.float64), dim=2)


def random_focus(generator: torch.Generator) -> Focus:
    def draw(size: int) -> Tensor:
        return torch.randn(B, H, size, generator=generator, dtype=torch.float64)

    return Focus(
        k=draw(M),
        beta=draw(1).exp(),
        g=torch.sigmoid(draw(1)),
        s=torch.softmax(draw(len(SHIFTS)), dim=2),
        gamma=1 + draw(1).exp(),
    )


def random_memory(generator: torch.Generator) -> Tensor:
    return torch.randn(B, M, N, generator=generator, dtype=torch.float64)


def test_address_equals_the_equations_computed_slot_by_slot(generator: torch.Generator) -> None:
    """All four stages together give what a loop over batch, heads and slots gives."""
    focus, memory, w_prev = random_focus(generator), random_memory(generator), weightings(generator)

    found = address(focus, memory, w_prev).numpy()

    k, beta, g, s, gamma = (part.numpy() for part in focus)
    for b in range(B):
        for h in range(H):
            cosine = [k[b, h] @ row / np.linalg.norm(k[b, h]) / np.linalg.norm(row) for row in memory[b].T.numpy()]
            w_c = np.exp(beta[b, h] * np.array(cosine))
            w_g = g[b, h] * w_c / w_c.sum() + (1 - g[b, h]) * w_prev[b, h].numpy()
            w_tilde = np.zeros(N)
            for i in range(N):
                for offset, weight in zip(SHIFTS, s[b, h], strict=True):
                    w_tilde[i] += w_g[(i - offset) % N] * weight
            expected = w_tilde ** gamma[b, h] / (w_tilde ** gamma[b, h]).sum()
            np.testing.assert_allclose(found[b, h], expected, rtol=1e-6)


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1))
def test_weighting_stays_a_distribution(seed: int) -> None:
    """Weights are in [0, 1] and sum to one, whatever the heads' parameters."""
    generator = torch.Generator().manual_seed(seed)

    w = address(random_focus(generator), random_memory(generator), weightings(generator))

    assert torch.all((w >= 0) & (w <= 1))
    torch.testing.assert_close(w.sum(2), torch.ones(B, H, dtype=torch.float64))


def test_content_permutes_with_the_slots(generator: torch.Generator) -> None:
    """Content addressing does not see where a slot is: permuted slots get permuted weights."""
    focus, memory = random_focus(generator), random_memory(generator)
    order = torch.randperm(N, generator=generator)

    permuted = content(focus.k, focus.beta, memory[:, :, order])

    torch.testing.assert_close(permuted, content(focus.k, focus.beta, memory)[:, :, order])


def test_content_ignores_the_length_of_keys_and_slots(generator: torch.Generator) -> None:
    """The cosine compares directions alone."""
    focus, memory = random_focus(generator), random_memory(generator)

    scaled = content(100 * focus.k, focus.beta, 0.01 * memory)

    torch.testing.assert_close(scaled, content(focus.k, focus.beta, memory), rtol=1e-5, atol=1e-5)


def test_strong_key_finds_its_slot(generator: torch.Generator) -> None:
    """With a slot's own content as a strong key, that slot gets all of the weight."""
    memory = random_memory(generator)
    k = memory[:, :, :H].mT

    w_c = content(k, torch.full((B, H, 1), 1000.0, dtype=torch.float64), memory)

    torch.testing.assert_close(w_c, torch.eye(N, dtype=torch.float64)[:H].expand(B, H, N))


def test_memory_of_equal_slots_is_addressed_evenly(generator: torch.Generator) -> None:
    """A fresh memory, and one that is all zeros, gives every slot the same weight and no NaN."""
    focus = random_focus(generator)

    for constant in (0.0, 1e-6):
        w_c = content(focus.k, focus.beta, torch.full((B, M, N), constant, dtype=torch.float64))
        torch.testing.assert_close(w_c, torch.full((B, H, N), 1 / N, dtype=torch.float64))


def test_memory_of_zeros_has_finite_gradients(generator: torch.Generator) -> None:
    """The norm of a slot of zeros has no derivative, so it is kept above 0."""
    focus, memory = random_focus(generator), torch.zeros(B, M, N, dtype=torch.float64, requires_grad=True)

    content(focus.k, focus.beta, memory)[:, :, 0].sum().backward()  # type: ignore[no-untyped-call]

    assert memory.grad is not None
    assert memory.grad.isfinite().all()


def test_gate_selects_between_content_and_the_past(generator: torch.Generator) -> None:
    """The gate at 1 gives the content's weighting, at 0 the previous one."""
    w_c, w_prev = weightings(generator), weightings(generator)
    gate = torch.ones(B, H, 1, dtype=torch.float64)

    torch.testing.assert_close(interpolate(w_c, w_prev, gate), w_c)
    torch.testing.assert_close(interpolate(w_c, w_prev, 0 * gate), w_prev)


@pytest.mark.parametrize(("tap", "offset"), list(enumerate((-1, 0, 1))))
def test_shift_by_one_tap_rolls_the_weighting(tap: int, offset: int, generator: torch.Generator) -> None:
    """All shift weight on an offset moves slot i's weight to slot i + offset, around the ends."""
    w_g = weightings(generator)
    s = torch.zeros(B, H, 3, dtype=torch.float64)
    s[:, :, tap] = 1

    torch.testing.assert_close(shift(w_g, s), torch.roll(w_g, offset, dims=2))


def test_sharpening_by_one_changes_nothing(generator: torch.Generator) -> None:
    """Gamma = 1 is the identity."""
    w = weightings(generator)

    torch.testing.assert_close(sharpen(w, torch.ones(B, H, 1, dtype=torch.float64)), w)


def test_sharpening_an_exact_focus_keeps_it_with_finite_gradients() -> None:
    """Weights of exactly zero and a large gamma give neither NaN nor an infinite gradient, in float32."""
    w = torch.zeros(1, 1, N)
    w[0, 0, 2] = 1
    w.requires_grad_()
    gamma = torch.full((1, 1, 1), 21.0, requires_grad=True)

    sharpened = sharpen(w, gamma)
    sharpened[0, 0, 2].backward()  # type: ignore[no-untyped-call]

    torch.testing.assert_close(sharpened, w)
    assert w.grad is not None
    assert gamma.grad is not None
    assert torch.isfinite(w.grad).all()
    assert torch.isfinite(gamma.grad).all()


def test_gradients_of_address_equal_finite_differences(generator: torch.Generator) -> None:
    """The gradients with respect to the heads' parameters, the memory and the previous weighting are right."""
    inputs = (*random_focus(generator), random_memory(generator), weightings(generator))

    def addressed(*parts: Tensor) -> Tensor:
        *told, memory, w_prev = parts
        return address(Focus(*told), memory, w_prev)

    assert torch.autograd.gradcheck(addressed, [part.requires_grad_() for part in inputs])

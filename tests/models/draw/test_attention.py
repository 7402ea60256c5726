"""Gaussian filters: against the paper's own indices, and the identities that they obey."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.draw.attention import Window, filterbank, filterbanks, read, window, write

SIDE, FILTERS = 12, 5

filters = st.fixed_dictionaries(
    {
        "g": st.floats(-20, 40),
        "delta": st.floats(0.01, 8),
        "sigma": st.floats(0.1, 8),
    }
)


def bank(g: float, delta: float, sigma: float, side: int = SIDE, count: int = FILTERS) -> torch.Tensor:
    one = torch.ones(1, dtype=torch.float64)
    return filterbank(g * one, delta * one, sigma * one, side, count)[0]


def naive_bank(g: float, delta: float, sigma: float, side: int, count: int) -> NDArray[np.float64]:
    """Equations 19, 20 and 25 with loops; i, j, a and b are counted from 1, as the paper does."""
    F = np.zeros((count, side))
    for i in range(1, count + 1):
        mu = g + (i - count / 2 - 0.5) * delta
        for a in range(1, side + 1):
            F[i - 1, a - 1] = np.exp(-((a - mu) ** 2) / (2 * sigma**2))
        F[i - 1] /= F[i - 1].sum()
    return F


def some_window(seed: int, batch: int = 3) -> Window:
    generator = torch.Generator().manual_seed(seed)
    return window(torch.randn(batch, 5, generator=generator, dtype=torch.float64) * 0.5, SIDE, FILTERS)


# --- the filters ---


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize(
    ("g", "delta", "sigma"), [(6.5, 2.0, 1.0), (1.0, 0.5, 0.6), (12.0, 3.1, 2.5), (4.25, 1.0, 0.4)]
)
def test_filters_are_the_papers(g: float, delta: float, sigma: float, count: int) -> None:
    """Against loops over the paper's indices."""
    np.testing.assert_allclose(bank(g, delta, sigma, SIDE, count), naive_bank(g, delta, sigma, SIDE, count), atol=1e-12)


@given(filters)
@settings(max_examples=50)
def test_every_filter_is_a_distribution(drawn: dict[str, float]) -> None:
    """Rows are not negative and sum to one, however far outside the picture the window lies."""
    F = bank(drawn["g"], drawn["delta"], drawn["sigma"])

    assert (F >= 0).all()
    torch.testing.assert_close(F.sum(dim=1), torch.ones(FILTERS, dtype=torch.float64))


@given(delta=st.floats(0.1, 2), sigma=st.floats(0.2, 3), count=st.integers(1, 6))
@settings(max_examples=30)
def test_filters_are_symmetric_about_their_centre(delta: float, sigma: float, count: int) -> None:
    """In the middle of the picture, the bank read backwards in both axes is the bank: none is a stride off."""
    F = bank((SIDE + 1) / 2, delta, sigma, SIDE, count)

    torch.testing.assert_close(F, F.flip(0, 1))


def test_centres_lie_around_g_a_stride_apart() -> None:
    """Narrow filters on a long axis have their means at g - 2 delta, ..., g + 2 delta."""
    a = torch.arange(1, 101, dtype=torch.float64)

    means = bank(40.3, 7.0, 1.5, side=100) @ a

    torch.testing.assert_close(means, 40.3 + 7.0 * torch.arange(-2, 3, dtype=torch.float64), atol=1e-6, rtol=0)


def test_moved_window_is_the_same_window_elsewhere() -> None:
    """One pixel to the right moves every filter one pixel to the right."""
    here, there = bank(40.0, 4.0, 1.0, side=80), bank(41.0, 4.0, 1.0, side=80)

    torch.testing.assert_close(there[:, 1:], here[:, :-1], atol=1e-9, rtol=0)


def test_narrow_filter_is_a_pixel() -> None:
    """With a deviation towards nothing a filter reads the pixel that it lies on, counted from 1."""
    F = bank(3.0, 2.0, 0.05, side=8, count=3)

    torch.testing.assert_close(F, torch.eye(8, dtype=torch.float64)[[0, 2, 4]])


# --- the window ---


def test_zeros_are_a_window_that_spans_the_picture() -> None:
    """Centre in the middle, outermost filters on the outermost pixels, filters and gain of one."""
    where = window(torch.zeros(1, 5), 28, 5)

    assert [float(value) for value in where] == pytest.approx([14.5, 14.5, 27 / 4, 1, 1])
    assert float(where.g_x - 2 * where.delta) == pytest.approx(1)
    assert float(where.g_x + 2 * where.delta) == pytest.approx(28)


def test_window_follows_the_papers_equations() -> None:
    """Equations 21 to 24, from numbers by hand."""
    where = window(torch.tensor([[0.5, -0.25, 0.6, -0.7, 0.2]]), 28, 5)

    expected = [29 / 2 * 1.5, 29 / 2 * 0.75, 27 / 4 * np.exp(-0.7), np.exp(0.3), np.exp(0.2)]
    assert [float(value) for value in where] == pytest.approx(expected)


# --- reading and writing ---


def test_reading_is_two_matrix_products_a_channel() -> None:
    """Against gamma F_Y x F_X^T with loops; y picks rows and x picks columns."""
    where = some_window(0)
    picture = torch.rand(3, 2, SIDE, SIDE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    found = read(picture, where, FILTERS)

    for b in range(3):
        F_X, F_Y = (
            naive_bank(float(g[b]), float(where.delta[b]), float(where.sigma[b]), SIDE, FILTERS)
            for g in (where.g_x, where.g_y)
        )
        for c in range(2):
            expected = float(where.gamma[b]) * F_Y @ picture[b, c].numpy() @ F_X.T
            np.testing.assert_allclose(found[b, c], expected, atol=1e-12)


def test_bright_pixel_is_read_where_it_lies() -> None:
    """Right of the middle is right in the patch, above is above: x and y are not exchanged."""
    picture = torch.zeros(1, 1, SIDE, SIDE)
    picture[0, 0, 1, 9] = 1
    where = window(torch.tensor([[0.0, 0.0, -1.0, 0.0, 0.0]]), SIDE, 3)

    patch = read(picture, where, 3)[0, 0]

    assert patch.argmax() == 2  # the first row's last


@pytest.mark.parametrize("seed", range(3))
def test_writing_is_the_adjoint_of_reading(seed: int) -> None:
    """<read(x), w> = gamma^2 <x, write(w)>: what is read by a window is written by its transpose."""
    where = some_window(seed)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(3, SIDE, SIDE, generator=generator, dtype=torch.float64)
    w = torch.randn(3, FILTERS, FILTERS, generator=generator, dtype=torch.float64)

    seen = (read(x[:, None], where, FILTERS)[:, 0] * w).sum((1, 2))
    written = (x * write(w, where, SIDE)).sum((1, 2))

    torch.testing.assert_close(seen, where.gamma.square() * written)


def test_written_ink_is_that_of_the_patch() -> None:
    """Filters sum to one, so that writing spreads ink and makes none, but for the gain."""
    where = some_window(4)
    w = torch.rand(3, FILTERS, FILTERS, generator=torch.Generator().manual_seed(4), dtype=torch.float64)

    torch.testing.assert_close(write(w, where, SIDE).sum((1, 2)), w.sum((1, 2)) / where.gamma)


def test_both_banks_are_those_of_their_axes() -> None:
    """F_Y comes first."""
    where = some_window(5)

    F_Y, F_X = filterbanks(where, SIDE, FILTERS)

    torch.testing.assert_close(F_Y, filterbank(where.g_y, where.delta, where.sigma, SIDE, FILTERS))
    torch.testing.assert_close(F_X, filterbank(where.g_x, where.delta, where.sigma, SIDE, FILTERS))


def test_gradients_are_those_of_finite_differences() -> None:
    """Through reading and writing, for pictures, patches and all five numbers of the window."""
    generator = torch.Generator().manual_seed(6)
    parameters = (0.3 * torch.randn(2, 5, generator=generator, dtype=torch.float64)).requires_grad_()
    x = torch.randn(2, 1, 6, 6, generator=generator, dtype=torch.float64).requires_grad_()
    w = torch.randn(2, 3, 3, generator=generator, dtype=torch.float64).requires_grad_()

    assert torch.autograd.gradcheck(lambda p, x: read(x, window(p, 6, 3), 3), (parameters, x))
    assert torch.autograd.gradcheck(lambda p, w: write(w, window(p, 6, 3), 6), (parameters, w))

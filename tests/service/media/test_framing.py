"""Framing: where a pixel of the picture lies in the square, and that none of it is lost on the way."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.media.framing import Frame, identity_grid, ring_mean, sample, square
from service.media.picture import Pixels, Points

SIDES = st.integers(1, 40)


def noise(*shape: int) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def bilinear(picture: Pixels, grid: Points, outside: float) -> NDArray[np.float64]:
    """Sample by the definition: the sum over m, n of U(n, m) k(x - m) k(y - n), where k is a triangle."""
    height, width = picture.shape
    side = max(height, width)
    sampled = np.empty(grid.shape[:2])
    for i, j in np.ndindex(*sampled.shape):
        x = (grid[i, j, 0] * side / width + 1) * width / 2 - 0.5
        y = (grid[i, j, 1] * side / height + 1) * height / 2 - 0.5
        total = 0.0
        for n in (int(np.floor(y)), int(np.floor(y)) + 1):
            for m in (int(np.floor(x)), int(np.floor(x)) + 1):
                value = float(picture[n, m]) if 0 <= n < height and 0 <= m < width else outside
                total += value * max(0.0, 1 - abs(x - m)) * max(0.0, 1 - abs(y - n))
        sampled[i, j] = total
    return sampled


def test_picture_that_fits_is_returned_as_it_is() -> None:
    """A picture of the right size is not copied."""
    picture = noise(28, 28)

    assert square(picture, 28) is picture


@given(width=SIDES, height=SIDES, side=st.integers(2, 40), grey=st.integers(0, 255))
@settings(max_examples=40)
def test_uniform_picture_stays_uniform(width: int, height: int, side: int, grey: int) -> None:
    """A uniform picture is padded with its own grey."""
    framed = square(np.full((height, width), grey, np.uint8), side)

    assert framed.shape == (side, side)
    assert (framed == grey).all()


def test_narrow_picture_is_centred_between_bands_of_its_ring() -> None:
    """Padding by whole pixels does not change the picture's pixels."""
    picture = noise(28, 20)

    framed = square(picture, 28)

    np.testing.assert_array_equal(framed[:, 4:24], picture)
    np.testing.assert_allclose(framed[:, [0, 3, 24, 27]], ring_mean(picture)[0], atol=1)


@pytest.mark.parametrize("shape", [(60, 60), (60, 20), (20, 60), (61, 20)])
def test_framing_commutes_with_turning(shape: tuple[int, int]) -> None:
    """All sides of the picture are treated alike."""
    picture = noise(*shape)

    turned = square(np.ascontiguousarray(np.rot90(picture)), 30)

    np.testing.assert_allclose(turned.astype(int), np.rot90(square(picture, 30)), atol=1)


def test_shrinking_a_square_averages_areas() -> None:
    """At a quarter of the side, each pixel is the mean of 16."""
    picture = noise(40, 40)

    means = picture.reshape(10, 4, 10, 4).mean(axis=(1, 3))

    np.testing.assert_allclose(square(picture, 10), means, atol=0.51)


def test_ring_mean_counts_every_pixel_of_the_ring_once() -> None:
    """Corners are not counted twice."""
    picture = noise(5, 7)
    ring = np.ones((5, 7), bool)
    ring[1:-1, 1:-1] = False

    assert ring_mean(picture) == pytest.approx((picture[ring].mean(),))


@pytest.mark.parametrize("shape", [(1, 9), (9, 1), (2, 9), (9, 2), (1, 1)])
def test_picture_that_is_all_ring_is_its_own_mean(shape: tuple[int, int]) -> None:
    """If a picture has no inside, the mean is that of all its pixels."""
    picture = noise(*shape)

    assert ring_mean(picture) == pytest.approx((picture.mean(),))


def test_ring_of_a_colour_picture_has_a_mean_a_channel() -> None:
    """Each channel has its own mean."""
    assert ring_mean(np.full((4, 4, 3), (10, 20, 30), np.uint8)) == pytest.approx((10, 20, 30))


def test_long_thin_picture_is_framed_without_a_large_square() -> None:
    """A picture of 16384 x 1 pixels is framed without an array of 16384 x 16384."""
    framed = square(np.full((1, 16_384), 200, np.uint8), 28)

    assert (framed == 200).all()


# --- geometry ---


@given(width=SIDES, height=SIDES)
def test_corners_of_the_square_are_as_far_from_the_centre_in_either_direction(width: int, height: int) -> None:
    """The square is as large as the longer side and has the picture's centre."""
    top_left, bottom_right = Frame(width, height).to_pixels(np.array([[-1.0, -1.0], [1.0, 1.0]]))

    np.testing.assert_allclose(bottom_right - top_left, max(width, height))
    np.testing.assert_allclose((top_left + bottom_right) / 2, (width / 2, height / 2))


@given(width=SIDES, height=SIDES, x=st.floats(-2, 2), y=st.floats(-2, 2))
def test_scales_and_pixels_agree(width: int, height: int, x: float, y: float) -> None:
    """`to_pixels` equals scaling to the picture's normalised coordinates and converting those to pixels."""
    frame = Frame(width, height)

    pixels = frame.to_pixels(np.array([x, y]))

    np.testing.assert_allclose(pixels[0], (frame.scale_x * x + 1) / 2 * width, atol=1e-9)
    np.testing.assert_allclose(pixels[1], (frame.scale_y * y + 1) / 2 * height, atol=1e-9)


def test_identity_grid_holds_the_centres_of_pixels() -> None:
    """The centres of four pixels are at 1/8, 3/8, 5/8 and 7/8 of the side."""
    grid = identity_grid(4)

    np.testing.assert_allclose(grid[0, :, 0], [-0.75, -0.25, 0.25, 0.75])
    np.testing.assert_allclose(grid[:, 0, 1], [-0.75, -0.25, 0.25, 0.75])


# --- sampling ---


@pytest.mark.parametrize("shape", [(9, 9), (9, 6), (5, 9)])
def test_sample_equals_the_definition(shape: tuple[int, int]) -> None:
    """A fine rotated grid, partly outside, gives the samples of a loop in plain Python."""
    picture = noise(*shape)
    turn = np.array([[0.8, -0.5], [0.5, 0.8]])
    grid = identity_grid(16) @ turn.T + (0.1, -0.2)

    expected = bilinear(picture, grid, outside=ring_mean(picture)[0])

    np.testing.assert_allclose(sample(picture, grid), expected, atol=5)  # OpenCV weighs in 1/32 of a pixel


def test_identity_at_the_pictures_own_size_returns_it() -> None:
    """Each pixel is sampled at its centre."""
    picture = noise(12, 12, 3)

    np.testing.assert_array_equal(sample(picture, identity_grid(12)), picture)


def test_coarse_grid_does_not_alias() -> None:
    """Fine stripes read at every 36th pixel become their mean, not a pattern."""
    stripes = np.zeros((1000, 1000), np.uint8)
    stripes[:, ::2] = 255

    np.testing.assert_allclose(sample(stripes, identity_grid(28)), 127.5, atol=3)


def test_coarse_grid_keeps_the_geometry() -> None:
    """Shrinking first does not move an edge: the left half stays the left half."""
    halves = np.zeros((300, 400), np.uint8)
    halves[:, :200] = 255

    sampled = sample(halves, identity_grid(28))

    assert (sampled[5:23, :13] > 250).all()
    assert (sampled[5:23, 15:] < 5).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_point_at_infinity_reads_what_lies_outside_or_in_the_picture(value: float) -> None:
    """A projective grid may reach infinity; the sampler returns some grey, not an error."""
    grid = identity_grid(4)
    grid[1, 1] = value

    sampled = sample(np.full((4, 4), 77, np.uint8), grid)

    assert (sampled == 77).all()

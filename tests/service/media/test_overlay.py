"""Overlays: the line runs where the geometry says, and nowhere else."""

import numpy as np
import pytest

from service.media.overlay import GREEN, RED, draw_outline, draw_windows
from service.media.picture import Pixels

SCALE = 4
CANVAS = 28


def windows(g_X: float, g_Y: float, delta: float, sigma: float = 0.1, N: int = 5) -> Pixels:
    """Return where a frame of 28 x 28, enlarged four times, is marked."""
    frames = np.zeros((1, CANVAS * SCALE, CANVAS * SCALE, 3), np.uint8)
    draw_windows(
        frames, np.array([g_X]), np.array([g_Y]), np.array([delta]), np.array([sigma]), N=N, scale=SCALE, colour=RED
    )
    return frames[0, ..., 0]


def test_window_has_its_sides_where_the_outermost_filters_are() -> None:
    """With centre 10.5 and four strides of 2, sides are at 6.5 and 14.5: 6 and 14 canvas pixels from the edge."""
    marked = windows(g_X=10.5, g_Y=16.5, delta=2) > 0

    assert np.flatnonzero(marked.any(axis=0))[[0, -1]] == pytest.approx([6 * SCALE, 14 * SCALE], abs=1)
    assert np.flatnonzero(marked.any(axis=1))[[0, -1]] == pytest.approx([12 * SCALE, 20 * SCALE], abs=1)


def test_window_is_a_line_and_not_a_filled_square() -> None:
    """The picture inside stays visible."""
    marked = windows(g_X=14.5, g_Y=14.5, delta=4) > 0

    assert marked.sum() == pytest.approx(4 * 16 * SCALE, rel=0.1)
    assert not marked[14 * SCALE, 14 * SCALE]


def test_window_in_the_middle_is_symmetric() -> None:
    """14.5 is the middle of 28 pixels counted from 1."""
    marked = windows(g_X=14.5, g_Y=14.5, delta=3, sigma=1)

    np.testing.assert_array_equal(marked, marked[::-1])
    np.testing.assert_array_equal(marked, marked[:, ::-1])
    np.testing.assert_array_equal(marked, marked.T)


def test_line_grows_with_sigma() -> None:
    """Wider filters give a thicker line."""
    inks = [np.count_nonzero(windows(14.5, 14.5, 3, sigma)) for sigma in (0.5, 1, 2)]

    assert inks[0] < inks[1] < inks[2]


def test_window_over_the_edge_is_cut_off() -> None:
    """Half outside, the window shows its other three sides, and none along the edge of the picture."""
    marked = windows(g_X=0.5, g_Y=14.5, delta=4) > 0

    assert not marked[14 * SCALE, 0]
    assert np.flatnonzero(marked[:, 0]) == pytest.approx([6 * SCALE, 22 * SCALE], abs=1)
    assert np.flatnonzero(marked[14 * SCALE]) == pytest.approx([8 * SCALE], abs=1)
    assert marked.sum() == pytest.approx((8 + 16 + 8) * SCALE, rel=0.1)


def test_window_over_any_edge_looks_as_over_any_other() -> None:
    """Windows over other edges look the same, rotated or mirrored."""
    left = windows(g_X=1.5, g_Y=14.5, delta=4, sigma=1)

    np.testing.assert_array_equal(windows(g_X=27.5, g_Y=14.5, delta=4, sigma=1), left[:, ::-1])
    np.testing.assert_array_equal(windows(g_X=14.5, g_Y=1.5, delta=4, sigma=1), left.T)
    np.testing.assert_array_equal(windows(g_X=14.5, g_Y=27.5, delta=4, sigma=1), left.T[::-1])


@pytest.mark.parametrize("far", [-1e6, -30, 60, 1e6])
def test_window_that_is_elsewhere_marks_nothing(far: float) -> None:
    """A window outside the picture marks nothing."""
    assert not windows(g_X=far, g_Y=14.5, delta=1).any()


def test_window_without_extent_is_a_dot() -> None:
    """A window with a stride near zero is still visible."""
    marked = windows(g_X=14.5, g_Y=14.5, delta=1e-6, sigma=1)

    assert 1 <= np.count_nonzero(marked) <= 16


def test_every_frame_has_its_own_window() -> None:
    """Each frame is marked at its own window, in the given colour."""
    frames = np.zeros((2, 112, 112, 3), np.uint8)
    centres, ones = np.array([8.0, 20.0]), np.ones(2)

    draw_windows(frames, centres, centres, ones, ones, N=5, scale=4, colour=GREEN)

    assert set(map(tuple, frames.reshape(-1, 3).tolist())) == {(0, 0, 0), GREEN}
    assert frames[0, :50, :50].any()
    assert not frames[1, :50, :50].any()


def test_outline_runs_through_the_corners() -> None:
    """A rectangle through pixel centres marks exactly these pixels."""
    image = np.zeros((40, 60, 3), np.uint8)

    draw_outline(image, np.array([[10.5, 5.5], [50.5, 5.5], [50.5, 30.5], [10.5, 30.5]]))

    assert (image[5, 10:51, 0] > 200).all()
    assert (image[5:31, 50, 0] > 200).all()
    assert not image[7:29, 12:49].any()
    assert not image[..., 1:].any()


@pytest.mark.parametrize("far", [1e4, 1e12])
def test_outline_with_a_corner_far_outside_is_drawn_as_far_as_it_goes(far: float) -> None:
    """Corners of a projective outline may be arbitrarily far outside the picture."""
    image = np.zeros((40, 60, 3), np.uint8)

    draw_outline(image, np.array([[10.5, 20.5], [far, 20.5], [far, far]]))

    assert (image[20, 12:, 0] > 200).all()

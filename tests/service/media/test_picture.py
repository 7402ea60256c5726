"""Pictures: their size, and copies to draw on."""

import numpy as np

from service.media.picture import Picture


def test_size_is_that_of_the_grey_samples() -> None:
    """Width runs along the second axis."""
    picture = Picture(np.zeros((3, 5), np.uint8))

    assert (picture.width, picture.height) == (5, 3)


def test_rgb_of_a_grey_picture_repeats_its_samples() -> None:
    """Grey is red, green and blue in equal parts."""
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)

    rgb = Picture(grey).rgb()

    assert rgb.shape == (2, 3, 3)
    assert (rgb == grey[..., None]).all()


def test_rgb_may_be_drawn_upon_without_changing_the_picture() -> None:
    """Every call returns a copy of its own."""
    colour = np.zeros((2, 2, 3), np.uint8)
    picture = Picture(np.zeros((2, 2), np.uint8), colour)

    picture.rgb()[:] = 255

    assert not colour.any()

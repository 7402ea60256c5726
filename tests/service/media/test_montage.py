"""Montage: every picture in its place."""

import weakref
from collections.abc import Iterator

import numpy as np
import pytest

from service.media.montage import GAP_GREY, enlarge, grid, sheet, strip
from service.media.picture import Pixels


def test_enlarged_pixel_is_a_block() -> None:
    """Each pixel becomes a block of equal pixels."""
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 4), dtype=np.uint8)

    enlarged = enlarge(images, 5)

    np.testing.assert_array_equal(enlarged, np.kron(images, np.ones((1, 5, 5), np.uint8)))


def test_enlarging_keeps_colours() -> None:
    """The colour axis is not enlarged."""
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 3), dtype=np.uint8)

    np.testing.assert_array_equal(enlarge(images, 2)[:, 1::2, ::2], images)


@pytest.mark.parametrize("channels", [(), (3,)])
def test_grid_fills_rows_from_the_left(channels: tuple[int, ...]) -> None:
    """Five pictures in three columns leave the last cell empty; gaps are between pictures only."""
    images = np.stack([np.full((2, 4, *channels), 10 * i, np.uint8) for i in range(5)])

    sheet = grid(images, columns=3)

    assert sheet.shape == (5, 14, *channels)
    assert (sheet[0, [0, 5, 10]] == images[:3, 0, 0]).all()
    assert (sheet[3, [0, 5]] == images[3:, 0, 0]).all()
    assert (sheet[3, 10:] == GAP_GREY).all()
    assert (sheet[2] == GAP_GREY).all()
    assert (sheet[:, 4] == GAP_GREY).all()


def test_grid_of_one_is_the_picture() -> None:
    """It has no gaps; in more columns it has empty cells."""
    images = np.random.default_rng(0).integers(0, 256, (1, 2, 4), dtype=np.uint8)

    np.testing.assert_array_equal(grid(images, columns=1), images[0])
    assert grid(images, columns=2).shape == (2, 9)


def test_sheet_takes_pictures_one_by_one() -> None:
    """Pictures are consumed lazily: at most the first and the previous one are in memory when the next is made."""
    made: list[weakref.ref[Pixels]] = []

    def pictures() -> Iterator[Pixels]:
        for level in range(12):
            assert sum(picture() is not None for picture in made) <= 2
            picture = np.full((2, 3), level, np.uint8)
            made.append(weakref.ref(picture))
            yield picture

    filled = sheet(pictures(), rows=3, columns=4)

    np.testing.assert_array_equal(filled[::3, ::4], np.arange(12).reshape(3, 4))


def test_strip_shows_panels_of_any_size_at_one_height() -> None:
    """Grey and colour, small and large pictures are side by side, in order."""
    grey = np.full((28, 28), 50, np.uint8)
    wide = np.full((100, 200, 3), (255, 0, 0), np.uint8)

    page = strip([grey, wide], caption="3", height=64)

    assert (page == 50).all(axis=-1).sum() == 64 * 64
    assert (page == (255, 0, 0)).all(axis=-1).sum() == 64 * 128


def test_strip_writes_the_caption_below() -> None:
    """Another caption changes only the pixels below the panels."""
    panel = np.zeros((8, 8), np.uint8)

    one, other = (strip([panel], caption, height=256) for caption in ("3", "8"))

    np.testing.assert_array_equal(one[:270], other[:270])
    assert (one[270:] != other[270:]).any()


def test_long_caption_widens_the_strip() -> None:
    """The caption is not cut off."""
    panel = np.zeros((8, 8), np.uint8)

    short, long = (strip([panel], caption, height=16) for caption in ("3", "3 with a confidence of 99.2 %"))

    assert long.shape[1] > short.shape[1]
    assert (long[:, -12:] == 255).all()


@pytest.mark.parametrize("shape", [(1, 16_383), (16_383, 1), (1, 3_900, 3), (2, 9)])
def test_strip_of_a_narrow_picture_is_no_larger_than_others(shape: tuple[int, ...]) -> None:
    """A picture of one row is not scaled to the height of the others, which would make it extremely wide."""
    page = strip([np.zeros(shape, np.uint8), np.full((28, 28), 50, np.uint8)], caption="1", height=64)

    assert page.shape[1] <= 5 * 64 + 3 * 12
    assert page.shape[0] == strip([np.zeros((28, 28), np.uint8)], caption="1", height=64).shape[0]
    assert (page == 0).all(-1).any(), "the picture is on the page"
    assert (page == 50).all(-1).sum() == 64 * 64

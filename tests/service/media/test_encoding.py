"""Encoding: lossless, as another library reads it."""

import io

import numpy as np
import pytest
from PIL import Image

from service.media.encoding import PictureFormat, encode
from service.media.picture import Pixels


@pytest.mark.parametrize("picture_format", PictureFormat)
@pytest.mark.parametrize("shape", [(28, 28), (1, 1), (3, 50), (28, 28, 3)])
def test_encoded_picture_is_read_back_exactly(picture_format: PictureFormat, shape: tuple[int, ...]) -> None:
    """No sample is changed, and red stays red."""
    pixels: Pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)

    read = Image.open(io.BytesIO(encode(pixels, picture_format)))

    np.testing.assert_array_equal(np.asarray(read.convert("L" if pixels.ndim == 2 else "RGB")), pixels)


@pytest.mark.parametrize("picture_format", PictureFormat)
def test_content_type_is_what_the_bytes_are(picture_format: PictureFormat) -> None:
    """The content type matches the file."""
    read = Image.open(io.BytesIO(encode(np.zeros((4, 4), np.uint8), picture_format)))

    assert read.get_format_mimetype() == picture_format.content_type


def test_picture_that_is_a_view_is_encoded() -> None:
    """A slice that is not contiguous is encoded correctly."""
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)[::2, ::-1]

    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(encode(pixels)))), pixels)


def test_large_picture_is_compressed_and_a_small_one_need_not_be() -> None:
    """A small picture still fits a packet, and a large one shrinks to a small part of its size."""
    digit = np.zeros((28, 28), np.uint8)
    digit[4:24, 12:16] = 255

    assert len(encode(digit)) < 1200
    assert len(encode(digit.repeat(20, 0).repeat(20, 1))) < 560 * 560 / 20

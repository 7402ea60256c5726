"""Decoding: the pixels of pictures in every format."""

import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from service.errors import UnsupportedType
from service.media.decoding import QUICK_BYTES, QUICK_PIXELS, DecodeLimits, decode, decode_at_once
from service.media.picture import Pixels
from tests.service.media.files import FORMATS, LOSSLESS, digit, png, png_header, ramp, stored

# --- formats ---


@pytest.mark.parametrize("file_format", ["png", "webp", "gif", "bmp", "tiff"])
def test_grey_picture_returns_exactly_from_every_lossless_format(file_format: str) -> None:
    """Pixels that were stored without loss are decoded exactly."""
    pixels = ramp(7, 9)

    picture = decode(stored(Image.fromarray(pixels), file_format, **LOSSLESS.get(file_format, {})), None)

    np.testing.assert_array_equal(picture.grey, pixels)
    assert (picture.width, picture.height) == (9, 7)


def test_grey_jpeg_is_close_to_what_was_stored() -> None:
    """JPEG changes the pixels only a little."""
    pixels = ramp(16, 16)

    picture = decode(stored(Image.fromarray(pixels), "jpeg", quality=95), "image/jpeg")

    np.testing.assert_allclose(picture.grey.astype(int), pixels, atol=8)


@pytest.mark.parametrize("file_format", FORMATS)
def test_colour_picture_keeps_its_colours_for_overlays(file_format: str) -> None:
    """The picture has its colours, in the order red, green, blue."""
    red = Image.new("RGB", (8, 8), (250, 10, 20))

    picture = decode(stored(red, file_format), f"image/{file_format}")

    assert picture.colour is not None
    np.testing.assert_allclose(picture.colour.astype(int) - (250, 10, 20), 0, atol=8)


@given(
    pixels=hnp.arrays(
        np.uint8,
        st.tuples(st.integers(1, 12), st.integers(1, 12))
        | st.tuples(st.integers(1, 12), st.integers(1, 12), st.just(3)),
    ),
    level=st.integers(0, 9),
)
@settings(max_examples=60)
def test_fast_lane_equals_pillow(pixels: Pixels, level: int) -> None:
    """A plain PNG decodes to the same pixels as with Pillow, and to the same grey."""
    data = stored(Image.fromarray(pixels), "png", compress_level=level)
    with_text = data[:33] + png((b"tEXt", b"Title\0x"))[8:] + data[33:]  # not plain: Pillow's lane

    fast, slow = decode(data, None), decode(with_text, None)

    np.testing.assert_array_equal(fast.grey if pixels.ndim == 2 else fast.rgb(), pixels)
    np.testing.assert_array_equal(fast.grey, slow.grey)
    np.testing.assert_array_equal(fast.rgb(), slow.rgb())


@pytest.mark.parametrize(
    ("depth", "samples"),
    [
        (8, np.array([255, 155, 0], np.uint8)),
        (16, np.array([65535, 257 * 155, 0], "<u2")),
        (32, np.array([1.0, 155 / 255, 0.0], "<f4")),
    ],
)
@pytest.mark.parametrize("orientation", [1, 6])
def test_tiff_that_counts_from_white_is_not_its_negative(
    depth: int, samples: np.ndarray[Any, Any], orientation: int
) -> None:
    """A white-is-zero TIFF file has the right polarity at every depth and orientation."""
    shown = [0, 100, 255]
    tags = {256: 3, 257: 1, 258: depth, 259: 1, 262: 0, 273: 134, 274: orientation, 277: 1, 279: samples.nbytes}
    tags[339] = 3 if depth == 32 else 1
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    data = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + struct.pack("<I", 0) + samples.tobytes()

    grey = decode(data, "image/tiff").grey

    assert grey.reshape(-1).tolist() == shown


def test_first_frame_of_an_animation_is_taken() -> None:
    """An animated GIF is decoded as its first frame."""
    first, second = Image.fromarray(digit(0, 255)), Image.fromarray(digit(255, 0))

    picture = decode(stored(first, "gif", save_all=True, append_images=[second]), "image/gif")

    np.testing.assert_array_equal(picture.grey, digit(0, 255))


# --- orientation ---


@pytest.mark.parametrize("file_format", ["png", "jpeg", "webp", "tiff"])
def test_rotated_photograph_is_turned_upright(file_format: str) -> None:
    """EXIF orientation 6 means: rotate by 90 degrees clockwise."""
    pixels = np.zeros((16, 32), np.uint8)
    pixels[:, :16] = 255  # left as stored: above once upright
    exif = Image.Exif()
    exif[0x0112] = 6

    picture = decode(stored(Image.fromarray(pixels), file_format, exif=exif), None)

    assert (picture.width, picture.height) == (16, 32)
    assert picture.grey[:14].min() > 230
    assert picture.grey[18:].max() < 25


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_upright(orientation: int) -> None:
    """The corner that EXIF calls top left ends up top left, and its neighbours follow."""
    upright = np.array([[10, 20, 30], [40, 50, 60]], np.uint8)
    as_stored = {  # what a camera in each position stores
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: upright.T[::-1],
        7: upright[::-1, ::-1].T,
        8: upright.T[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation

    picture = decode(stored(Image.fromarray(np.ascontiguousarray(as_stored)), "png", exif=exif), None)

    np.testing.assert_array_equal(picture.grey, upright)


@pytest.mark.filterwarnings("ignore::UserWarning")  # as in service: pytest sets its own filters
@pytest.mark.parametrize("damage", [b"nothing of the kind", b"", b"II*\0\xff\xff\xff\x7f"])
def test_damaged_exif_turns_nothing(damage: bytes) -> None:
    """Damaged EXIF is ignored, and the pixels are decoded."""
    pixels = ramp(8, 8)

    picture = decode(stored(Image.fromarray(pixels), "jpeg", exif=b"Exif\0\0" + damage), None)

    assert (picture.width, picture.height) == (8, 8)


# --- content types ---


@pytest.mark.parametrize(
    "content_type",
    [
        "image/png",
        "IMAGE/PNG; name=digit.png",
        "image/jpeg",  # declared wrongly, and still a picture
        "image/apng",
        "image/x-ms-bmp",
        "application/octet-stream",
        "",
        None,
    ],
)
def test_declared_type_that_is_read_or_none_lets_the_signature_decide(content_type: str | None) -> None:
    """With a supported type or none, the file's signature selects the format."""
    pixels = ramp(4, 4)

    np.testing.assert_array_equal(decode(stored(Image.fromarray(pixels), "png"), content_type).grey, pixels)


@pytest.mark.parametrize("content_type", ["text/plain", "image/svg+xml", "image/avif", "application/json", "png"])
def test_other_type_is_refused_by_name(content_type: str) -> None:
    """The message names the declared type and the supported ones."""
    with pytest.raises(UnsupportedType, match=f"'{content_type}'.*image/png, image/jpeg".replace("+", r"\+")):
        decode(stored(Image.new("L", (4, 4)), "png"), content_type)


# --- what is quick ---


def test_small_plain_png_is_decoded_at_once() -> None:
    """It gives the same pixels as `decode`."""
    data = stored(Image.fromarray(ramp(28, 28)), "png")

    picture = decode_at_once(data, "image/png", DecodeLimits().check)

    assert picture is not None
    np.testing.assert_array_equal(picture.grey, decode(data, "image/png").grey)


@pytest.mark.parametrize(
    "data",
    [
        stored(Image.fromarray(ramp(28, 28)), "jpeg"),
        stored(Image.new("RGBA", (8, 8)), "png"),
        stored(Image.fromarray(ramp(28, 28)), "png", dpi=(72, 72)),
        png(png_header(8, 8), (b"zTXt", b"much\0\0" + zlib.compress(bytes(2**20))), (b"IEND", b"")),
        stored(Image.new("L", (QUICK_PIXELS + 1, 1)), "png"),
        stored(Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 80), dtype=np.uint8)), "png"),
    ],
    ids=["jpeg", "alpha", "density", "text", "wide", f"over {QUICK_BYTES} bytes"],
)
def test_what_may_take_long_is_not_decoded_at_once(data: bytes) -> None:
    """It is left to `decode`, and its size is not checked yet."""

    def uncalled(width: int, height: int) -> None:
        raise AssertionError(f"charged for {width} x {height}")

    assert decode_at_once(data, None, uncalled) is None

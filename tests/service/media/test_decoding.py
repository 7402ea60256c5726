"""Decoding: what a picture shows, in every mode of every format."""

import struct
import zlib
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image

from service.errors import UnsupportedType
from service.media.decoding import QUICK_BYTES, QUICK_PIXELS, DecodeLimits, decode, decode_at_once
from service.media.picture import Pixels
from tests.service.media.files import FORMATS, LOSSLESS, png, png_header, ramp, stored


def digit(paper: int, ink: int) -> Pixels:
    page = np.full((12, 12), paper, np.uint8)
    page[3:9, 5:7] = ink
    return page


def deep_png(page: NDArray[np.uint16], *, transparent: int) -> bytes:
    """A PNG of 16 bits, which Pillow would not write with a transparent value."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in page)
    return png(
        png_header(page.shape[1], page.shape[0], depth=16),
        (b"tRNS", transparent.to_bytes(2, "big")),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )


# --- formats and modes ---


@pytest.mark.parametrize("file_format", ["png", "webp", "gif", "bmp", "tiff"])
def test_grey_picture_returns_exactly_from_every_lossless_format(file_format: str) -> None:
    """What was stored without loss is read without loss."""
    pixels = ramp(7, 9)

    picture = decode(stored(Image.fromarray(pixels), file_format, **LOSSLESS.get(file_format, {})), None)

    np.testing.assert_array_equal(picture.grey, pixels)
    assert (picture.width, picture.height) == (9, 7)


def test_grey_jpeg_is_close_to_what_was_stored() -> None:
    """JPEG loses a little."""
    pixels = ramp(16, 16)

    picture = decode(stored(Image.fromarray(pixels), "jpeg", quality=95), "image/jpeg")

    np.testing.assert_allclose(picture.grey.astype(int), pixels, atol=8)


@pytest.mark.parametrize("file_format", FORMATS)
def test_colour_picture_keeps_its_colours_for_overlays(file_format: str) -> None:
    """The colour original is there, in the order red, green, blue."""
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
@settings(max_examples=60, deadline=None)
def test_fast_lane_equals_pillow(pixels: Pixels, level: int) -> None:
    """A plain PNG decodes to the same pixels as through Pillow, and so to the same grey."""
    data = stored(Image.fromarray(pixels), "png", compress_level=level)
    with_text = data[:33] + png((b"tEXt", b"Title\0x"))[8:] + data[33:]  # not plain: Pillow's lane

    fast, slow = decode(data, None), decode(with_text, None)

    np.testing.assert_array_equal(fast.grey if pixels.ndim == 2 else fast.rgb(), pixels)
    np.testing.assert_array_equal(fast.grey, slow.grey)
    np.testing.assert_array_equal(fast.rgb(), slow.rgb())


@pytest.mark.parametrize(
    ("mode", "file_format"), [("1", "png"), ("P", "gif"), ("CMYK", "jpeg"), ("1", "tiff"), ("CMYK", "tiff")]
)
def test_black_and_white_survive_in_every_mode(mode: str, file_format: str) -> None:
    """Black stays black and white white, however a pixel is stored."""
    page = digit(paper=255, ink=0)
    options = {"quality": 100} if file_format == "jpeg" else {}

    picture = decode(stored(Image.fromarray(page).convert("RGB").convert(mode), file_format, **options), None)

    np.testing.assert_array_equal(picture.grey, page)


@pytest.mark.parametrize("file_format", ["png", "tiff"])
def test_16_bit_grey_is_scaled_and_not_cut(file_format: str) -> None:
    """65535 becomes 255, and what lies between in proportion."""
    values = np.array([[0, 257, 32896, 65535]], np.uint16)

    picture = decode(stored(Image.fromarray(values), file_format), None)

    assert picture.grey.tolist() == [[0, 1, 128, 255]]


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
    """Whatever its depth, and whichever way up it is stored."""
    shown = [0, 100, 255]
    tags = {256: 3, 257: 1, 258: depth, 259: 1, 262: 0, 273: 134, 274: orientation, 277: 1, 279: samples.nbytes}
    tags[339] = 3 if depth == 32 else 1
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    data = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + struct.pack("<I", 0) + samples.tobytes()

    grey = decode(data, "image/tiff").grey

    assert grey.reshape(-1).tolist() == shown


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 100.0, 255.0]], np.float32), [0, 100, 255]),
        (np.array([[-1.0, 0.0, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[np.nan, 0.5, np.inf]], np.float32), [0, 128, 0]),
        (np.array([[7.0, 7.0]], np.float32), [7, 7]),
        (np.array([[-7.0, -7.0]], np.float32), [0, 0]),
        (np.array([[0, 100, 255]], np.int32), [0, 100, 255]),
        (np.array([[0, 65535]], np.int32), [0, 255]),
        (np.array([[0, 1_000_000]], np.int32), [0, 255]),
    ],
)
def test_32_bit_samples_take_the_white_that_fits(values: np.ndarray[Any, Any], expected: list[int]) -> None:
    """White is 1, 255 or 65535, the least that holds all; failing that, the samples' own range is used."""
    picture = decode(stored(Image.fromarray(values), "tiff"), "image/tiff")

    assert picture.grey.tolist() == [expected]


def test_first_frame_of_an_animation_is_taken() -> None:
    """An animated GIF is its first frame."""
    first, second = Image.fromarray(digit(0, 255)), Image.fromarray(digit(255, 0))

    picture = decode(stored(first, "gif", save_all=True, append_images=[second]), "image/gif")

    np.testing.assert_array_equal(picture.grey, digit(0, 255))


# --- transparency ---


@pytest.mark.parametrize(("ink", "paper"), [(0, 255), (90, 255), (255, 0), (200, 0)])
@pytest.mark.parametrize("file_format", ["png", "webp", "tiff"])
def test_ink_on_transparency_lies_on_paper_of_contrast(file_format: str, ink: int, paper: int) -> None:
    """Dark ink is laid on white, light ink on black."""
    opacity = digit(paper=0, ink=255)
    rgba = Image.fromarray(np.dstack([np.full_like(opacity, ink)] * 3 + [opacity]))

    picture = decode(stored(rgba, file_format, **LOSSLESS.get(file_format, {})), None)

    np.testing.assert_array_equal(picture.grey, digit(paper, ink))


@pytest.mark.parametrize(("grey", "paper"), [(200, 0), (50, 255)])
def test_what_is_translucent_all_over_lies_on_paper_of_contrast(grey: int, paper: int) -> None:
    """There is no border to go by."""
    page = np.full((8, 8), grey, np.uint8)
    half = np.full_like(page, 128)

    picture = decode(stored(Image.fromarray(np.dstack([page, page, page, half])), "png"), None)

    np.testing.assert_allclose(picture.grey, (grey + paper) / 2, atol=1)


@pytest.mark.parametrize(("paper", "ink"), [(255, 0), (0, 255)])
def test_page_with_transparent_corners_goes_on_in_them(paper: int, ink: int) -> None:
    """A picture that shows both light and dark, and ends with light or dark, is a page and not ink alone."""
    page = digit(paper, ink)
    opacity = np.full_like(page, 255)
    opacity[0, 0] = opacity[-1, -1] = 0

    picture = decode(stored(Image.fromarray(np.dstack([page, page, page, opacity])), "png"), None)

    np.testing.assert_array_equal(picture.grey, page)


@pytest.mark.parametrize("paper", [255, 0])
@pytest.mark.parametrize("file_format", ["png", "gif", "16 bit"])
def test_ink_with_soft_edges_is_laid_on_the_paper_that_they_go_over_into(file_format: str, paper: int) -> None:
    """A paper's colour, made transparent, is filled in again, whatever is visible of the edges."""
    soft = cv2.GaussianBlur(digit(paper, 255 - paper), (5, 5), 1.0)
    if file_format == "16 bit":
        data = deep_png(soft.astype(np.uint16) * 257, transparent=paper * 257)
    else:
        data = stored(Image.fromarray(soft), file_format, transparency=paper)

    np.testing.assert_array_equal(decode(data, None).grey, soft)


@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_transparent_colour_of_a_png_is_honoured(mode: str) -> None:
    """A PNG may name one colour as transparent instead of carrying alpha."""
    image = Image.fromarray(digit(paper=255, ink=0)).convert(mode)
    transparent = {"L": 0, "RGB": (0, 0, 0), "P": image.getpixel((5, 3))}[mode]  # the ink: white paper remains

    picture = decode(stored(image, "png", transparency=transparent), None)

    np.testing.assert_array_equal(picture.grey, digit(paper=255, ink=0))


def test_wholly_transparent_picture_is_white_paper() -> None:
    """Nothing to see, nothing to fail at."""
    assert decode(stored(Image.new("RGBA", (4, 4)), "png"), None).grey.tolist() == [[255] * 4] * 4


# --- orientation ---


@pytest.mark.parametrize("file_format", ["png", "jpeg", "webp", "tiff"])
def test_rotated_photograph_is_turned_upright(file_format: str) -> None:
    """EXIF orientation 6 says: turn by 90 degrees clockwise."""
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
    """Pixels that are sound are read whatever the camera wrote beside them."""
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
    """The bytes say what they are."""
    pixels = ramp(4, 4)

    np.testing.assert_array_equal(decode(stored(Image.fromarray(pixels), "png"), content_type).grey, pixels)


@pytest.mark.parametrize("content_type", ["text/plain", "image/svg+xml", "image/avif", "application/json", "png"])
def test_other_type_is_refused_by_name(content_type: str) -> None:
    """The message names the type and those that are read."""
    with pytest.raises(UnsupportedType, match=f"'{content_type}'.*image/png, image/jpeg".replace("+", r"\+")):
        decode(stored(Image.new("L", (4, 4)), "png"), content_type)


@pytest.mark.parametrize("value", [1e20, -1e20, 3e38])
def test_samples_that_are_all_the_same_are_black(value: float) -> None:
    """However large they are: nothing is divided by zero."""
    data = stored(Image.fromarray(np.full((4, 4), value, np.float32)), "tiff")

    with np.errstate(all="raise"):
        assert (decode(data, None).grey == 0).all()


@pytest.mark.parametrize("paper", [0, 30_000, 65_535])
def test_transparent_value_of_16_bit_grey_is_paper(paper: int) -> None:
    """It is compared in all of its 16 bits: what is a little lighter or darker shows."""
    page = np.full((12, 12), paper, np.uint16)
    page[3:9, 5:7] = 20_000
    page[0, 0] = paper ^ 1

    grey = decode(deep_png(page, transparent=paper), None).grey

    assert grey[6, 6] == 78
    assert (grey[6, :5] == 255).all()
    assert grey[0, 0] == round((paper ^ 1) / 257)


# --- what is quick ---


def test_small_plain_png_is_decoded_at_once() -> None:
    """In the very pixels that `decode` answers."""
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
    """It is left to a thread, and is not charged for."""

    def uncalled(width: int, height: int) -> None:
        raise AssertionError(f"charged for {width} x {height}")

    assert decode_at_once(data, None, uncalled) is None

"""Flattening: every mode and depth becomes 8 bits, and what is transparent lies on paper."""

import zlib
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from service.media.decoding import decode
from tests.service.media.files import LOSSLESS, digit, png, png_header, stored


def deep_png(page: NDArray[np.uint16], *, transparent: int) -> bytes:
    """Return a 16-bit PNG with a transparent value, which Pillow cannot write."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in page)
    return png(
        png_header(page.shape[1], page.shape[0], depth=16),
        (b"tRNS", transparent.to_bytes(2, "big")),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )


# --- on paper ---


def test_large_picture_is_laid_on_paper_as_a_small_one_is() -> None:
    """It is composited in bands of rows, without visible seams."""
    rows, columns = np.mgrid[:200, :30]
    samples = np.stack([rows // 2, columns * 4, rows // 4, rows + columns], axis=-1).astype(np.uint8)  # all dark
    page = Image.fromarray(samples, "RGBA")

    picture = decode(stored(page, "png"), "image/png")

    expected = Image.alpha_composite(Image.new("RGBA", page.size, "white"), page).convert("RGB")
    np.testing.assert_array_equal(picture.rgb(), np.asarray(expected))


# --- 8 bits ---


@pytest.mark.parametrize(
    ("mode", "file_format"), [("1", "png"), ("P", "gif"), ("CMYK", "jpeg"), ("1", "tiff"), ("CMYK", "tiff")]
)
def test_black_and_white_survive_in_every_mode(mode: str, file_format: str) -> None:
    """Black and white pixels stay black and white in every mode."""
    page = digit(paper=255, ink=0)
    options = {"quality": 100} if file_format == "jpeg" else {}

    picture = decode(stored(Image.fromarray(page).convert("RGB").convert(mode), file_format, **options), None)

    np.testing.assert_array_equal(picture.grey, page)


@pytest.mark.parametrize("file_format", ["png", "tiff"])
def test_16_bit_grey_is_scaled_and_not_cut(file_format: str) -> None:
    """0..65535 is scaled linearly to 0..255."""
    values = np.array([[0, 257, 32896, 65535]], np.uint16)

    picture = decode(stored(Image.fromarray(values), file_format), None)

    assert picture.grey.tolist() == [[0, 1, 128, 255]]


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
    """White is the smallest of 1, 255 and 65535 that no sample exceeds; otherwise the samples' range is stretched."""
    picture = decode(stored(Image.fromarray(values), "tiff"), "image/tiff")

    assert picture.grey.tolist() == [expected]


@pytest.mark.parametrize("value", [1e20, -1e20, 3e38])
def test_samples_that_are_all_the_same_are_black(value: float) -> None:
    """Equal samples of any size become 0, without a division by zero."""
    data = stored(Image.fromarray(np.full((4, 4), value, np.float32)), "tiff")

    with np.errstate(all="raise"):
        assert (decode(data, None).grey == 0).all()


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
    """Without a border, the paper contrasts with the visible pixels."""
    page = np.full((8, 8), grey, np.uint8)
    half = np.full_like(page, 128)

    picture = decode(stored(Image.fromarray(np.dstack([page, page, page, half])), "png"), None)

    np.testing.assert_allclose(picture.grey, (grey + paper) / 2, atol=1)


@pytest.mark.parametrize(("paper", "ink"), [(255, 0), (0, 255)])
def test_page_with_transparent_corners_goes_on_in_them(paper: int, ink: int) -> None:
    """A picture with both light and dark pixels is a page, and its border gives the colour of the paper."""
    page = digit(paper, ink)
    opacity = np.full_like(page, 255)
    opacity[0, 0] = opacity[-1, -1] = 0

    picture = decode(stored(Image.fromarray(np.dstack([page, page, page, opacity])), "png"), None)

    np.testing.assert_array_equal(picture.grey, page)


@pytest.mark.parametrize(("paper", "ink"), [(255, 0), (0, 255)])
def test_ink_along_the_edge_of_the_picture_is_no_border(paper: int, ink: int) -> None:
    """A hole in a framed page is filled like its surroundings, not like the frame."""
    page = np.full((12, 12), ink, np.uint8)
    page[1:-1, 1:-1] = paper
    opacity = np.full_like(page, 255)
    opacity[5:7, 5:7] = 0

    picture = decode(stored(Image.fromarray(np.dstack([page, page, page, opacity])), "png"), None)

    np.testing.assert_array_equal(picture.grey, page)


@pytest.mark.parametrize(("paper", "ink"), [(255, 0), (0, 255)])
def test_soft_shadow_of_a_page_is_not_its_border(paper: int, ink: int) -> None:
    """Pixels that are more transparent than opaque do not determine the paper."""
    page = np.pad(digit(paper, ink), 4, constant_values=ink)
    opacity = np.pad(np.full((12, 12), 255, np.uint8), 4, "linear_ramp", end_values=0)
    opacity[(opacity > 0) & (opacity < 255)] = 120

    picture = decode(stored(Image.fromarray(np.dstack([page, page, page, opacity])), "png"), None)

    np.testing.assert_array_equal(picture.grey[4:-4, 4:-4], digit(paper, ink))
    assert picture.grey[0, 0] == paper
    assert abs(int(picture.grey[8, 2]) - paper) == pytest.approx(120, abs=1)


@pytest.mark.parametrize("paper", [255, 0])
@pytest.mark.parametrize("file_format", ["png", "gif", "16 bit"])
def test_ink_with_soft_edges_is_laid_on_the_paper_that_they_go_over_into(file_format: str, paper: int) -> None:
    """Paper that was made transparent gets its colour back, whatever is visible of the soft edges."""
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
    """A picture without any visible pixel becomes white, without an error."""
    assert decode(stored(Image.new("RGBA", (4, 4)), "png"), None).grey.tolist() == [[255] * 4] * 4


@pytest.mark.parametrize("paper", [0, 30_000, 65_535])
def test_transparent_value_of_16_bit_grey_is_paper(paper: int) -> None:
    """It is compared in all 16 bits: slightly lighter or darker pixels stay visible."""
    page = np.full((12, 12), paper, np.uint16)
    page[3:9, 5:7] = 20_000
    page[0, 0] = paper ^ 1

    grey = decode(deep_png(page, transparent=paper), None).grey

    assert grey[6, 6] == 78
    assert (grey[6, :5] == 255).all()
    assert grey[0, 0] == round((paper ^ 1) / 257)

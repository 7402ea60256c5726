"""Decoding: every mode of every format, and nothing that is not a picture."""

import io
import struct
import subprocess
import sys
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from service.errors import TooLarge, UndecodableInput, UnsupportedType
from service.media.decoding import DecodeLimits, decode
from service.media.picture import Pixels

FORMATS = ("png", "jpeg", "webp", "gif", "bmp", "tiff")
LOSSLESS = {"webp": {"lossless": True}}


def stored(image: Image.Image, file_format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def png_header(width: int, height: int, depth: int = 8, colour: int = 0) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)


def ramp(height: int, width: int) -> Pixels:
    return np.linspace(0, 255, height * width).astype(np.uint8).reshape(height, width)


def digit(paper: int, ink: int) -> Pixels:
    page = np.full((12, 12), paper, np.uint8)
    page[3:9, 5:7] = ink
    return page


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


def test_light_paper_with_dark_ink_and_transparent_corners_lies_on_white() -> None:
    """A picture that shows both light and dark is a picture on paper, not light ink."""
    page = digit(paper=255, ink=0)
    opacity = np.full_like(page, 255)
    opacity[0, 0] = 0

    picture = decode(stored(Image.fromarray(np.dstack([page, page, page, opacity])), "png"), None)

    np.testing.assert_array_equal(picture.grey, page)


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


# --- what is no picture ---


def test_empty_body_is_undecodable() -> None:
    """Nothing is no picture."""
    with pytest.raises(UndecodableInput, match="the body is empty"):
        decode(b"", "image/png")


def test_text_called_png_is_undecodable() -> None:
    """A wrong signature is the client's mistake, not an unsupported type."""
    with pytest.raises(UndecodableInput, match="begins with b'hello wo'"):
        decode(b"hello world", "image/png")


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_file_cut_short_is_undecodable(file_format: str, share: float) -> None:
    """No half picture is passed off as a whole one."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    data = stored(Image.fromarray(noise), file_format)

    with pytest.raises(UndecodableInput, match=rf"(?i){file_format} picture"):
        decode(data[: int(share * len(data))], None)


@pytest.mark.parametrize("is_plain", [True, False])
def test_png_cut_anywhere_is_undecodable(is_plain: bool) -> None:  # noqa: FBT001 - a case
    """A PNG is whole only with its last byte, whichever decoder it is for."""
    data = stored(Image.fromarray(ramp(6, 6)), "png", **({} if is_plain else {"dpi": (72, 72)}))

    for length in range(1, len(data)):
        with pytest.raises(UndecodableInput, match=r"cut short|no picture"):
            decode(data[:length], None)


def test_png_with_any_byte_changed_is_undecodable() -> None:
    """Every chunk has a checksum, and it is compared; a changed size may also be too large."""
    data = stored(Image.fromarray(ramp(6, 6)), "png")

    for place in range(len(data)):
        changed = data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]
        with pytest.raises((UndecodableInput, TooLarge), match=r"damaged|cut short|begins with|pixels"):
            decode(changed, None)


@pytest.mark.parametrize(
    "pixel_data",
    [
        b"",
        zlib.compress(b"\0aaaa" * 3),  # a row is missing
        zlib.compress(b"\0aaaa" * 4)[:-6],  # the stream is cut
        zlib.compress(b"\0aaaa" * 4)[:-4] + b"1234",  # its own checksum is wrong
        zlib.compress(b"\x09aaaa" * 4),  # no such filter
    ],
)
def test_png_whose_checksums_are_right_and_pixels_are_not_is_undecodable(pixel_data: bytes) -> None:
    """A wrong stream in well-formed chunks is found by the decoder."""
    data = png(png_header(4, 4), (b"IDAT", pixel_data), (b"IEND", b""))

    with pytest.raises(UndecodableInput, match="not the data of 4 x 4 pixels"):
        decode(data, "image/png")


def test_png_that_does_not_begin_with_its_header_is_undecodable() -> None:
    """The header comes first."""
    data = png((b"tEXt", b"Title\0" + b"x" * 20), png_header(4, 4), (b"IEND", b""))

    with pytest.raises(UndecodableInput, match="b'tEXt', not with its header"):
        decode(data, None)


def test_png_of_two_headers_is_undecodable() -> None:
    """A second one could name another size, and decoders differ in which they believe."""
    data = png(png_header(16, 16), png_header(4000, 4000), (b"IDAT", b""), (b"IEND", b""))

    with pytest.raises(UndecodableInput, match="a second header at 33"):
        decode(data, None)


def test_png_of_very_many_chunks_is_undecodable() -> None:
    """A body made of empty chunks does not keep the decoder busy."""
    data = png(png_header(4, 4)) + png((b"IDAT", b""))[8:] * 100_001

    with pytest.raises(UndecodableInput, match="more than 100000 chunks"):
        decode(data, None)


@given(st.sampled_from(FORMATS), st.data())
@settings(max_examples=150, deadline=None)
def test_damaged_file_is_a_picture_or_a_client_error(file_format: str, data: st.DataObject) -> None:
    """Whatever a decoder raises is translated."""
    damaged = bytearray(stored(Image.fromarray(ramp(9, 9)), file_format))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))

    try:
        grey = decode(bytes(damaged), None).grey
    except (UndecodableInput, TooLarge):
        return
    assert grey.dtype == np.uint8


# --- limits ---


@pytest.mark.parametrize("colour_and_depth", [(0, 1), (0, 8), (2, 8), (3, 8), (6, 16)])
def test_enormous_png_in_a_small_file_is_refused_from_its_header(colour_and_depth: tuple[int, int]) -> None:
    """100 megapixels are refused before a pixel is decoded: this file has none."""
    colour, depth = colour_and_depth
    data = png(png_header(10_000, 10_000, depth, colour), (b"IDAT", b""), (b"IEND", b""))

    with pytest.raises(TooLarge, match="10000 x 10000 pixels; at most 16777216"):
        decode(data, "image/png")


@pytest.mark.parametrize("file_format", FORMATS)
def test_picture_over_the_limit_is_too_large_in_every_format(file_format: str) -> None:
    """The limit holds for every decoder, to the pixel."""
    data = stored(Image.new("RGB", (5, 4)), file_format)

    assert decode(data, None, DecodeLimits(max_pixels=20)).width == 5
    with pytest.raises(TooLarge, match="5 x 4 pixels; at most 19"):
        decode(data, None, DecodeLimits(max_pixels=19))


def test_side_over_the_limit_is_too_large() -> None:
    """A picture may be too long without having too many pixels."""
    with pytest.raises(TooLarge, match=r"16385 x 1 pixels; a side may be 1\.\.16383"):
        decode(stored(Image.new("L", (16_385, 1)), "png"), None)


def test_picture_without_a_pixel_is_undecodable() -> None:
    """A header that says zero is wrong, not small."""
    with pytest.raises(UndecodableInput, match="0 x 4 pixels"):
        decode(png(png_header(0, 4), (b"IEND", b"")), None)


def test_warnings_of_the_decoder_do_not_reach_the_log() -> None:
    """Pillow warns of damaged metadata; the service says nothing."""
    program = (
        "import io; from PIL import Image; from service.media.decoding import decode; f = io.BytesIO();"
        "Image.new('L', (8, 8)).save(f, 'jpeg', exif=b'Exif\\0\\0II*\\0\\x08\\0\\0\\0\\x05\\0');"
        "decode(f.getvalue(), None)"
    )

    outcome = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert outcome.stderr == ""

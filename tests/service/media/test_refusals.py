"""Decoding: files that are not pictures, or too large, are refused as the client's error."""

import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from service.errors import Overloaded, TooLarge, UndecodableInput
from service.media.decoding import MAX_RUN_BYTES, DecodeLimits, decode, size
from service.media.png import MAX_SURPLUS, PIECE
from tests.service.media.files import FORMATS, png, png_header, ramp, stored


def test_empty_body_is_undecodable() -> None:
    """An empty file is not a picture."""
    with pytest.raises(UndecodableInput, match="the body is empty"):
        decode(b"", "image/png")


def test_text_called_png_is_undecodable() -> None:
    """An unknown signature is undecodable, not an unsupported type."""
    with pytest.raises(UndecodableInput, match="begins with b'hello wo'"):
        decode(b"hello world", "image/png")


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_file_cut_short_is_undecodable(file_format: str, share: float) -> None:
    """A truncated picture is not decoded in part."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    data = stored(Image.fromarray(noise), file_format)

    with pytest.raises(UndecodableInput, match=rf"(?i){file_format} picture"):
        decode(data[: int(share * len(data))], None)


@pytest.mark.parametrize("is_plain", [True, False])
def test_png_cut_anywhere_is_undecodable(is_plain: bool) -> None:  # noqa: FBT001 - a case
    """A PNG that lacks even its last byte is refused, whichever decoder handles it."""
    data = stored(Image.fromarray(ramp(6, 6)), "png", **({} if is_plain else {"dpi": (72, 72)}))

    for length in range(1, len(data)):
        with pytest.raises(UndecodableInput, match=r"truncated|not a supported picture"):
            decode(data[:length], None)


def test_png_with_any_byte_changed_is_undecodable() -> None:
    """The checksum of every chunk is verified; a changed size may also be too large."""
    data = stored(Image.fromarray(ramp(6, 6)), "png")

    for place in range(len(data)):
        changed = data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]
        with pytest.raises((UndecodableInput, TooLarge), match=r"damaged|truncated|begins with|pixels"):
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
    """A damaged stream in well-formed chunks is detected by the decoder."""
    data = png(png_header(4, 4), (b"IDAT", pixel_data), (b"IEND", b""))

    with pytest.raises(UndecodableInput, match="do not decode to 4 x 4 pixels"):
        decode(data, "image/png")


def test_png_that_does_not_begin_with_its_header_is_undecodable() -> None:
    """A PNG must begin with its header."""
    data = png((b"tEXt", b"Title\0" + b"x" * 20), png_header(4, 4), (b"IEND", b""))

    with pytest.raises(UndecodableInput, match="b'tEXt', not with its header"):
        decode(data, None)


def test_png_of_two_headers_is_undecodable() -> None:
    """A second header could give another size, and decoders differ in which one they use."""
    data = png(png_header(16, 16), png_header(4000, 4000), (b"IDAT", b""), (b"IEND", b""))

    with pytest.raises(UndecodableInput, match="a second header at 33"):
        decode(data, None)


def test_png_of_very_many_chunks_is_undecodable() -> None:
    """A file of very many empty chunks is refused quickly."""
    data = png(png_header(4, 4)) + png((b"IDAT", b""))[8:] * 100_001

    with pytest.raises(UndecodableInput, match="more than 100000 chunks"):
        decode(data, None)


@given(st.sampled_from(FORMATS), st.data())
@settings(max_examples=150)
def test_damaged_file_is_a_picture_or_a_client_error(file_format: str, data: st.DataObject) -> None:
    """A decoder's exceptions are translated."""
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
    """100 megapixels are refused before decoding: the file holds no pixel data."""
    colour, depth = colour_and_depth
    data = png(png_header(10_000, 10_000, depth, colour), (b"IDAT", b""), (b"IEND", b""))

    with pytest.raises(TooLarge, match="10000 x 10000 pixels; at most 16000000"):
        decode(data, "image/png")


@pytest.mark.parametrize("file_format", FORMATS)
def test_picture_over_the_limit_is_too_large_in_every_format(file_format: str) -> None:
    """The limit applies to every decoder, to the pixel."""
    data = stored(Image.new("RGB", (5, 4)), file_format)

    assert decode(data, None, DecodeLimits(max_pixels=20).check).width == 5
    with pytest.raises(TooLarge, match="5 x 4 pixels; at most 19"):
        decode(data, None, DecodeLimits(max_pixels=19).check)


@pytest.mark.parametrize(
    ("width_and_height", "limit"), [((4096, 4096), 16_000_000), ((20_000, 16), 10**6), ((64, 64), 4095)]
)
def test_tiff_with_an_enormous_tile_is_too_large(width_and_height: tuple[int, int], limit: int) -> None:
    """A tile is decoded as a whole, even if the picture only covers a small part of it."""
    tags = [
        (256, 10),
        (257, 10),
        (258, 8),
        (259, 8),
        (262, 1),
        (277, 1),
        *zip((322, 323), width_and_height, strict=True),
    ]
    pixels = zlib.compress(bytes(100))
    begin = 8 + 2 + 12 * (len(tags) + 2) + 4
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in [*tags, (324, begin), (325, len(pixels))]]
    data = b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + bytes(4) + pixels

    with pytest.raises(TooLarge, match=f"{width_and_height[0]} x {width_and_height[1]} pixels"):
        decode(data, "image/tiff", DecodeLimits(limit).check)


@pytest.mark.parametrize(("file_bytes", "is_refused"), [(MAX_RUN_BYTES, False), (MAX_RUN_BYTES + 1, True)])
def test_bmp_of_very_many_runs_is_too_large(file_bytes: int, *, is_refused: bool) -> None:
    """Runs may be as short as a pixel, and are decoded one by one in Python."""
    colours = bytes(range(4)) * 256
    runs = b"\2\7\0\0" * 3 + b"\0\1"
    pixels_at = 14 + 40 + len(colours)
    header = struct.pack("<2sIHHI", b"BM", file_bytes, 0, 0, pixels_at)
    header += struct.pack("<IiiHHIIiiII", 40, 2, 3, 1, 8, 1, len(runs), 0, 0, 256, 0)
    data = (header + colours + runs).ljust(file_bytes, b"\0")

    if is_refused:
        with pytest.raises(TooLarge, match=f"{file_bytes} bytes; the maximum is {MAX_RUN_BYTES}"):
            decode(data, "image/bmp")
    else:
        assert decode(data, "image/bmp").grey.shape == (3, 2)


@pytest.mark.parametrize("sample_format", [1, 2])
def test_tiff_of_larger_samples_than_are_read_is_undecodable(sample_format: int) -> None:
    """Pillow misreads samples from 2**31 on as negative, which would turn white into black."""
    samples = np.array([[0, 2**31 - 1], [-1, -(2**31)]], np.int32)
    tag = struct.pack("<HHI", 339, 3, 1)
    data = stored(Image.fromarray(samples), "tiff").replace(tag + b"\2", tag + bytes([sample_format]))

    if sample_format == 1:
        with pytest.raises(UndecodableInput, match=r"samples of 2\*\*31 and more"):
            decode(data, "image/tiff")
    else:
        assert decode(data, "image/tiff").grey.tolist() == [[128, 255], [127, 0]]


@pytest.mark.parametrize("is_interlaced", [False, True])
@pytest.mark.parametrize("chunks", [1, 3])
@pytest.mark.parametrize(("surplus", "is_refused"), [(0, False), (100, False), (2 * MAX_SURPLUS, True), (10**8, True)])
def test_png_with_much_more_in_it_than_its_pixels_is_undecodable(
    surplus: int, chunks: int, *, is_interlaced: bool, is_refused: bool
) -> None:
    """Inflating stops early: a few kilobytes hold megabytes, and a few megabytes could hold gigabytes."""
    deflated = zlib.compress(bytes(2 * 5 * 6 + surplus))
    header = png_header(5, 5)[1][:-1] + bytes([is_interlaced])
    part = -(-len(deflated) // chunks)
    parts = [(b"IDAT", deflated[begin : begin + part]) for begin in range(0, len(deflated), part)]
    data = png((b"IHDR", header), *parts, (b"IEND", b""))

    if is_refused:
        with pytest.raises(UndecodableInput, match=r"more than \d+ bytes of pixels"):
            decode(data, "image/png")
    else:
        assert decode(data, "image/png").width == 5


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_png_holds_all_the_samples_of_its_pixels(mode: str) -> None:
    """The limit is exact for any number of samples per pixel."""
    side = 2 * int(MAX_SURPLUS**0.5)

    assert decode(stored(Image.new(mode, (side, side)), "png"), "image/png").width == side


def test_narrow_interlaced_png_holds_more_rows_than_it_is_high() -> None:
    """The seven passes have more rows than one picture, each with a filter byte and padding bits."""
    width, height = 5, 16_000
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    rows = sum(len(range(y, height, dy)) for x, y, dx, dy in passes if range(x, width, dx))
    header = png_header(width, height, depth=1)[1][:-1] + b"\1"
    data = png((b"IHDR", header), (b"IDAT", zlib.compress(bytes(2 * rows))), (b"IEND", b""))

    assert 2 * rows > 2 * height + MAX_SURPLUS
    assert decode(data, "image/png").grey.shape == (height, width)


@pytest.mark.parametrize(("surplus", "is_refused"), [(0, False), (2 * MAX_SURPLUS, True)])
def test_surplus_in_a_png_is_found_behind_many_pixels(surplus: int, *, is_refused: bool) -> None:
    """The surplus is also found in a single chunk that is inflated in pieces."""
    side = int(PIECE**0.5) + 20
    pixels = zlib.compress(bytes(side * (1 + side) + surplus))
    data = png(png_header(side, side), (b"IDAT", pixels), (b"IEND", b""))

    if is_refused:
        with pytest.raises(UndecodableInput, match=r"more than \d+ bytes of pixels"):
            decode(data, "image/png")
    else:
        assert decode(data, "image/png").width == side


def test_side_over_the_limit_is_too_large() -> None:
    """A picture may have too long a side without too many pixels."""
    with pytest.raises(TooLarge, match=r"16385 x 1 pixels; a side must be 1\.\.16383"):
        decode(stored(Image.new("L", (16_385, 1)), "png"), None)


def test_picture_without_a_pixel_is_undecodable() -> None:
    """A header with a side of zero is damaged."""
    with pytest.raises(UndecodableInput, match="0 x 4 pixels"):
        decode(png(png_header(0, 4), (b"IEND", b"")), None)


def test_warnings_of_the_decoder_do_not_reach_the_log() -> None:
    """Pillow's warnings about damaged metadata are not logged."""
    program = (
        "import io; from PIL import Image; from service.media.decoding import decode; f = io.BytesIO();"
        "Image.new('L', (8, 8)).save(f, 'jpeg', exif=b'Exif\\0\\0II*\\0\\x08\\0\\0\\0\\x05\\0');"
        "decode(f.getvalue(), None)"
    )

    outcome = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert outcome.stderr == ""


def test_what_a_decoder_says_of_a_damaged_picture_does_not_reach_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """A damaged file is reported to the client, not logged."""
    samples = b"\x15\x01\x03\0\x01\0\0\0"  # samples per pixel: one short integer
    data = stored(Image.new("RGB", (8, 8)), "tiff").replace(samples + b"\x03", samples + b"\x63")

    with pytest.raises(UndecodableInput, match="samples per pixel"):
        decode(data, "image/tiff")

    assert caplog.records == []


def test_picture_that_a_decoder_takes_for_a_bomb_is_too_large() -> None:
    """That includes a GIF whose first frame is larger than its screen, which Pillow itself refuses."""
    header = b"GIF89a\x01\0\x01\0\x80\0\0" + bytes(6)
    data = header + b",\0\0\0\0\xff\xff\xff\xff\0\x02\x02D\x01\0;"

    for work in (size, decode):
        with pytest.raises(TooLarge, match="GIF picture is too large"):
            work(data, "image/gif")


def test_want_of_memory_is_not_the_client_s_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """Running out of memory is not the client's error: the same file may be decoded later."""

    def out_of_memory(_: Image.Image) -> None:
        raise MemoryError

    monkeypatch.setattr("service.media.decoding.flattened", out_of_memory)

    with pytest.raises(Overloaded, match="no memory left to decode the JPEG picture"):
        decode(stored(Image.new("L", (8, 8)), "jpeg"), "image/jpeg")


@pytest.mark.parametrize("file_format", ["png", "jpeg", "webp", "gif", "bmp", "tiff"])
def test_size_is_known_without_the_pixels(file_format: str) -> None:
    """The size in the header equals the size of the decoded picture."""
    data = stored(Image.new("RGB", (31, 17)), file_format)

    assert size(data, f"image/{file_format}") == (31, 17)
    picture = decode(data, None)
    assert (picture.width, picture.height) == (31, 17)


def test_size_of_a_png_is_in_its_header() -> None:
    """Later chunks, such as text that inflates to megabytes, are not read."""
    assert size(png(png_header(31, 17), (b"zTXt", b"damaged")), "image/png") == (31, 17)

"""From the bytes of an upload to pixels: the one place where foreign data meets a decoder.

    content type -> signature -> size, from the header -> pixels -> upright -> opaque -> 8 bit

1. The declared type decides only whether the upload is read at all; the signature decides by which reader. No
   other reader can be reached, whatever the bytes say.
2. The size is checked before a pixel is decoded, so that a small file cannot ask for much memory.
3. Whatever a decoder raises leaves here as `UndecodableInput`.

Two decoders. OpenCV is three times faster than Pillow on a small PNG and takes the common case: a PNG of
nothing but a header, 8-bit grey or RGB pixels and an end. Before that, for either decoder, a PNG's chunks
must be whole and their checksums right: Pillow does not look at those of the pixels, nor for an end.
Everything else is Pillow's.

Transparency: the picture is laid on white paper or on black, whichever `_paper` finds that it had.
"""

import logging
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from service.errors import GlimpseError, TooLarge, UndecodableInput, UnsupportedType
from service.media.picture import Picture, Pixels

# Pillow warns of odd metadata and logs what is damaged, which is the client's affair. A filter for good, because
# `catch_warnings` changes those of every thread.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)

CONTENT_TYPES = ("image/png", "image/jpeg", "image/webp", "image/gif", "image/bmp", "image/tiff")
TOLERATED_TYPES = ("image/jpg", "image/x-ms-bmp", "image/apng", "application/octet-stream", "")

SIGNATURES: tuple[tuple[re.Pattern[bytes], type[ImageFile]], ...] = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), PngImageFile),
    (re.compile(rb"\xff\xd8\xff"), JpegImageFile),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), WebPImageFile),
    (re.compile(rb"GIF8[79]a"), GifImageFile),
    (re.compile(rb"BM"), BmpImageFile),
    (re.compile(rb"II[*+]\0|MM\0[*+]"), TiffImageFile),
)

PNG_HEADER = struct.Struct(">8xI4sIIBB3s4x")
PNG_PLAIN_CHUNKS = re.compile(rb"IHDR(IDAT)+IEND")
PNG_GREY, PNG_RGB = 0, 2
PNG_MOST_CHUNKS = 100_000

TIFF_PHOTOMETRIC, WHITE_IS_ZERO = 262, 0

SOFT_SHARE = 0.01
"""Of what is visible of a picture with alpha, how much may be of the other kind where all is dark, or all light."""
BAND_ROWS = 64

QUICK_BYTES = 4096
QUICK_PIXELS = 64 * 64

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what turns the picture upright."""


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """The largest picture that is decoded."""

    max_pixels: int = 16_000_000
    max_side: int = (1 << 14) - 1
    """The most that a WebP picture has, which an upload may be sent back as."""

    def check(self, width: int, height: int) -> None:
        """Refuse a picture by the size that its header claims.

        Raises:
            UndecodableInput: it has no pixel.
            TooLarge: it has too many.
        """
        if min(width, height) < 1:
            raise UndecodableInput(f"the picture is {width} x {height} pixels; a side must be 1..{self.max_side}")
        if max(width, height) > self.max_side:
            raise TooLarge(f"the picture is {width} x {height} pixels; a side may be 1..{self.max_side}")
        if width * height > self.max_pixels:
            raise TooLarge(f"the picture is {width} x {height} pixels; at most {self.max_pixels} in all are allowed")


SizeCheck = Callable[[int, int], None]
"""Takes a picture's width and height as its header claims them, and raises where that is too much."""


def size(data: bytes, content_type: str | None) -> tuple[int, int]:
    """Width and height of the first picture of a file, as its header claims them; no pixel is decoded.

    Most formats take time in proportion to the data: of a large file, give it the beginning, which mostly says it.

    Raises:
        UnsupportedType, UndecodableInput, TooLarge: as `decode` does.
    """
    reader = _reader(data, content_type)
    if reader is PngImageFile:
        return _png_header(data)[:2]
    with _translated(reader), reader(BytesIO(data)) as image:
        return image.size


def decode(data: bytes, content_type: str | None, check: SizeCheck = DecodeLimits().check) -> Picture:
    """Decode the first picture of a PNG, JPEG, WebP, GIF, BMP or TIFF file.

    Args:
        data: the whole file.
        content_type: as declared, parameters and all; without one, or with `application/octet-stream`, any of
            the six.
        check: called before a pixel is decoded.

    Raises:
        UnsupportedType: another type was declared.
        UndecodableInput: the body is empty, damaged, or none of the six.
        TooLarge: the picture is over a limit.
        GlimpseError: whatever else the check raises.
    """
    reader = _reader(data, content_type)
    is_png = reader is PngImageFile
    if is_png:
        check(*_png_header(data)[:2])
        if _is_plain_png(data):
            return _decode_plain_png(data)
    with _translated(reader), reader(BytesIO(data)) as image:
        if not is_png:
            check(*image.size)
        picture = _as_picture(_upright(image))
        # Where a TIFF file counts from white, Pillow inverts samples of up to 8 bits, and leaves larger ones.
        counts_from_white = (
            isinstance(image, TiffImageFile) and image.tag_v2.get(TIFF_PHOTOMETRIC, WHITE_IS_ZERO) == WHITE_IS_ZERO
        )
        return Picture(255 - picture.grey) if counts_from_white and image.mode[0] in "IF" else picture


def decode_at_once(data: bytes, content_type: str | None, check: SizeCheck) -> Picture | None:
    """As `decode`, of a file that takes about 100 microseconds if it is honest: a small plain PNG. None for any other.

    Raises:
        GlimpseError: as `decode` does.
    """
    if len(data) > QUICK_BYTES or _reader(data, content_type) is not PngImageFile:
        return None
    width, height, *_ = _png_header(data)
    if width * height > QUICK_PIXELS or not _is_plain_png(data):
        return None
    check(width, height)
    return _decode_plain_png(data)


def _reader(data: bytes, content_type: str | None) -> type[ImageFile]:
    declared = (content_type or "").partition(";")[0].strip().lower()
    if declared not in CONTENT_TYPES and declared not in TOLERATED_TYPES:
        raise UnsupportedType(f"{declared!r} is not read; send one of {', '.join(CONTENT_TYPES)}")
    if not data:
        raise UndecodableInput("the body is empty; it must be a picture")
    reader = next((reader for signature, reader in SIGNATURES if signature.match(data)), None)
    if reader is None:
        raise UndecodableInput(f"the body is no picture: it begins with {data[:8]!r}")
    return reader


@contextmanager
def _translated(reader: type[ImageFile]) -> Iterator[None]:
    """Whatever a decoder raises, as an error of ours."""
    try:
        yield
    except GlimpseError:
        raise
    except Image.DecompressionBombError as error:
        raise TooLarge(f"the {reader.format} picture is too large: {error}") from error
    except Exception as error:  # a decoder fed with foreign bytes may raise anything at all
        raise UndecodableInput(f"the {reader.format} picture cannot be decoded: {error}") from error


def _png_header(data: bytes) -> tuple[int, int, int, int, bytes]:
    """Width, height, bit depth, colour type and the three methods that a PNG's header claims.

    Raises:
        UndecodableInput: it is cut short, or begins with something else.
    """
    if len(data) < PNG_HEADER.size:
        raise UndecodableInput(f"the PNG picture is cut short: {len(data)} bytes")
    length, kind, *claimed = PNG_HEADER.unpack_from(data)
    if (length, kind) != (13, b"IHDR"):
        raise UndecodableInput(f"the PNG picture begins with a chunk {kind!r}, not with its header")
    width, height, depth, colour, methods = claimed
    return width, height, depth, colour, methods


def _is_plain_png(data: bytes) -> bool:
    """Whether a PNG holds 8-bit grey or RGB pixels and nothing else.

    Raises:
        UndecodableInput: it is cut short, or a checksum is wrong.
    """
    _, _, depth, colour, methods = _png_header(data)
    has_nothing_else = PNG_PLAIN_CHUNKS.fullmatch(_png_chunks(data)) is not None
    return has_nothing_else and depth == 8 and colour in (PNG_GREY, PNG_RGB) and not any(methods)


def _decode_plain_png(data: bytes) -> Picture:
    """Decode a PNG that `_is_plain_png`.

    Raises:
        UndecodableInput: the pixel data are wrong.
    """
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:  # Pillow would fill missing rows with black
        width, height, *_ = _png_header(data)
        raise UndecodableInput(f"the PNG picture is damaged: not the data of {width} x {height} pixels")
    if pixels.ndim == 2:
        return Picture(np.asarray(pixels, np.uint8))
    return _colour_picture(np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8))


def _png_chunks(data: bytes) -> bytes:
    """Return the types of all chunks up to the end, joined.

    Raises:
        UndecodableInput: the file ends before its end chunk, a checksum is wrong, or there are two headers.
    """
    view = memoryview(data)
    kinds: list[bytes] = []
    start = 8
    while not kinds or kinds[-1] != b"IEND":
        end = start + 12 + int.from_bytes(view[start : start + 4], "big")
        if end > len(data):
            raise UndecodableInput(f"the PNG picture is cut short: {len(data)} bytes, the chunk at {start} needs {end}")
        kind = data[start + 4 : start + 8]
        if zlib.crc32(view[start + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            raise UndecodableInput(f"the PNG picture is damaged: wrong checksum of the chunk {kind!r} at {start}")
        if kinds and kind == b"IHDR":  # decoders differ in which of them they believe
            raise UndecodableInput(f"the PNG picture is damaged: a second header at {start}")
        kinds.append(kind)
        if len(kinds) > PNG_MOST_CHUNKS:
            raise UndecodableInput(f"the PNG picture has more than {PNG_MOST_CHUNKS} chunks")
        start = end
    return b"".join(kinds)


def _upright(image: ImageFile) -> Image.Image:
    image.load()
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except (
        SyntaxError,
        ValueError,
        OSError,
        struct.error,
    ):  # damaged EXIF turns nothing; the pixels are sound
        return image
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


def _as_picture(image: Image.Image) -> Picture:
    if image.mode.startswith("I;16"):
        samples = np.asarray(image)
        grey = _in_8_bits(samples, black=0, span=65535)
        if "transparency" in image.info:
            is_clear = samples == image.info["transparency"]
            grey[is_clear] = _paper(grey, ~is_clear)
        return Picture(grey)
    if image.mode in ("I", "F"):
        return Picture(_stretched(np.asarray(image)))
    if image.has_transparency_data:
        return _colour_picture(np.asarray(_opaque(image.convert("RGBA"))))
    if image.mode in ("1", "L"):
        return Picture(np.asarray(image.convert("L")))
    return _colour_picture(np.asarray(image if image.mode == "RGB" else image.convert("RGB")))  # which would copy


def _colour_picture(rgb: Pixels) -> Picture:
    return Picture(grey=np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8), colour=rgb)


def _opaque(image: Image.Image) -> Image.Image:
    """Lay a picture with alpha on paper."""
    is_visible = np.asarray(image.getchannel("A")) >= 128
    paper = _paper(np.asarray(image.convert("L")), is_visible)
    return Image.alpha_composite(Image.new("RGBA", image.size, (paper, paper, paper, 255)), image).convert("RGB")


def _paper(grey: Pixels, is_visible: NDArray[np.bool_]) -> int:
    """White or black: in contrast to what is visible, or, where that is both light and dark, like its border.

    Ink alone is of one kind but for its soft edges, which go over into what was around it; a page that was cut out ends
    with itself. The picture's own edge is no border.
    """
    visible = np.count_nonzero(is_visible)
    light = np.count_nonzero(is_visible & (grey >= 128))
    if light <= SOFT_SHARE * visible:
        return 255
    if light >= (1 - SOFT_SHARE) * visible:
        return 0
    if visible == grey.size:
        return 255
    inside = cv2.erode(is_visible.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=1)
    border = grey[is_visible & (inside == 0)]
    return 0 if border.mean() < grey[is_visible].mean() else 255


def _stretched(values: NDArray[np.number]) -> Pixels:
    """Bring 32-bit samples, whose white no file declares, to 8 bits.

    White is the least of 1 (floats only), 255 and 65535 that no sample exceeds; where there is none, or a
    sample is negative, the darkest sample becomes black and the lightest white. What is not a finite number
    is 0.
    """
    low = min(_finite(band).min() for band in _bands(values))
    high = max(_finite(band).max() for band in _bands(values))
    whites = (1, 255, 65535) if np.issubdtype(values.dtype, np.floating) else (255, 65535)
    white = next((white for white in whites if low >= 0 and high <= white), None)
    if white is None:
        return _in_8_bits(values, black=low, span=high - low or 1)
    return _in_8_bits(values, black=0, span=white)


def _in_8_bits(values: NDArray[np.number], black: float, span: float) -> Pixels:
    pixels = np.empty(values.shape, np.uint8)
    for band, target in zip(_bands(values), _bands(pixels), strict=True):
        target[:] = np.rint((_finite(band) - black) * (255.0 / span))
    return pixels


def _finite(values: NDArray[np.number]) -> NDArray[np.float64]:
    return np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)


def _bands(values: NDArray[np.generic]) -> list[NDArray[Any]]:
    """Views of some rows each: in double precision at once, a large picture would take eight times its memory."""
    return [values[row : row + BAND_ROWS] for row in range(0, len(values), BAND_ROWS)]

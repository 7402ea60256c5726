"""Decodes uploads to pixels: the only place where untrusted data reaches a decoder.

    content type -> signature -> size, from the header -> pixels -> upright -> opaque -> 8 bit

1. The declared type decides only whether the upload is read at all; the file's signature selects the reader. No other
   reader is ever tried.
2. The size is checked before any pixel is decoded, so that a small file cannot make the service allocate much memory.
   Formats that can hold far more data than their pixels need are checked for that too, so that a small file cannot take
   much time.
3. Decoder errors become `UndecodableInput`, or a more specific Glimpse error.

There are two decoders. OpenCV is three times faster than Pillow on a small PNG and handles the common case: a PNG with
only a header, 8-bit grey or RGB pixels, and an end chunk. Pillow handles everything else. For both, `png` first checks
that a PNG's chunks are complete and their checksums correct: Pillow ignores the checksums of pixel data and a missing
end chunk. Compositing and conversion to 8 bits are in `flattening`.
"""

import logging
import re
import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO

import cv2
import numpy as np
from PIL import ExifTags, Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from service.errors import GlimpseError, Overloaded, TooLarge, UndecodableInput, UnsupportedType
from service.media import jpeg, png
from service.media.flattening import flattened, in_colour
from service.media.picture import MAX_PIXELS, Picture

# Pillow warns of odd metadata and logs damaged files, which concern the client only. The filter is permanent, because
# `catch_warnings` is not thread-safe.
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

TIFF_PHOTOMETRIC, WHITE_IS_ZERO = 262, 0
TIFF_TILE_WIDTH, TIFF_TILE_LENGTH = 322, 323
TIFF_SAMPLE_FORMAT, UNSIGNED = 339, 1
MAX_RUN_BYTES = 2**20
"""Maximum size of a run-length encoded BMP file: Pillow decodes it in Python, in up to a microsecond per byte."""

QUICK_BYTES = 4096
QUICK_PIXELS = 64 * 64
"""Maximum sizes, of the file and the picture, that `decode_at_once` accepts."""

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Transpositions that turn a picture upright, by EXIF orientation."""


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """Maximum size of a decoded picture."""

    max_pixels: int = MAX_PIXELS
    """Maximum of width x height."""
    max_side: int = (1 << 14) - 1
    """Maximum width and height in pixels: WebP's, because an upload may be returned as WebP."""

    def check(self, width: int, height: int) -> None:
        """Check the size in pixels that a picture's header claims.

        Raises:
            UndecodableInput: a side is 0.
            TooLarge: a side or the number of pixels is over its limit.
        """
        if min(width, height) < 1:
            raise UndecodableInput(f"the picture is {width} x {height} pixels; a side must be 1..{self.max_side}")
        if max(width, height) > self.max_side:
            raise TooLarge(f"the picture is {width} x {height} pixels; a side must be 1..{self.max_side}")
        if width * height > self.max_pixels:
            raise TooLarge(f"the picture is {width} x {height} pixels; at most {self.max_pixels} in all are allowed")


SizeCheck = Callable[[int, int], None]
"""Check of the width and height in pixels that a header claims; raises an error if they are too large."""


def size(data: bytes, content_type: str | None) -> tuple[int, int]:
    """Return width and height of a file's first picture from its header, without decoding any pixel.

    For most formats, the time grows with the data. Pass only the beginning of a large file: usually it has the header.

    Raises:
        UnsupportedType, UndecodableInput, TooLarge: as `decode` does.
    """
    reader = _reader(data, content_type)
    if reader is PngImageFile:
        return png.header(data)[:2]
    with _translated(reader), reader(BytesIO(data)) as image:
        return image.size


def decode(data: bytes, content_type: str | None, check: SizeCheck = DecodeLimits().check) -> Picture:
    """Decode the first picture of a PNG, JPEG, WebP, GIF, BMP or TIFF file.

    Args:
        data: the whole file.
        content_type: as declared, with any parameters; None, empty and `application/octet-stream` allow all formats.
        check: called with the width and height before any pixel is decoded.

    Raises:
        UnsupportedType: the declared type is not supported.
        UndecodableInput: the file is empty, damaged, or of another format.
        TooLarge: the picture is over a limit.
        Overloaded: there is not enough memory.
        GlimpseError: anything else that `check` raises.
    """
    reader = _reader(data, content_type)
    is_png = reader is PngImageFile
    if is_png:
        check(*png.header(data)[:2])
        if png.is_plain(data):
            return _decode_plain_png(data)
    elif reader is JpegImageFile:
        jpeg.check(data)
    with _translated(reader), reader(BytesIO(data)) as image:
        if not is_png:
            check(*image.size)
        if isinstance(image, TiffImageFile) and TIFF_TILE_WIDTH in image.tag_v2:  # a tile is decoded as a whole
            check(image.tag_v2[TIFF_TILE_WIDTH], image.tag_v2.get(TIFF_TILE_LENGTH, 1))
        if isinstance(image, BmpImageFile) and image.tile[0].codec_name == "bmp_rle" and len(data) > MAX_RUN_BYTES:
            raise TooLarge(f"the run-length encoded BMP file has {len(data)} bytes; the maximum is {MAX_RUN_BYTES}")
        upright = _upright(image)
        if _is_misread(image):
            raise UndecodableInput("the TIFF picture has samples of 2**31 and more, which are not supported")
        picture = flattened(upright)
        # For TIFF's WhiteIsZero, Pillow inverts samples of up to 8 bits, but not larger ones.
        counts_from_white = (
            isinstance(image, TiffImageFile) and image.tag_v2.get(TIFF_PHOTOMETRIC, WHITE_IS_ZERO) == WHITE_IS_ZERO
        )
        return Picture(255 - picture.grey) if counts_from_white and image.mode[0] in "IF" else picture


def decode_at_once(data: bytes, content_type: str | None, check: SizeCheck) -> Picture | None:
    """Decode a small plain PNG, which takes about 100 microseconds; return None for any other file.

    Raises:
        GlimpseError: as `decode` does.
    """
    if len(data) > QUICK_BYTES or _reader(data, content_type) is not PngImageFile:
        return None
    width, height, *_ = png.header(data)
    if width * height > QUICK_PIXELS or not png.is_plain(data):
        return None
    check(width, height)
    return _decode_plain_png(data)


def check_type(content_type: str | None) -> None:
    """Check the declared content type of an upload.

    Raises:
        UnsupportedType: it is not a type of the six formats, nor empty or `application/octet-stream`.
    """
    declared = (content_type or "").partition(";")[0].strip().lower()
    if declared not in CONTENT_TYPES and declared not in TOLERATED_TYPES:
        raise UnsupportedType(f"unsupported type {declared!r}; send one of {', '.join(CONTENT_TYPES)}")


def _reader(data: bytes, content_type: str | None) -> type[ImageFile]:
    check_type(content_type)
    if not data:
        raise UndecodableInput("the body is empty; it must be a picture")
    reader = next((reader for signature, reader in SIGNATURES if signature.match(data)), None)
    if reader is None:
        raise UndecodableInput(f"the body is not a supported picture: it begins with {data[:8]!r}")
    return reader


@contextmanager
def _translated(reader: type[ImageFile]) -> Iterator[None]:
    """Translate a decoder's exceptions into Glimpse's."""
    try:
        yield
    except GlimpseError:
        raise
    except MemoryError as error:
        raise Overloaded(f"there is no memory left to decode the {reader.format} picture") from error
    except Image.DecompressionBombError as error:
        raise TooLarge(f"the {reader.format} picture is too large: {error}") from error
    except Exception as error:  # a decoder may raise anything on untrusted data
        raise UndecodableInput(f"the {reader.format} picture cannot be decoded: {error}") from error


def _decode_plain_png(data: bytes) -> Picture:
    """Decode a PNG for which `png.is_plain` returns True.

    Raises:
        UndecodableInput: the pixel data are damaged.
    """
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:  # Pillow would fill missing rows with black
        width, height, *_ = png.header(data)
        raise UndecodableInput(f"the PNG picture is damaged: its data do not decode to {width} x {height} pixels")
    if pixels.ndim == 2:
        return Picture(np.asarray(pixels, np.uint8))
    return in_colour(np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8))


def _is_misread(image: ImageFile) -> bool:
    """Return whether Pillow misread large unsigned 32-bit samples as negative numbers."""
    return (
        isinstance(image, TiffImageFile)
        and image.mode == "I"
        and image.tag_v2.get(TIFF_SAMPLE_FORMAT, (UNSIGNED,))[0] == UNSIGNED
        and int(np.asarray(image).min()) < 0
    )


def _upright(image: ImageFile) -> Image.Image:
    image.load()
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except (
        SyntaxError,
        ValueError,
        OSError,
        struct.error,
    ):  # ignore damaged EXIF: the pixels are intact
        return image
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image

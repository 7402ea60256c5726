"""From the bytes of an upload to pixels: the one place where foreign data meets a decoder.

    content type -> signature -> size, from the header -> pixels -> upright -> opaque -> 8 bit

1. The declared type decides only whether the upload is read at all; the signature decides by which reader. No
   other reader can be reached, whatever the bytes say.
2. The size is checked before a pixel is decoded, so that a small file cannot ask for much memory; and how much there is
   to decode, where that can be far more than there are pixels, so that it cannot ask for much time.
3. Whatever a decoder raises leaves here as `UndecodableInput`.

Two decoders. OpenCV is three times faster than Pillow on a small PNG and takes the common case: a PNG of
nothing but a header, 8-bit grey or RGB pixels and an end. Before that, for either decoder, a PNG's chunks
must be whole and their checksums right (`png`): Pillow does not look at those of the pixels, nor for an end.
Everything else is Pillow's. What a picture is laid on, and how it becomes one of 8 bits, is in `flattening`.
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

TIFF_PHOTOMETRIC, WHITE_IS_ZERO = 262, 0
TIFF_TILE_WIDTH, TIFF_TILE_LENGTH = 322, 323
TIFF_SAMPLE_FORMAT, UNSIGNED = 339, 1
MAX_RUN_BYTES = 2**20
"""Largest BMP of run-length encoded pixels: their decoder is in Python, and takes up to a microsecond per byte."""

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

    max_pixels: int = MAX_PIXELS
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
        return png.header(data)[:2]
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
        Overloaded: there is no memory for it.
        GlimpseError: whatever else the check raises.
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
            raise TooLarge(f"the BMP picture has {len(data)} bytes of runs; at most {MAX_RUN_BYTES} are decoded")
        upright = _upright(image)
        if _is_misread(image):
            raise UndecodableInput("the TIFF picture has samples of 2**31 and more, which are not supported")
        picture = flattened(upright)
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
    width, height, *_ = png.header(data)
    if width * height > QUICK_PIXELS or not png.is_plain(data):
        return None
    check(width, height)
    return _decode_plain_png(data)


def check_type(content_type: str | None) -> None:
    """Refuse a file by its declared type.

    Raises:
        UnsupportedType: it is none of the six formats' types, and not one that says nothing.
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
    """Whatever a decoder raises, as an error of ours."""
    try:
        yield
    except GlimpseError:
        raise
    except MemoryError as error:
        raise Overloaded(f"there is no memory left to decode the {reader.format} picture") from error
    except Image.DecompressionBombError as error:
        raise TooLarge(f"the {reader.format} picture is too large: {error}") from error
    except Exception as error:  # a decoder fed with foreign bytes may raise anything at all
        raise UndecodableInput(f"the {reader.format} picture cannot be decoded: {error}") from error


def _decode_plain_png(data: bytes) -> Picture:
    """Decode a PNG that `png.is_plain`.

    Raises:
        UndecodableInput: the pixel data are wrong.
    """
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:  # Pillow would fill missing rows with black
        width, height, *_ = png.header(data)
        raise UndecodableInput(f"the PNG picture is damaged: not the data of {width} x {height} pixels")
    if pixels.ndim == 2:
        return Picture(np.asarray(pixels, np.uint8))
    return in_colour(np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8))


def _is_misread(image: ImageFile) -> bool:
    """Whether Pillow took large unsigned samples for negative ones, as it does with 32 bits."""
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
    ):  # damaged EXIF turns nothing; the pixels are sound
        return image
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image

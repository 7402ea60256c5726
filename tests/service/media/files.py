"""Picture files for tests of the decoder: written by a library, or assembled by hand."""

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

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
    """Return a stroke of ink on paper, [12 12]."""
    page = np.full((12, 12), paper, np.uint8)
    page[3:9, 5:7] = ink
    return page

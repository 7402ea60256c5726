"""Encodes frames as an animated GIF, PNG or WebP file; the same frames give the same bytes.

A GIF has at most 256 colours, and choosing a good palette costs more than everything else. Glimpse's frames are grey
with marks in pure red, green or blue, so the palette is fixed: 252 greys, three mark colours, and one entry for "same
as in the previous frame". GIF measures time in hundredths of a second. PNG and WebP keep every grey.

GIF and PNG files are written here, with Pillow's LZW coder and zlib, for two reasons. Pillow drops a frame that equals
the previous one, but clients count frames. And Pillow keeps all frames in memory, in up to eight bytes per pixel, where
one frame and the compressed data are enough.
"""

import struct
import zlib
from collections.abc import Iterable
from enum import Enum
from io import BytesIO

import cv2
import numpy as np
from PIL import Image

from service.media.picture import Pixels

HOLD_SECONDS = 1.0
"""Extra time for which the last frame is shown."""

GREYS = 252
RED_INDEX, GREEN_INDEX, BLUE_INDEX, UNCHANGED_INDEX = range(GREYS, GREYS + 4)
GREY_INDEX = np.rint(np.linspace(0, GREYS - 1, 256)).astype(np.uint8)
PALETTE = np.rint(np.linspace(0, 255, GREYS)).astype(np.uint8).repeat(3).tobytes() + bytes(
    (255, 0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0)
)

GIF_SCREEN = struct.Struct("<6sHHBBB")
GIF_CONTROL = struct.Struct("<2sBBHBB")
GIF_DESCRIPTOR = struct.Struct("<cHHHHBB")
GIF_256_COLOURS = 0xF7
GIF_MAX_FPS = 50
GIF_KEEP, GIF_KEEP_AND_UNCHANGED = 0x04, 0x05
GIF_LOOP_FOREVER = b"\x21\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00"

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_HEADER = struct.Struct(">IIBBBBB")
PNG_NUMBER = struct.Struct(">I")
PNG_ANIMATION = struct.Struct(">II")
PNG_FRAME = struct.Struct(">IIIIIHHBB")
PNG_GREY, PNG_RGB = 0, 2
PNG_LOOP_FOREVER, PNG_KEEP, PNG_REPLACE = 0, 0, 0
PNG_UP = 2


class AnimationFormat(Enum):
    """File format of an animation."""

    GIF = "gif"
    APNG = "apng"
    WEBP = "webp"

    @property
    def content_type(self) -> str:
        """Media type."""
        return f"image/{self.value}"


def animate(frames: Iterable[Pixels], fps: float, animation_format: AnimationFormat) -> bytes:
    """Encode frames as an endless loop that holds its last frame for one second longer.

    Args:
        frames: [H W] or [H W 3] uint8 each, consumed one at a time; grey, or grey with marks in pure red, green or
            blue. GIF maps other colours to one of these: the mark of the strongest channel.
        fps: frames per second.
        animation_format: GIF rounds frame times to hundredths of a second, with a minimum of two, because browsers
            replace shorter times with ten; WebP merges consecutive frames that are equal.
    """
    encoders = {AnimationFormat.GIF: _gif, AnimationFormat.APNG: _apng, AnimationFormat.WEBP: _webp}
    return encoders[animation_format](frames, fps)


def _ticks(count: int, fps: float, ticks_per_second: int) -> list[int]:
    """Return the duration of each frame in ticks; rounding errors do not accumulate."""
    ends = np.rint(np.arange(count + 1) * ticks_per_second / fps).astype(int)
    ends[-1] += round(HOLD_SECONDS * ticks_per_second)
    return [int(ticks) for ticks in np.diff(ends)]


def _gif(frames: Iterable[Pixels], fps: float) -> bytes:
    pictures: list[bytes] = []
    shown = np.empty((0, 0), np.uint8)
    for frame in frames:
        indices = _palette_indices(frame)
        changes = np.where(indices == shown, np.uint8(UNCHANGED_INDEX), indices) if pictures else indices
        pictures.append(Image.fromarray(changes).tobytes("gif", "L"))
        shown = indices
    height, width = shown.shape
    parts = [GIF_SCREEN.pack(b"GIF89a", width, height, GIF_256_COLOURS, 0, 0), PALETTE, GIF_LOOP_FOREVER]
    for t, ticks in enumerate(_ticks(len(pictures), min(fps, GIF_MAX_FPS), ticks_per_second=100)):
        disposal = GIF_KEEP if t == 0 else GIF_KEEP_AND_UNCHANGED
        parts += (
            GIF_CONTROL.pack(b"\x21\xf9", 4, disposal, ticks, UNCHANGED_INDEX, 0),
            GIF_DESCRIPTOR.pack(b",", 0, 0, width, height, 0, 8),
            pictures[t],
            b"\0",
        )
    return b"".join((*parts, b";"))


def _palette_indices(frame: Pixels) -> Pixels:
    if frame.ndim == 2:
        return GREY_INDEX[frame]
    red, green, blue = cv2.split(frame)
    indices = np.asarray(cv2.LUT(green, GREY_INDEX), np.uint8)
    is_marked = (red != green) | (blue != green)
    indices[is_marked] = RED_INDEX + np.argmax([red[is_marked], green[is_marked], blue[is_marked]], axis=0)
    return indices


def _apng(frames: Iterable[Pixels], fps: float) -> bytes:
    """Encode every frame in full; see https://www.w3.org/TR/png-3/#apng-frame-based-animation."""
    pictures: list[bytes] = []
    shape: tuple[int, ...] = (0, 0)
    for frame in frames:
        shape = frame.shape
        pictures.append(_png_pixels(frame))
    height, width = shape[:2]
    colour = PNG_GREY if len(shape) == 2 else PNG_RGB
    parts = [
        PNG_SIGNATURE,
        _png_chunk(b"IHDR", PNG_HEADER.pack(width, height, 8, colour, 0, 0, 0)),
        _png_chunk(b"acTL", PNG_ANIMATION.pack(len(pictures), PNG_LOOP_FOREVER)),
    ]
    number = 0
    for pixels, ticks in zip(pictures, _ticks(len(pictures), fps, ticks_per_second=1000), strict=True):
        frame_control = PNG_FRAME.pack(number, width, height, 0, 0, ticks, 1000, PNG_KEEP, PNG_REPLACE)
        parts.append(_png_chunk(b"fcTL", frame_control))
        is_first = number == 0  # the picture for readers without animation support; it has no sequence number
        parts.append(
            _png_chunk(b"IDAT", pixels) if is_first else _png_chunk(b"fdAT", PNG_NUMBER.pack(number + 1), pixels)
        )
        number += 1 if is_first else 2
    return b"".join((*parts, _png_chunk(b"IEND")))


def _png_pixels(frame: Pixels) -> bytes:
    """Deflate the rows with the Up filter, which leaves mostly zeros where pixels were enlarged to blocks."""
    rows = frame.reshape(len(frame), -1)
    filtered = np.full((len(rows), 1 + rows.shape[1]), PNG_UP, np.uint8)
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    coder = zlib.compressobj(1, strategy=zlib.Z_RLE)
    return coder.compress(filtered.tobytes()) + coder.flush()


def _png_chunk(kind: bytes, *data: bytes) -> bytes:
    body = b"".join((kind, *data))
    return b"".join((PNG_NUMBER.pack(len(body) - len(kind)), body, PNG_NUMBER.pack(zlib.crc32(body))))


def _webp(frames: Iterable[Pixels], fps: float) -> bytes:
    first, *others = map(Image.fromarray, frames)
    durations = _ticks(1 + len(others), fps, ticks_per_second=1000)
    file = BytesIO()
    first.save(
        file,
        "WEBP",
        save_all=True,
        append_images=others,
        duration=durations,
        loop=0,
        lossless=True,
        method=0,
        quality=0,
    )
    return file.getvalue()

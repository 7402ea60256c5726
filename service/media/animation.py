"""From frames to an animated GIF, PNG or WebP file; the same frames give the same bytes.

GIF has at most 256 colours, and finding good ones costs more than all the rest. Glimpse's frames are grey
with marks in pure red, green or blue, so the palette is fixed: 252 greys, three marks, and one entry for "as
in the frame before". The file is written here, around Pillow's LZW coder, because Pillow leaves out a frame
that equals the one before it, and a client counts frames. GIF's clock ticks in hundredths of a second. PNG
and WebP keep every grey.
"""

import struct
from collections.abc import Sequence
from enum import Enum
from io import BytesIO

import cv2
import numpy as np
from PIL import Image
from PIL.PngImagePlugin import Blend

from service.media.picture import Pixels

HOLD_SECONDS = 1.0

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
GIF_KEEP, GIF_KEEP_AND_UNCHANGED = 0x04, 0x05
GIF_LOOP_FOREVER = b"\x21\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00"


class AnimationFormat(Enum):
    """What an animation is sent as."""

    GIF = "gif"
    APNG = "apng"
    WEBP = "webp"

    @property
    def content_type(self) -> str:
        """The media type."""
        return f"image/{self.value}"


def animate(frames: Pixels, fps: float, animation_format: AnimationFormat = AnimationFormat.GIF) -> bytes:
    """Encode [T H W] or [T H W 3] as an endless loop that rests on its last frame for a second more.

    Args:
        frames: grey, or grey with marks in pure red, green or blue: GIF shows any other colour as the nearest
            of these.
        fps: frames a second.
        animation_format: GIF rounds a frame's time to hundredths of a second; WebP joins frames that are
            equal.
    """
    if animation_format is AnimationFormat.GIF:
        return _gif(_palette_indices(frames), _ticks(len(frames), fps, ticks_a_second=100))
    durations = _ticks(len(frames), fps, ticks_a_second=1000)
    images = [Image.fromarray(frame) for frame in frames]
    file = BytesIO()
    if animation_format is AnimationFormat.APNG:
        # Opaque frames look alike under both ways of blending; alternating, Pillow does not join equal ones.
        blends = [(Blend.OP_SOURCE, Blend.OP_OVER)[t % 2] for t in range(len(images))]
        options = {"blend": blends, "compress_level": 1}
    else:
        options = {"lossless": True, "method": 0, "quality": 0}
    images[0].save(
        file,
        "PNG" if animation_format is AnimationFormat.APNG else "WEBP",
        save_all=True,
        append_images=images[1:],
        duration=durations,
        loop=0,
        **options,
    )
    return file.getvalue()


def _ticks(count: int, fps: float, ticks_a_second: int) -> list[int]:
    """Return how long each frame is shown; rounding errors do not add up."""
    ends = np.rint(np.arange(count + 1) * ticks_a_second / fps).astype(int)
    ends[-1] += round(HOLD_SECONDS * ticks_a_second)
    return [int(ticks) for ticks in np.diff(ends)]


def _palette_indices(frames: Pixels) -> Pixels:
    if frames.ndim == 3:
        return GREY_INDEX[frames]
    count, height, width, _ = frames.shape
    red, green, blue = cv2.split(frames.reshape(count * height, width, 3))
    indices = np.asarray(cv2.LUT(green, GREY_INDEX), np.uint8)
    is_marked = (red != green) | (blue != green)
    indices[is_marked] = RED_INDEX + np.argmax([red[is_marked], green[is_marked], blue[is_marked]], axis=0)
    return indices.reshape(count, height, width)


def _gif(indices: Pixels, durations: Sequence[int]) -> bytes:
    count, height, width = indices.shape
    changes = np.where(indices[1:] == indices[:-1], np.uint8(UNCHANGED_INDEX), indices[1:])
    parts = [GIF_SCREEN.pack(b"GIF89a", width, height, GIF_256_COLOURS, 0, 0), PALETTE, GIF_LOOP_FOREVER]
    for t in range(count):
        frame, disposal = (indices[0], GIF_KEEP) if t == 0 else (changes[t - 1], GIF_KEEP_AND_UNCHANGED)
        parts += (
            GIF_CONTROL.pack(b"\x21\xf9", 4, disposal, durations[t], UNCHANGED_INDEX, 0),
            GIF_DESCRIPTOR.pack(b",", 0, 0, width, height, 0, 8),
            Image.fromarray(frame).tobytes("gif", "L"),
            b"\0",
        )
    return b"".join((*parts, b";"))

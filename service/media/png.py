"""Checks the structure of a PNG file, without decoding pixels: header, chunks, checksums, and size of the pixel data.

Decoders differ in how they treat damaged files and in which checksums they verify, so all chunks are checked here, for
every decoder. Decoders also inflate all the data there are: 16 MB can hold 16 GB for a single pixel. Here, inflating
stops once there are more bytes than the pixels need.
"""

import re
import struct
import zlib
from collections.abc import Iterable

from service.errors import UndecodableInput

HEADER = struct.Struct(">8xI4sIIBB3s4x")
PLAIN_CHUNKS = re.compile(rb"IHDR(IDAT)+IEND")
GREY, RGB = 0, 2
SAMPLES = {GREY: 1, RGB: 3, 3: 1, 4: 2, 6: 4}
"""Samples per pixel by colour type: 0 grey, 2 RGB, 3 palette, 4 grey with alpha, 6 RGB with alpha."""
INTERLACED = 1
MAX_SURPLUS = 2**14
"""Maximum number of inflated bytes beyond the pixels: some encoders leave a few."""
PIECE = 2**20
"""Maximum number of bytes inflated at a time."""
MAX_CHUNKS = 100_000


def header(data: bytes) -> tuple[int, int, int, int, bytes]:
    """Read a PNG's header.

    Returns:
        Width and height in pixels, bit depth, colour type, and one byte each for the compression, filter and interlace
        methods.

    Raises:
        UndecodableInput: the file is truncated, or does not begin with a header.
    """
    if len(data) < HEADER.size:
        raise UndecodableInput(f"the PNG picture is truncated: {len(data)} bytes")
    length, kind, *claimed = HEADER.unpack_from(data)
    if (length, kind) != (13, b"IHDR"):
        raise UndecodableInput(f"the PNG picture begins with a chunk {kind!r}, not with its header")
    width, height, depth, colour, methods = claimed
    return width, height, depth, colour, methods


def is_plain(data: bytes) -> bool:
    """Check a PNG's structure; return whether it holds 8-bit grey or RGB pixels, not interlaced, and nothing else.

    Raises:
        UndecodableInput: the file is truncated, a checksum is wrong, or there are more data than its pixels need.
    """
    width, height, depth, colour, methods = header(data)
    kinds, deflated = _chunks(data)
    row_bytes = 1 + (width * depth * SAMPLES.get(colour, max(SAMPLES.values())) + 7) // 8
    passes = 2 if methods[2] == INTERLACED else 1  # the seven passes of Adam7 take less than twice the bytes
    _check_inflated(deflated, passes * height * row_bytes + MAX_SURPLUS)
    has_nothing_else = PLAIN_CHUNKS.fullmatch(b"".join(kinds)) is not None
    return has_nothing_else and depth == 8 and colour in (GREY, RGB) and not any(methods)


def _check_inflated(deflated: Iterable[memoryview], max_bytes: int) -> None:
    """Refuse pixel data that inflate to more than `max_bytes`; all other damage is left for the decoder to find.

    Raises:
        UndecodableInput: there are more bytes.
    """
    inflate = zlib.decompressobj()
    size = 0
    for part in deflated:
        left: bytes | memoryview = part
        while left and not inflate.eof:
            try:
                size += len(inflate.decompress(left, min(PIECE, max_bytes + 1 - size)))
            except zlib.error:
                return
            if size > max_bytes:
                raise UndecodableInput(f"the PNG picture is damaged: more than {max_bytes} bytes of pixels")
            left = inflate.unconsumed_tail


def _chunks(data: bytes) -> tuple[list[bytes], list[memoryview]]:
    """Return the types of all chunks up to the end chunk, and the data of the IDAT chunks.

    Raises:
        UndecodableInput: the end chunk is missing, a checksum is wrong, there are two headers, or too many chunks.
    """
    view = memoryview(data)
    kinds: list[bytes] = []
    deflated: list[memoryview] = []
    start = 8
    while not kinds or kinds[-1] != b"IEND":
        end = start + 12 + int.from_bytes(view[start : start + 4], "big")
        if end > len(data):
            raise UndecodableInput(f"the PNG picture is truncated: {len(data)} bytes, the chunk at {start} needs {end}")
        kind = data[start + 4 : start + 8]
        if zlib.crc32(view[start + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            raise UndecodableInput(f"the PNG picture is damaged: wrong checksum of the chunk {kind!r} at {start}")
        if kinds and kind == b"IHDR":  # decoders differ in which header they use
            raise UndecodableInput(f"the PNG picture is damaged: a second header at {start}")
        kinds.append(kind)
        if kind == b"IDAT":
            deflated.append(view[start + 8 : end - 4])
        if len(kinds) > MAX_CHUNKS:
            raise UndecodableInput(f"the PNG picture has more than {MAX_CHUNKS} chunks")
        start = end
    return kinds, deflated

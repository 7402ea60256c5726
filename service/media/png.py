"""A PNG file as it is built, without a pixel: its header, and whether its chunks are whole.

Decoders differ in what they believe of a file that is damaged, and look at checksums where they like. Here every chunk
up to the end is looked at, whoever decodes it.
"""

import re
import struct
import zlib

from service.errors import UndecodableInput

HEADER = struct.Struct(">8xI4sIIBB3s4x")
PLAIN_CHUNKS = re.compile(rb"IHDR(IDAT)+IEND")
GREY, RGB = 0, 2
MOST_CHUNKS = 100_000


def header(data: bytes) -> tuple[int, int, int, int, bytes]:
    """Width, height, bit depth, colour type and the three methods that a PNG's header claims.

    Raises:
        UndecodableInput: it is cut short, or begins with something else.
    """
    if len(data) < HEADER.size:
        raise UndecodableInput(f"the PNG picture is cut short: {len(data)} bytes")
    length, kind, *claimed = HEADER.unpack_from(data)
    if (length, kind) != (13, b"IHDR"):
        raise UndecodableInput(f"the PNG picture begins with a chunk {kind!r}, not with its header")
    width, height, depth, colour, methods = claimed
    return width, height, depth, colour, methods


def is_plain(data: bytes) -> bool:
    """Whether a PNG holds 8-bit grey or RGB pixels and nothing else.

    Raises:
        UndecodableInput: it is cut short, or a checksum is wrong.
    """
    _, _, depth, colour, methods = header(data)
    has_nothing_else = PLAIN_CHUNKS.fullmatch(_chunks(data)) is not None
    return has_nothing_else and depth == 8 and colour in (GREY, RGB) and not any(methods)


def _chunks(data: bytes) -> bytes:
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
        if len(kinds) > MOST_CHUNKS:
            raise UndecodableInput(f"the PNG picture has more than {MOST_CHUNKS} chunks")
        start = end
    return b"".join(kinds)

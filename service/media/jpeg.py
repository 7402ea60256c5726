"""Checks the structure of a JPEG file, without decoding pixels, to refuse files that would take too long to decode.

The decoder visits every pixel in every scan, and Pillow's time is quadratic in the number of segments. A hundred
kilobytes can hold thousands of scans of a large picture, which take minutes; ordinary files have about ten scans.
"""

import re

from service.errors import UndecodableInput

MAX_SCANS = 100
MAX_MARKERS = 1000
"""Maximum number of markers outside the scan data. A large colour profile or preview takes a few hundred."""
MAX_FILL_BYTES = 1024
"""Maximum number of fill bytes before a marker; each takes the decoder a microsecond."""
START_OF_SCAN, END_OF_IMAGE, TEMPORARY = 0xDA, 0xD9, 0x01
RESTARTS = range(0xD0, 0xD8)
MARKER = re.compile(rb"(\xff+)([^\x00\xff])")
"""A marker after any fill bytes. Like decoders, the search skips stray bytes between segments."""
END_OF_DATA = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""A marker that ends scan data, in which 0xFF is only followed by 0 (stuffing), a restart marker or 0xFF (fill)."""


def check(data: bytes) -> None:
    """Refuse a file that would take too long to decode; all other damage is left for the decoder to find.

    Raises:
        UndecodableInput: the file has too many markers, scans or fill bytes.
    """
    position, markers, scans = 2, 0, 0
    while found := MARKER.search(data, position):
        marker, position = found[2][0], found.end()
        markers += 1
        scans += marker == START_OF_SCAN
        if len(found[1]) > MAX_FILL_BYTES:
            raise UndecodableInput(f"the JPEG picture has more than {MAX_FILL_BYTES} fill bytes before a marker")
        if markers > MAX_MARKERS:
            raise UndecodableInput(f"the JPEG picture has more than {MAX_MARKERS} segments")
        if scans > MAX_SCANS:
            raise UndecodableInput(f"the JPEG picture has more than {MAX_SCANS} scans")
        if marker == END_OF_IMAGE:
            return
        if marker == TEMPORARY or marker in RESTARTS:  # these have no length and no data
            continue
        position += int.from_bytes(data[position : position + 2], "big")
        if marker == START_OF_SCAN:
            end = END_OF_DATA.search(data, position)
            position = end.start() if end else len(data)

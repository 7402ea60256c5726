"""A JPEG file as it is built, without a pixel: whether its decoder will be done with it in time.

Every scan costs the decoder a look at every pixel, and Pillow's time goes with the square of the segments. A hundred
kilobytes can hold thousands of scans of a large picture, minutes of work; honest files have about ten.
"""

import re

from service.errors import UndecodableInput

MAX_SCANS = 100
MAX_MARKERS = 1000
"""Outside of the scans' data. A large colour profile or preview makes a few hundred."""
MAX_FILL_BYTES = 1024
"""Before a marker; each costs the decoder a microsecond."""
START_OF_SCAN, END_OF_IMAGE, TEMPORARY = 0xDA, 0xD9, 0x01
RESTARTS = range(0xD0, 0xD8)
MARKER = re.compile(rb"(\xff+)([^\x00\xff])")
"""Decoders skip what is between segments and does not belong there."""
END_OF_DATA = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""In a scan's data a 255 is followed by 0, by the number of a restart, or by another one, which is fill."""


def check(data: bytes) -> None:
    """Refuse a file that takes too long; what else is wrong with it is the decoder's to find.

    Raises:
        UndecodableInput: it has too many markers, scans or fill bytes.
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
        if marker == TEMPORARY or marker in RESTARTS:  # nothing belongs to them
            continue
        position += int.from_bytes(data[position : position + 2], "big")
        if marker == START_OF_SCAN:
            end = END_OF_DATA.search(data, position)
            position = end.start() if end else len(data)

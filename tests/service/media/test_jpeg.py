"""JPEG files that would take too long to decode are refused; ordinary files are accepted, whatever they contain."""

import struct
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from service.errors import UndecodableInput
from service.media.decoding import decode
from service.media.jpeg import MAX_FILL_BYTES, MAX_MARKERS, MAX_SCANS, check

BEGIN, END = b"\xff\xd8", b"\xff\xd9"
SCAN = b"\xff\xda" + struct.pack(">H", 8) + bytes(6) + b"\x12\xff\x00\x34\xff\xd0\x56\xff\xff\xd1\x78"
"""With stuffed bytes, restarts and fill in its data."""
LONG_SCAN = SCAN + b"\x12\xff\x00\xff\xd2" * 2 * MAX_MARKERS


def comment(size: int) -> bytes:
    """Return a comment segment whose content looks like scans."""
    return b"\xff\xfe" + struct.pack(">H", 2 + size) + (b"\xff\xda" * size)[:size]


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ([SCAN] * MAX_SCANS, ""),
        ([SCAN] * (MAX_SCANS + 1), "more than 100 scans"),
        ([comment(10)] * (MAX_MARKERS - 1), ""),
        ([comment(10)] * (MAX_MARKERS + 1), "more than 1000 segments"),
        ([b"\xff\xd0"] * (MAX_MARKERS + 1), "more than 1000 segments"),
        ([comment(60_000), SCAN], ""),
        ([b"\xff" * (MAX_FILL_BYTES - 1), comment(1)], ""),
        ([b"\xff" * MAX_FILL_BYTES, comment(1)], "more than 1024 fill bytes"),
        ([b"rubbish", SCAN, b"rubbish"] * 50, ""),
        ([b"rubbish", SCAN, b"rubbish"] * 101, "more than 100 scans"),
        ([LONG_SCAN] * MAX_SCANS, ""),
        ([LONG_SCAN] * (MAX_SCANS + 1), "more than 100 scans"),
        ([SCAN, END, bytes(2)] + [SCAN] * MAX_SCANS, ""),
    ],
    ids=[
        "scans", "too many scans", "segments", "too many segments", "too many restarts", "scans in a comment", "fill",
        "too much fill", "rubbish", "scans between rubbish", "long scans", "too many long scans", "beyond the end",
    ],
)  # fmt: skip
@pytest.mark.parametrize("is_cut", [False, True])
def test_files_that_take_long_are_refused(parts: list[bytes], says: str, *, is_cut: bool) -> None:
    """Scans, segments and fill bytes count; their lookalikes inside data and anything after the end do not."""
    data = BEGIN + b"".join(parts) + (b"" if is_cut else END)

    if says:
        with pytest.raises(UndecodableInput, match=says):
            check(data)
    else:
        check(data)


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"comment": b"\xff\xda" * 200}]
)
def test_honest_files_are_decoded(options: dict[str, object]) -> None:
    """Ordinary files pass, even if their data contain every byte value."""
    noise = np.random.default_rng(0).integers(0, 256, (90, 160, 3), dtype=np.uint8)
    file = BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 1
    Image.fromarray(noise).save(file, "JPEG", quality=95, exif=exif, icc_profile=bytes(200_000), **options)

    assert decode(file.getvalue(), "image/jpeg").width == 160


def test_file_of_many_scans_is_refused_before_it_is_decoded() -> None:
    """It is refused whatever else is wrong with it."""
    with pytest.raises(UndecodableInput, match="more than 100 scans"):
        decode(BEGIN + SCAN * 101 + END, "image/jpeg")

"""Uploaded pictures: one raw body, or files named `image` in a multipart form; decoded, and framed for a network."""

import re
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import call
from typing import TypeVar

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from export.manifest import Manifest
from service.api.context import Context, go_on_if_wanted
from service.api.exchange import Exchange
from service.api.memory import Share
from service.errors import InvalidParameter, TooLarge, UndecodableInput, UnsupportedType
from service.media.decoding import CONTENT_TYPES, DecodeLimits, decode, decode_at_once, size
from service.media.picture import BYTES_A_PIXEL, Picture, Pixels
from service.tasks import stn

S = TypeVar("S")
T = TypeVar("T")

FIELD = "image"
BOUNDARY = re.compile(rb"[ !#-\[\]-~]{1,70}")
"""Wider than RFC 2046, 5.1.1: whatever needs no escape between quotes."""
LONGEST_CONTENT_TYPE = 1024
"""Of a form; a longer one takes long to parse."""
QUICK_BYTES = 4096
"""A form of this size is parsed within about 100 microseconds."""
GLANCE_BYTES = 2**16
"""Of a file, for the size of its picture: a hostile one takes some milliseconds, and an honest one has it there."""
QUICK_SIDE = 64
"""A picture of at most this side is framed within about 100 microseconds."""

REQUEST_BODY = {
    **{content_type: {"schema": {"type": "string", "format": "binary"}} for content_type in CONTENT_TYPES},
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "required": [FIELD],
            "properties": {FIELD: {"type": "array", "items": {"type": "string", "format": "binary"}}},
        }
    },
}
"""For the OpenAPI document."""


@dataclass(frozen=True, slots=True)
class Upload:
    """One file as it was sent."""

    data: bytes
    content_type: str


class _FormParser(MultiPartParser):
    """Knows whether it has seen the end of the form; Starlette's own takes what there is of one that was cut off."""

    is_whole = False
    spool_max_size = sys.maxsize  # files stay in memory, where the body is

    def on_end(self) -> None:
        self.is_whole = True


async def uploads(exchange: Exchange, context: Context) -> list[Upload]:
    """The files of a request, in their order.

    Raises:
        UndecodableInput: the form is malformed.
        TooLarge: the body is over its limit.
        Overloaded: there is no memory left for it.
        InvalidParameter: a form without the field, or with too many files.
        Cancelled: the client left.
    """
    limits = context.settings.limits
    body = await exchange.body(limits.body_bytes)
    content_type = exchange.header(b"content-type")
    if content_type.partition(";")[0].strip().lower() != "multipart/form-data":
        return [Upload(body, content_type)]
    if len(content_type) > LONGEST_CONTENT_TYPE:
        raise UndecodableInput(f"the content type has {len(content_type)} characters; at most {LONGEST_CONTENT_TYPE}")
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    exchange.memory.take(len(body))  # once more, for the files
    with exchange.timed("decode"):
        if len(body) <= QUICK_BYTES:
            return _files(body, boundary, limits.files)
        return await context.off_loop(_files, body, boundary, limits.files)


async def decoded(exchange: Exchange, context: Context, files: Sequence[Upload]) -> list[Picture]:
    """The pictures in the files of a request.

    Raises:
        UndecodableInput: a file is empty, damaged or no picture.
        UnsupportedType: a content type that is not read.
        TooLarge: the pictures have too many pixels between them.
        Overloaded: there is no memory left for them.
    """
    allowance = _Allowance(context.settings.limits.pixels, exchange.memory)
    with exchange.timed("decode"):
        if len(files) == 1 and (picture := decode_at_once(files[0].data, files[0].content_type, allowance.admit)):
            return [picture]
        jobs = await context.ahead_of_codecs(_each, files, allowance.job)
        return await context.off_loop(_each, jobs, call)


def is_one_small(pictures: Sequence[Picture]) -> bool:
    """Whether this is a single picture so small that the event loop itself may work on it."""
    return len(pictures) == 1 and pictures[0].width <= QUICK_SIDE and pictures[0].height <= QUICK_SIDE


async def framed(exchange: Exchange, context: Context, pictures: Sequence[Picture], manifest: Manifest) -> list[Pixels]:
    """Pictures as a spatial transformer sees them, in their order."""
    with exchange.timed("decode"):
        if is_one_small(pictures):
            return [stn.network_input(pictures[0], manifest)]
        return await context.off_loop(lambda: [stn.network_input(picture, manifest) for picture in pictures])


class _Allowance:
    """What the pictures of a request may take, which stay in memory together."""

    def __init__(self, most_pixels: int, memory: Share) -> None:
        self._limits = DecodeLimits(most_pixels)
        self._left = most_pixels
        self._memory = memory

    def admit(self, width: int, height: int) -> None:
        """Take what a picture needs.

        Raises:
            TooLarge, Overloaded: as `decoded` does.
        """
        self._limits.check(width, height)
        if width * height > self._left:
            most = self._limits.max_pixels
            raise TooLarge(
                f"the picture is {width} x {height} pixels; {most - self._left} of the {most} pixels of a request "
                "are those of the files before it"
            )
        self._left -= width * height
        self._memory.take(BYTES_A_PIXEL * width * height)

    def job(self, file: Upload) -> Callable[[], Picture]:
        """What decodes a file. What its picture needs is taken now if the file's beginning says it, otherwise then.

        Raises:
            GlimpseError: as `decoded` does.
        """
        check = self._limits.check
        try:
            self.admit(*size(file.data[:GLANCE_BYTES], file.content_type))
        except UndecodableInput:
            if len(file.data) <= GLANCE_BYTES:
                raise
            check = self.admit
        return partial(decode, file.data, file.content_type, check)


def _each(files: Sequence[S], work: Callable[[S], T]) -> list[T]:
    """Work on every file; an error says on which of several."""
    done = []
    for number, file in enumerate(files, 1):
        go_on_if_wanted()
        try:
            done.append(work(file))
        except (UndecodableInput, UnsupportedType, TooLarge) as error:
            if len(files) == 1:
                raise
            raise type(error)(f"file {number} of {len(files)}: {error}") from error
    return done


def _files(body: bytes, boundary: bytes, most: int) -> list[Upload]:
    """The files of a form that is all there: parsing it waits for nothing."""
    parsing = _parsed(body, boundary, most)
    try:
        parsing.send(None)
    except StopIteration as done:
        files: list[Upload] = done.value
        return files
    raise AssertionError("this is a bug: a form in memory was waited for")


async def _parsed(body: bytes, boundary: bytes, most: int) -> list[Upload]:
    if not BOUNDARY.fullmatch(boundary):
        raise UndecodableInput(f"the multipart form's content type must name a boundary, not {boundary!r}")

    async def chunks() -> AsyncGenerator[bytes, None]:
        yield body
        yield b""

    # Not the header as it came: names would be decoded from any charset that it asks for, and some take minutes.
    headers = Headers({"content-type": f'multipart/form-data; boundary="{boundary.decode("latin-1")}"'})
    parser = _FormParser(headers, chunks(), max_files=most + 1, max_fields=16)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if "too many files" in error.message.lower():
            raise InvalidParameter(FIELD, f"must be at most {most} files, not more") from error
        raise UndecodableInput(f"the multipart form is malformed: {error.message}") from error
    except FormParserError as error:  # Starlette 0.49 lets it through, 1.10 does not
        raise UndecodableInput(f"the multipart form is malformed: {error}") from error
    try:
        if not parser.is_whole:
            raise UndecodableInput("the multipart form is cut off: its closing boundary is missing")
        files = form.getlist(FIELD)
        if len(files) > most:
            raise InvalidParameter(FIELD, f"must be at most {most} files, not {len(files)}")
        found = [Upload(await file.read(), file.content_type or "") for file in files if isinstance(file, UploadFile)]
        if not found:
            raise InvalidParameter(FIELD, "must be at least one file of the form, with a file name; there is none")
        return found
    finally:
        await form.close()

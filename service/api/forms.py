"""Multipart forms: the files named `image` in a body that is all there."""

import re
import sys
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from service.errors import InvalidParameter, UndecodableInput

MEDIA_TYPE = "multipart/form-data"
FIELD = "image"
BOUNDARY = re.compile(rb"[ !#-\[\]-~]{1,70}")
"""Wider than RFC 2046, 5.1.1: whatever needs no escape between quotes."""
LONGEST_CONTENT_TYPE = 1024
"""A longer one takes long to parse."""


@dataclass(frozen=True, slots=True)
class Upload:
    """One file as it was sent."""

    data: bytes
    content_type: str


def is_form(content_type: str) -> bool:
    """Whether a body of this content type is a form."""
    return content_type.partition(";")[0].strip().lower() == MEDIA_TYPE


def files(body: bytes, content_type: str, most: int) -> list[Upload]:
    """The files of a form, `most` of them or fewer, in their order.

    Raises:
        UndecodableInput: the form is malformed.
        InvalidParameter: it has too many files, or none.
    """
    parsing = _parsed(body, _boundary(content_type), most)
    try:
        parsing.send(None)  # it waits for nothing
    except StopIteration as done:
        found: list[Upload] = done.value
        return found
    raise AssertionError("this is a bug: a form in memory was waited for")


def _boundary(content_type: str) -> str:
    if len(content_type) > LONGEST_CONTENT_TYPE:
        raise UndecodableInput(f"the content type has {len(content_type)} characters; at most {LONGEST_CONTENT_TYPE}")
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not BOUNDARY.fullmatch(boundary):
        raise UndecodableInput(f"the multipart form's content type must name a boundary, not {boundary!r}")
    return boundary.decode("latin-1")


class _FormParser(MultiPartParser):
    """Knows whether it has seen the end of the form; Starlette's own takes what there is of one that was cut off."""

    is_whole = False
    spool_max_size = sys.maxsize  # files stay in memory, where the body is

    def on_end(self) -> None:
        self.is_whole = True


async def _parsed(body: bytes, boundary: str, most: int) -> list[Upload]:
    async def chunks() -> AsyncGenerator[bytes, None]:
        yield body
        yield b""

    # Not the header as it came: names would be decoded from any charset that it asks for, and some take minutes.
    headers = Headers({"content-type": f'{MEDIA_TYPE}; boundary="{boundary}"'})
    parser = _FormParser(headers, chunks(), max_files=most + 1, max_fields=16)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if "too many files" in error.message.lower():
            raise InvalidParameter(FIELD, f"must be at most {most} files") from error
        raise UndecodableInput(f"the multipart form is malformed: {error.message}") from error
    except FormParserError as error:  # Starlette 0.49 lets it through, 1.10 does not
        raise UndecodableInput(f"the multipart form is malformed: {error}") from error
    try:
        if not parser.is_whole:
            raise UndecodableInput("the multipart form is cut off: its closing boundary is missing")
        parts = form.getlist(FIELD)
        if len(parts) > most:
            raise InvalidParameter(FIELD, f"must be at most {most} files, not {len(parts)}")
        found = [Upload(await part.read(), part.content_type or "") for part in parts if isinstance(part, UploadFile)]
        if not found:
            raise InvalidParameter(FIELD, "must be a file of the form, with a file name; there is none")
        return found
    finally:
        await form.close()

"""Uploaded pictures, in a raw body or the files of a form: reads and decodes them within the limits of a request."""

from collections.abc import Callable, Sequence
from functools import partial
from operator import call
from typing import TypeVar

from service.api import forms
from service.api.budget import Share
from service.api.context import Context
from service.api.exchange import Exchange
from service.api.forms import Upload
from service.api.threads import raise_if_abandoned
from service.errors import TooLarge, UndecodableInput, UnsupportedType
from service.media.decoding import CONTENT_TYPES, DecodeLimits, check_type, decode, decode_at_once, size
from service.media.picture import BYTES_PER_PIXEL, Picture

S = TypeVar("S")
T = TypeVar("T")

QUICK_FORM_BYTES = 4096
"""Largest form that is parsed on the event loop: it takes up to about 100 microseconds."""
GLANCE_BYTES = 2**16
"""Bytes at the beginning of a file that are searched for the picture's size: ordinary files have it there, and the
search is quick."""

REQUEST_BODY = {
    **{content_type: {"schema": {"type": "string", "format": "binary"}} for content_type in CONTENT_TYPES},
    forms.MEDIA_TYPE: {
        "schema": {
            "type": "object",
            "required": [forms.FIELD],
            "properties": {forms.FIELD: {"type": "array", "items": {"type": "string", "format": "binary"}}},
        }
    },
}
"""Request body of uploads, for the OpenAPI document."""


async def read_uploads(exchange: Exchange, context: Context) -> list[Upload]:
    """Read the body of a request, and return its files in their order.

    Raises:
        UnsupportedType: the body is neither a form nor a picture.
        UndecodableInput: the form is malformed.
        TooLarge: the body is over its limit.
        Overloaded: there is too little memory left for it, or too many other requests are in progress.
        InvalidParameter: a form without the field, or with too many files.
        Cancelled: the client disconnected.
    """
    limits = context.settings.limits
    content_type = exchange.header(b"content-type")
    is_form = forms.is_form(content_type)
    if not is_form:
        check_type(content_type)
    with context.admission.receiving_body():
        body = await exchange.body(limits.body_bytes)
    if not is_form:
        return [Upload(body, content_type)]
    exchange.memory.take(len(body))  # once more, for the files
    with exchange.timed("decode"):
        if len(body) <= QUICK_FORM_BYTES:
            return forms.files(body, content_type, limits.files)
        return await context.codecs.run(forms.files, body, content_type, limits.files)


async def decode_uploads(exchange: Exchange, context: Context, files: Sequence[Upload]) -> list[Picture]:
    """Decode the files of a request, and return their pictures.

    Raises:
        UndecodableInput: a file is empty, damaged or not a picture.
        UnsupportedType: a file's content type is not supported.
        TooLarge: the pictures have too many pixels in total.
        Overloaded: there is too little memory left for them.
    """
    allowance = _Allowance(context.settings.limits.pixels, exchange.memory)
    with exchange.timed("decode"):
        if len(files) == 1 and (picture := decode_at_once(files[0].data, files[0].content_type, allowance.admit)):
            return [picture]
        jobs = await context.header_reader.run(_each, files, allowance.job)
        return await context.codecs.run(_each, jobs, call)


class _Allowance:
    """The pixels and the memory that are left for the pictures of a request, which are in memory at the same time."""

    def __init__(self, most_pixels: int, memory: Share) -> None:
        self._limits = DecodeLimits(most_pixels)
        self._left = most_pixels
        self._memory = memory

    def admit(self, width: int, height: int) -> None:
        """Count a picture against the limits, and take its memory.

        Raises:
            TooLarge, Overloaded: as `decode_uploads` does.
        """
        self._limits.check(width, height)
        if width * height > self._left:
            most = self._limits.max_pixels
            raise TooLarge(
                f"the picture is {width} x {height} pixels; the files before it have {most - self._left} of the "
                f"{most} pixels that a request may have"
            )
        self._left -= width * height
        self._memory.take(BYTES_PER_PIXEL * width * height)

    def job(self, file: Upload) -> Callable[[], Picture]:
        """Return a function that decodes a file.

        The picture is admitted now if the beginning of the file gives its size, otherwise when it is decoded.

        Raises:
            GlimpseError: as `decode_uploads` does.
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
    """Apply `work` to every file; with several files, an error names the one that failed."""
    done = []
    for number, file in enumerate(files, 1):
        raise_if_abandoned()
        try:
            done.append(work(file))
        except (UndecodableInput, UnsupportedType, TooLarge) as error:
            if len(files) == 1:
                raise
            raise type(error)(f"file {number} of {len(files)}: {error}") from error
    return done

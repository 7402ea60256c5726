"""Uploaded pictures: one raw body, or files named `image` in a multipart form."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from service.api.context import Context
from service.api.exchange import Exchange
from service.errors import InvalidParameter, UndecodableInput
from service.media.decoding import CONTENT_TYPES, DecodeLimits, decode
from service.media.picture import Picture

FIELD = "image"
QUICK_BYTES = 4096
"""A file of this size decodes within about 100 microseconds if its picture is small too."""
QUICK_PIXELS = 128 * 128

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

    def on_end(self) -> None:
        self.is_whole = True


async def pictures(exchange: Exchange, context: Context) -> list[Picture]:
    """The decoded pictures of a request, in their order.

    Raises:
        UndecodableInput: a file is empty, damaged or no picture; or the form is malformed.
        UnsupportedType: a content type that is not read.
        TooLarge: the body or a picture is over its limit.
        InvalidParameter: a form without the field, or with too many files.
        Cancelled: the client left.
    """
    limits = context.settings.limits
    body = await exchange.body(limits.body_bytes)
    content_type = exchange.header(b"content-type")
    with exchange.timed("decode"):
        if content_type.lower().startswith("multipart/form-data"):
            uploads = await _files(body, content_type, limits.files)
        else:
            uploads = [Upload(body, content_type)]
        decode_limits = DecodeLimits(max_pixels=limits.pixels)
        if len(uploads) == 1 and _is_quick(uploads[0].data):
            return [decode(uploads[0].data, uploads[0].content_type, decode_limits)]
        return await context.off_loop(
            lambda: [decode(upload.data, upload.content_type, decode_limits) for upload in uploads]
        )


def _is_quick(data: bytes) -> bool:
    """Whether a file is a small PNG that says it is a small picture."""
    if len(data) > QUICK_BYTES or not data.startswith(b"\x89PNG"):
        return False
    return int.from_bytes(data[16:20]) * int.from_bytes(data[20:24]) <= QUICK_PIXELS


async def _files(body: bytes, content_type: str, most: int) -> list[Upload]:
    async def chunks() -> AsyncGenerator[bytes, None]:
        yield body
        yield b""

    parser = _FormParser(Headers({"content-type": content_type}), chunks(), max_files=most + 1, max_fields=16)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if "too many files" in error.message.lower():
            raise InvalidParameter(FIELD, f"must be at most {most} files, not more") from error
        raise UndecodableInput(f"the multipart form is malformed: {error.message}") from error
    except KeyError as error:
        raise UndecodableInput("the multipart form's content type has no boundary") from error
    try:
        if not parser.is_whole:
            raise UndecodableInput("the multipart form is cut off: its closing boundary is missing")
        files = form.getlist(FIELD)
        if len(files) > most:
            raise InvalidParameter(FIELD, f"must be at most {most} files, not {len(files)}")
        uploads = [Upload(await file.read(), file.content_type or "") for file in files if isinstance(file, UploadFile)]
        if not uploads:
            raise InvalidParameter(FIELD, "must be at least one file of the form, with a file name; there is none")
        return uploads
    finally:
        await form.close()

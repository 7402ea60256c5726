"""Server-sent events: an answer that is sent while it is still being computed."""

import asyncio
from collections.abc import AsyncIterator, Mapping

from starlette.types import Send

from service.api.answer import to_json
from service.api.problems import document, status_of
from service.errors import GlimpseError, StreamTooSlow

MEDIA_TYPE = "text/event-stream"
MAX_STALL_SECONDS = 15.0
"""A client that takes nothing for so long is given up. No shorter, because the kernel's buffers empty in leaps that are
seconds apart; until `transport.STALL_SECONDS`, when the connection itself is given up, the client can be told."""
PIECE_BYTES = 2**16
"""Most that is sent at a time. Not much more must be taken within the longest stall."""

Event = tuple[str, object]
"""Name and data; the data is sent as JSON."""


def encoded(group: list[Event]) -> bytes:
    """Events as they are sent; NumPy arrays become lists."""
    return b"".join(b"event: %s\ndata: %s\n\n" % (name.encode(), to_json(data)) for name, data in group)


async def send_events(send: Send, events: AsyncIterator[bytes], headers: Mapping[str, str]) -> None:
    """Send encoded events, in the groups that they come in, and close the stream; an error becomes the last event.

    The first group is awaited before anything is sent: what fails before it can still be answered with a status.
    A slow client delays its own stream alone: what is computed meanwhile stays in the request's outputs. One that takes
    nothing at all for `MAX_STALL_SECONDS` is sent an error, and given up.

    Raises:
        GlimpseError: the request failed: before its first event, or since, when the client has been told already.
    """
    first = await anext(events, None)
    head = [(b"content-type", MEDIA_TYPE.encode()), (b"cache-control", b"no-store")]
    head.append((b"x-accel-buffering", b"no"))  # or nginx, in front, keeps the steps until there are many
    head += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    try:
        if first is not None:
            await _send(send, first)
        async for group in events:
            await _send(send, group)
    except GlimpseError as error:
        await _send(send, encoded([("error", document(status_of(error), error.code, str(error)))]), is_last=True)
        raise
    await _send(send, b"", is_last=True)


async def _send(send: Send, body: bytes, *, is_last: bool = False) -> None:
    for begin in range(0, max(len(body), 1), PIECE_BYTES):
        end = begin + PIECE_BYTES
        more_body = not is_last or end < len(body)
        message = {"type": "http.response.body", "body": body[begin:end], "more_body": more_body}
        try:
            # Not `wait_for`: in Python 3.11 it forgets a cancellation that comes as the send succeeds.
            async with asyncio.timeout(MAX_STALL_SECONDS):
                await send(message)
        except TimeoutError as error:
            detail = f"the client read nothing for {MAX_STALL_SECONDS:g} s; the stream ends here"
            raise StreamTooSlow(detail) from error

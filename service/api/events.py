"""Server-sent events: a response that is sent while it is being computed."""

import asyncio
from collections.abc import AsyncIterator, Mapping

from starlette.types import Send

from service.api.answer import to_json
from service.api.problems import document, status_of
from service.errors import GlimpseError, StreamTooSlow

MEDIA_TYPE = "text/event-stream"
MAX_STALL_SECONDS = 15.0
"""Seconds after which a stream ends with an error if its client reads nothing. It must not be much shorter, because the
kernel's buffers drain in bursts that are seconds apart; it must be shorter than `transport.STALL_SECONDS`, after which
the connection is aborted and no error can be sent."""
PIECE_BYTES = 2**16
"""Maximum number of bytes per message. A client must read about as many within `MAX_STALL_SECONDS`."""

Event = tuple[str, object]
"""Name and data of an event; the data is sent as JSON."""


def encoded(group: list[Event]) -> bytes:
    """Encode events as they are sent; NumPy arrays become lists."""
    return b"".join(b"event: %s\ndata: %s\n\n" % (name.encode(), to_json(data)) for name, data in group)


async def send_events(send: Send, events: AsyncIterator[bytes], headers: Mapping[str, str]) -> None:
    """Send groups of encoded events as they arrive, then close the stream; an error becomes the last event.

    Nothing is sent before the first group is there, so that an earlier error can still be sent with its status. A slow
    client delays only its own stream: what is computed meanwhile stays in the request's outputs. If a client reads
    nothing for `MAX_STALL_SECONDS`, its stream ends with an error.

    Raises:
        GlimpseError: the request failed: before its first event, or later, after the error was sent as an event.
    """
    first = await anext(events, None)
    head = [(b"content-type", MEDIA_TYPE.encode()), (b"cache-control", b"no-store")]
    head.append((b"x-accel-buffering", b"no"))  # otherwise nginx, as a reverse proxy, would buffer the events
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
            # Not `wait_for`: in Python 3.11 it swallows a cancellation that arrives just as the send completes.
            async with asyncio.timeout(MAX_STALL_SECONDS):
                await send(message)
        except TimeoutError as error:
            detail = f"the client read nothing for {MAX_STALL_SECONDS:g} s; the stream ends here"
            raise StreamTooSlow(detail) from error

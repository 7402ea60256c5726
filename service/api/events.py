"""Server-sent events: an answer that is sent while it is still being computed."""

import asyncio
from collections.abc import AsyncIterator, Mapping

from starlette.types import Send

from service.api.answer import to_json
from service.api.problems import document, status_of
from service.errors import GlimpseError, StreamTooSlow

MEDIA_TYPE = "text/event-stream"
LONGEST_STALL_SECONDS = 10.0
"""A client that takes nothing for so long is given up."""

Event = tuple[str, object]
"""Name and data; the data is sent as JSON."""


async def send_events(send: Send, events: AsyncIterator[list[Event]], headers: Mapping[str, str]) -> None:
    """Send events, in the groups that they come in, and close the stream; an error becomes the last event.

    The first group is awaited before anything is sent: what fails before it can still be answered with a status.
    A slow client delays its own stream alone: what is computed meanwhile stays in the request's outputs. One that takes
    nothing at all for `LONGEST_STALL_SECONDS` is sent an error, and given up.

    Raises:
        GlimpseError: the request failed before its first event; or not even its last one was taken.
    """
    first = await anext(events, None)
    head = [(b"content-type", MEDIA_TYPE.encode()), (b"cache-control", b"no-store")]
    head += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    try:
        if first is not None:
            await _send(send, first)
        async for group in events:
            await _send(send, group)
        last: list[Event] = []
    except GlimpseError as error:
        last = [("error", document(status_of(error), error.code, str(error)))]
    await _send(send, last, is_last=True)


async def _send(send: Send, group: list[Event], *, is_last: bool = False) -> None:
    message = {"type": "http.response.body", "body": _encode(group), "more_body": not is_last}
    try:
        # Not `wait_for`: in Python 3.11 it forgets a cancellation that comes as the send succeeds.
        async with asyncio.timeout(LONGEST_STALL_SECONDS):
            await send(message)
    except TimeoutError as error:
        raise StreamTooSlow(f"the client took nothing for {LONGEST_STALL_SECONDS:g} s; its stream is ended") from error


def _encode(group: list[Event]) -> bytes:
    return b"".join(b"event: %s\ndata: %s\n\n" % (name.encode(), to_json(data)) for name, data in group)

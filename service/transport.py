"""The way to the client: an end in two steps, and an end for clients that take next to nothing.

uvicorn closes a connection as soon as the last answer is written. To what a client sends after that the kernel answers
with a reset, which overtakes the answer: whoever sends too much would never hear so. Here the connection then ends in
two steps (RFC 9112, 9.6).
"""

import asyncio
from collections.abc import Callable
from typing import Any

STALL_SECONDS = 20.0
"""How often is looked at what a client takes. The kernel's buffers empty in leaps that are seconds apart."""
LEAST_BYTES = 4096 * int(STALL_SECONDS)
"""What a client takes in that time, or all that there is for it: one that takes less would keep its place for hours."""
LINGER_SECONDS = 5.0
"""For which a client that has its answer may go on to send."""


class ClientTransport:
    """A transport that can tell whether its client takes anything, and lets it finish what it is sending.

    Otherwise it is the transport that it wraps.
    """

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, is_sending: Callable[[], bool]
    ) -> None:
        """`is_sending`: whether the client is in the middle of a request, its head or its body."""
        self._transport = transport
        self._loop = loop
        self._is_sending = is_sending
        self._is_lingering = False
        self._written = 0
        self._is_watched = False

    def write(self, data: bytes) -> None:
        """Write; nothing once the connection is ending."""
        if not self._is_lingering:
            self._written += len(data)
            self._transport.write(data)

    def close(self) -> None:
        """Close once all is written; a client that takes nothing of it does not keep the connection."""
        if self._is_sending() and not self.is_closing():
            self._is_lingering = True
            self._transport.write_eof()
            self._transport.resume_reading()
            self._loop.call_later(LINGER_SECONDS, self._transport.close)
        else:
            self._transport.close()
        self.abort_if_stalled()

    def is_closing(self) -> bool:
        """Whether nothing is to be read or written any more; what comes in all the same is of no interest."""
        return self._is_lingering or self._transport.is_closing()

    def abort_if_stalled(self) -> None:
        """From now on, until all that was written has been taken, abort when it is taken too slowly."""
        if not self._is_watched:
            self._look(0)

    def _look(self, due: int) -> None:
        """See whether as many bytes as were due have been taken, since the connection began."""
        left = self._transport.get_write_buffer_size()
        taken = self._written - left
        self._is_watched = left > 0 and taken >= due
        if self._is_watched:
            self._loop.call_later(STALL_SECONDS, self._look, min(taken + LEAST_BYTES, self._written))
        elif left:
            self._transport.abort()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

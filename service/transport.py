"""The transport to a client: it closes in two steps, and aborts clients that read too slowly.

uvicorn closes a connection as soon as the last response is written. If the client is still sending, the kernel replies
with a reset, which overtakes the response: a client whose body is too large would never see the 413. Here such a
connection closes in two steps (RFC 9112, 9.6).
"""

import asyncio
from collections.abc import Callable
from typing import Any

STALL_SECONDS = 20.0
"""Seconds between two checks of a client's progress; kernel buffers drain in bursts that are seconds apart."""
MIN_BYTES_TAKEN = 4096 * int(STALL_SECONDS)
"""Bytes that a client must read between two checks; at a lower rate it could take up a place for hours."""
LINGER_SECONDS = 5.0
"""Seconds that a client may continue to send after its response."""


class ClientTransport:
    """Wraps a transport; aborts clients that read too slowly, and lets a client finish sending before the close."""

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, is_sending: Callable[[], bool]
    ) -> None:
        """`is_sending`: returns whether the client is in the middle of a request's head or body."""
        self._transport = transport
        self._loop = loop
        self._is_sending = is_sending
        self._is_lingering = False
        self._written = 0
        self._is_watched = False

    def write(self, data: bytes) -> None:
        """Write data; drop it once the connection is closing."""
        if not self._is_lingering:
            self._written += len(data)
            self._transport.write(data)

    def close(self) -> None:
        """Close once everything is written; abort if the client reads it too slowly."""
        if self._is_sending() and not self.is_closing():
            self._is_lingering = True
            self._transport.write_eof()
            self._transport.resume_reading()
            self._loop.call_later(LINGER_SECONDS, self._transport.close)
        else:
            self._transport.close()
        self.abort_if_stalled()

    def is_closing(self) -> bool:
        """Return whether the connection is closing; data that still arrives is ignored."""
        return self._is_lingering or self._transport.is_closing()

    def abort_if_stalled(self) -> None:
        """Check regularly, until the client has read all that was written; abort if it reads too slowly."""
        if not self._is_watched:
            self._look(0)

    def _look(self, due: int) -> None:
        """Abort if fewer than `due` bytes have been read since the connection began; otherwise check again later."""
        left = self._transport.get_write_buffer_size()
        taken = self._written - left
        self._is_watched = left > 0 and taken >= due
        if self._is_watched:
            self._loop.call_later(STALL_SECONDS, self._look, min(taken + MIN_BYTES_TAKEN, self._written))
        elif left:
            self._transport.abort()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

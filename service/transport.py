"""The way to the client: one write a response, and an end for clients that take nothing.

uvicorn writes the head of a response when it starts and the body when it comes, and each write is a system call: a
seventh of the event loop's time, where responses are as small and quick as here. Here the head waits for its body, and
both leave together; what is held back is written at the end of the loop's turn at the latest, so that a stream's head
does not wait for its first event.

uvicorn closes a connection as soon as the last answer is written. To what a client sends after that the kernel answers
with a reset, which overtakes the answer: whoever sends too much would never hear so. Here the connection then ends in
two steps (RFC 9112, 9.6).
"""

import asyncio
from collections.abc import Callable
from typing import Any

HEAD = b"HTTP/1.1 "
STALL_SECONDS = 20.0
"""A client that has taken nothing for so long will not. The kernel's buffers empty in leaps that are seconds apart."""
LINGER_SECONDS = 5.0
"""For which a client that has its answer may go on to send."""


class ClientTransport:
    """A transport that joins the head of a response to what follows it, and can tell whether its client takes anything.

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
        self._held = b""
        self._written = 0
        self._is_watched = False

    def write(self, data: bytes) -> None:
        """Write, or hold back the head of a response; nothing once the connection is ending."""
        if self._is_lingering:
            return
        if self._held:
            data, self._held = self._held + data, b""
        elif data.startswith(HEAD):
            self._held = data
            self._loop.call_soon(self._flush)
            return
        self._pass_on(data)

    def write_whole(self, data: bytes) -> None:
        """Write a response, head and body, at once."""
        if not self._is_lingering:
            held, self._held = self._held, b""
            self._pass_on(held + data)

    def close(self) -> None:
        """Write what was held back, then close; a client that takes nothing of it does not keep the connection."""
        self._flush()
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
        """From now on, until all that was written has been taken, abort when nothing is taken for `STALL_SECONDS`."""
        if not self._is_watched:
            self._look(-1)

    def _look(self, taken_before: int) -> None:
        left = self._transport.get_write_buffer_size()
        taken = self._written - left
        self._is_watched = left > 0 and taken > taken_before
        if self._is_watched:
            self._loop.call_later(STALL_SECONDS, self._look, taken)
        elif left:
            self._transport.abort()

    def _flush(self) -> None:
        if self._held:
            held, self._held = self._held, b""
            self._pass_on(held)

    def _pass_on(self, data: bytes) -> None:
        self._written += len(data)
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

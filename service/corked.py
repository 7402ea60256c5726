"""One write a response: a response's head waits for its body, and both leave in one system call.

uvicorn writes the head of a response when it starts and the body when it comes, and each write is a system call: a
seventh of the event loop's time, where responses are as small and quick as here. What is held back is written at the
end of the loop's turn at the latest, so that a stream's head does not wait for its first event.
"""

import asyncio
from typing import Any

HEAD = b"HTTP/1.1 "
FAREWELL_SECONDS = 5.0
"""For so long a connection that is being closed may take what it has not taken yet."""


class CorkedTransport:
    """A transport that joins the head of a response to what follows it; otherwise the transport that it wraps."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held = b""

    def write(self, data: bytes) -> None:
        """Write, or hold back the head of a response."""
        if self._held:
            data, self._held = self._held + data, b""
        elif data.startswith(HEAD):
            self._held = data
            self._loop.call_soon(self._flush)
            return
        self._transport.write(data)

    def close(self) -> None:
        """Write what was held back, then close; who takes nothing of it does not keep the connection."""
        self._flush()
        self._transport.close()
        if self._transport.get_write_buffer_size():
            self._loop.call_later(FAREWELL_SECONDS, self._transport.abort)

    def _flush(self) -> None:
        if self._held:
            held, self._held = self._held, b""
            self._transport.write(held)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

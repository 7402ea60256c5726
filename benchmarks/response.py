"""A parser of HTTP/1.1 responses for a load generator: it finds the status and the end. No sockets here.

    head -> body of a known length | chunks | everything until the connection closes

Trailers after the last chunk and interim responses (1xx) are not supported; servers do not send them unasked.
"""

from enum import Enum, auto


class _Part(Enum):
    HEAD = auto()
    BODY = auto()
    CHUNKS = auto()
    UNTIL_CLOSE = auto()


class ResponseReader:
    """Parses the responses of one connection, one after the other."""

    __slots__ = ("_is_last_chunk", "_left", "_part", "_rest", "is_last", "status")

    def __init__(self) -> None:
        self.status = 0
        """Status code of the latest response; 0 before the first."""
        self.is_last = False
        """Whether the server closes the connection after this response."""
        self._part = _Part.HEAD
        self._rest = b""
        self._left = 0
        self._is_last_chunk = False

    def feed(self, data: bytes) -> bool:
        """Take received bytes; return whether the response is complete.

        Raises:
            ValueError: the bytes are not HTTP/1.1, or go beyond the end of the response.
        """
        data, self._rest = self._rest + data, b""
        if self._part is _Part.HEAD:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._rest = data
                return False
            self._read_head(data[: end + 2].lower())
            data = data[end + 4 :]
        if self._part is _Part.UNTIL_CLOSE:
            return False
        if not (self._read_chunks(data) if self._part is _Part.CHUNKS else self._read_body(data)):
            return False
        self._part = _Part.HEAD
        return True

    def end(self) -> bool:
        """Return whether the connection, which has closed, did so as expected and not in the middle of a response."""
        return self._part is _Part.UNTIL_CLOSE or (self.is_last and self._part is _Part.HEAD)

    def _read_head(self, head: bytes) -> None:
        if not head.startswith(b"http/1."):
            raise ValueError(f"no HTTP/1.1 response: {head[:40]!r}")
        self.status = int(head[9:12])
        self.is_last = b"\r\nconnection: close\r\n" in head
        if (at := head.find(b"\r\ncontent-length:")) >= 0:
            self._part = _Part.BODY
            self._left = int(head[at + 17 : head.index(b"\r\n", at + 17)])
        elif b"\r\ntransfer-encoding: chunked\r\n" in head:
            self._part, self._left, self._is_last_chunk = _Part.CHUNKS, 0, False
        elif self.status in {204, 304}:
            self._part, self._left = _Part.BODY, 0
        else:
            self._part, self.is_last = _Part.UNTIL_CLOSE, True

    def _read_body(self, data: bytes) -> bool:
        self._left -= len(data)
        if self._left < 0:
            raise ValueError(f"{-self._left} bytes after the end of the response")
        return not self._left

    def _read_chunks(self, data: bytes) -> bool:
        while self._left <= len(data):
            data = data[self._left :]
            self._left = 0
            if self._is_last_chunk:
                return self._read_body(data)
            size, line_end, after = data.partition(b"\r\n")
            if not line_end:
                self._rest = data
                return False
            self._left = int(size.partition(b";")[0], 16) + 2  # includes the line end after the chunk
            self._is_last_chunk = self._left == 2
            data = after
        self._left -= len(data)
        return False

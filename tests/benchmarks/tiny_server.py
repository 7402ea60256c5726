"""A server on a thread of its own that answers what the request's path asks for, and counts.

`/answer`, or any unknown path: 200 with a body · `/status/429`: that status · `/chunks`: a body in chunks ·
`/until-close`: a body that ends with the connection · `/close`: a whole answer, then the end of the connection ·
`/break`: half an answer, then the end · `/never`: nothing · `/nonsense`: no HTTP ·
`/metrics`: what the service would say of itself.
"""

import asyncio
import threading
from collections import Counter, defaultdict
from types import TracebackType
from typing import Self, cast

from benchmarks.client import loop_factory

HEAD = b"HTTP/1.1 %d What\r\nContent-Length: %d\r\n%s\r\n"
METRICS = """\
# TYPE glimpse_requests counter
glimpse_requests_total{route="/draw/generate",code="200"} %d
glimpse_requests_total{route="/metrics",code="200"} %d
# TYPE glimpse_process_resident_memory_bytes gauge
glimpse_process_resident_memory_bytes{pid="1"} 1000
glimpse_process_resident_memory_bytes{pid="2"} 2000
"""


class TinyServer:
    """Use as a context manager; `url` is where it listens."""

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.heads: defaultdict[str, list[dict[str, str]]] = defaultdict(list)
        self.bodies: list[bytes] = []
        self.connections: list[_Connection] = []
        self._loop = loop_factory()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        started = self._loop.create_server(lambda: _Connection(self), "127.0.0.1", 0)
        self._server = asyncio.run_coroutine_threadsafe(started, self._loop).result()
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _stop(self) -> None:
        self._server.close()
        # Connections that are being accepted are tasks of the loop's own.
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}), return_exceptions=True)
        for connection in self.connections:
            connection.transport.abort()
        await asyncio.sleep(0)


class _Connection(asyncio.Protocol):
    def __init__(self, server: TinyServer) -> None:
        self._server = server
        self._received = b""
        self.requests = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._server.connections.append(self)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, is_whole, body = self._received.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
        if is_whole and len(body) == int(fields.get("content-length", 0)):
            self._received = b""
            path = head.decode().split()[1].partition("?")[0]
            self.requests += 1
            self._server.heads[path].append(fields)
            self._answer(path, body)

    def _answer(self, path: str, body: bytes) -> None:
        requests = self._server.requests
        requests[path] += 1
        self._server.bodies.append(body)
        write = self.transport.write
        match path.split("/")[1:]:
            case ["status", status]:
                write(HEAD % (int(status), 2, b"") + b"no")
            case ["chunks"]:
                write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                for piece in (b"5\r\n0\r\n\r\n\r\n", b"1", b"0;x=y\r\n0123456789abcdef\r", b"\n0\r\n", b"\r\n"):
                    write(piece)
            case ["until-close"]:
                write(b"HTTP/1.1 200 OK\r\n\r\nsome")
                self.transport.close()
            case ["close"]:
                write(HEAD % (200, 2, b"Connection: close\r\n") + b"ok")
                self.transport.close()
            case ["break"]:
                write(HEAD % (200, 10, b"") + b"half")
                self.transport.close()
            case ["never"]:
                pass
            case ["nonsense"]:
                write(b"SSH-2.0-nobody\r\n\r\n")
            case ["metrics"]:
                text = (METRICS % (requests.total() - requests[path], requests[path] - 1)).encode()
                write(HEAD % (200, len(text), b"") + text)
            case _:
                write(HEAD % (200, 6, b"") + b"answer")

"""One real server on a real socket for all tests of the contract, and servers in this process for variants of it."""

import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import httpx
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from service.app import Glimpse
from service.settings import Settings

START_SECONDS = 60.0
STOP_SECONDS = 60.0
LIMITS = {"BODY_BYTES": "1048576", "PIXELS": "1000000", "FILES": "8"}
"""Limits of the shared server: small, so that exceeding them is cheap."""

Server = tuple[str, subprocess.Popen[str], Callable[[str], None]]
"""URL, process, and a function that waits for the next line of the log with a given text in it."""


@contextmanager
def launched(repository: Path, **settings: str) -> Iterator[Server]:
    """Run `glimpse serve` as a process, yield once it says that it is ready, and stop it at the end."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GLIMPSE_")}
    environment = {**inherited, "GLIMPSE_MODELS": str(repository), **settings}
    command = [sys.executable, "-m", "glimpse", "serve", "--port", "0"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stderr is not None
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    reader = threading.Thread(target=_forward, args=(process.stderr, lines))
    reader.start()
    try:
        log = ""

        def await_line(text: str) -> None:
            nonlocal log
            line = ""
            while text not in line:
                line = lines.get(timeout=START_SECONDS)
                assert line, f"the server ended with {process.wait()}:\n{log}"
                log += line

        for _ in range(int(settings.get("GLIMPSE_WORKERS", "1"))):
            await_line("ready: ")
        found = re.search(r"running on http://(\S+):(\d+)", log)
        assert found is not None, log
        while True:  # one of several processes opens the port just after it has said that it is ready
            with suppress(ConnectionRefusedError), socket.create_connection((found[1], int(found[2]))):
                break
        yield f"http://{found[1]}:{found[2]}", process, await_line
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        assert process.wait(STOP_SECONDS) == 0
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its worker processes, too
        process.wait()
        reader.join()
        process.stderr.close()


def _forward(stream: IO[str], lines: queue.SimpleQueue[str]) -> None:
    """Keep the pipe empty, even if no test reads the log; an empty line means that it was closed."""
    for line in stream:
        lines.put(line)
    lines.put("")


@pytest.fixture(scope="session")
def launch(repository: Path) -> Callable[..., AbstractContextManager[Server]]:
    """Start a server for a single test, with settings as environment variables."""
    return lambda **settings: launched(repository, **settings)


@pytest.fixture(scope="session")
def server(repository: Path) -> Iterator[str]:
    """Return the shared server's URL."""
    with launched(repository, **{f"GLIMPSE_LIMITS__{name}": value for name, value in LIMITS.items()}) as (url, *_):
        yield url


@pytest.fixture(scope="session")
def client(server: str) -> Iterator[httpx.Client]:
    """Return a client of the shared server."""
    with httpx.Client(base_url=server, timeout=60) as client:
        yield client


Serve = Callable[..., AbstractAsyncContextManager[tuple[Glimpse, httpx.AsyncClient]]]


@pytest.fixture(scope="session")
def serve(repository: Path) -> Serve:
    """Serve in this process with the given settings, and yield (application, client)."""

    @asynccontextmanager
    async def serving(**settings: Any) -> AsyncIterator[tuple[Glimpse, httpx.AsyncClient]]:
        app = Glimpse(Settings(**{"models": repository, **settings}))
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with app.running() as loading:
            await loading
            async with httpx.AsyncClient(transport=transport, base_url="http://glimpse", timeout=60) as client:
                yield app, client

    return serving


@pytest.fixture(scope="session")
def digit() -> Image.Image:
    """Return a seven in white ink, 64 x 64 as the networks see pictures, smooth and without any symmetry."""
    page = Image.new("L", (64, 64))
    ImageDraw.Draw(page).line([(16, 16), (46, 20), (26, 52)], fill=230, width=6, joint="curve")
    return page.filter(ImageFilter.GaussianBlur(1.5))


@pytest.fixture(scope="session")
def digit_png(digit: Image.Image) -> bytes:
    """Return the same digit as a PNG file."""
    file = BytesIO()
    digit.save(file, "PNG")
    return file.getvalue()


Problem = Callable[[httpx.Response, int, str], dict[str, Any]]


@pytest.fixture(scope="session")
def problem() -> Problem:
    """Check that a response is a problem document with this status and code, and return the document."""

    def check(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
        assert response.status_code == status, response.text
        assert response.headers["content-type"] == "application/problem+json"
        document: dict[str, Any] = response.json()
        assert {"type", "title", "status", "detail", "code"} <= document.keys()
        assert (document["status"], document["code"]) == (status, code)
        assert document["detail"]
        return document

    return check


@pytest.fixture(scope="session")
def decoded() -> Callable[[bytes], "np.ndarray[Any, np.dtype[np.uint8]]"]:
    """Decode a picture file to an array, [H W] or [H W 3]."""
    return lambda data: np.asarray(Image.open(BytesIO(data)))

"""Termination: on a signal, a process announces its shutdown, finishes admitted requests, and exits."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import httpx
import pytest

from service.port import shrink_backlog

Problem = Callable[[httpx.Response, int, str], dict[str, Any]]
Launch = Callable[..., AbstractContextManager[tuple[str, subprocess.Popen[str], Callable[[str], None]]]]


@contextmanager
def streaming(launch: Launch, *, samples: int) -> Iterator[tuple[str, subprocess.Popen[str], Iterator[str]]]:
    """Yield a service that announces its shutdown for two seconds, and is streaming a response of 64 steps."""
    with (
        launch(GLIMPSE_DRAIN_NOTICE_SECONDS="2") as (url, process, _),
        httpx.Client(base_url=url, timeout=60) as client,
        client.stream("GET", f"/draw/generate?steps=64&count={samples}&format=sse") as stream,
    ):
        yield url, process, stream.iter_text()


def test_sigterm_is_announced_and_loses_nothing(launch: Launch, problem: Problem) -> None:
    """On SIGTERM `/readyz` turns to 503 while the stream goes on to its end; then the process exits with 0."""
    with streaming(launch, samples=64) as (url, process, received):
        text = next(received)
        process.send_signal(signal.SIGTERM)
        for _ in range(1000):
            answer = httpx.get(f"{url}/readyz")
            if answer.status_code != 200:
                break
        text += "".join(received)

        problem(answer, 503, "not-ready")
        assert text.count("event: step\n") == 64 * 64
        assert text.count("event: done\n") == 1
        assert process.wait(60) == 0


def test_sigterm_to_the_whole_group_is_one_signal(launch: Launch) -> None:
    """A process that gets the signal both from the sender and from its supervisor still drains."""
    with launch(GLIMPSE_WORKERS="2", GLIMPSE_DRAIN_NOTICE_SECONDS="3") as (url, process, _):
        os.killpg(process.pid, signal.SIGTERM)

        answers = set()
        announced_until = time.monotonic() + 1.5  # the supervisor takes up to half a second, the notice is longer
        while time.monotonic() < announced_until:
            answers.add(httpx.get(f"{url}/readyz").status_code)  # a port that is closed would raise
        assert answers <= {200, 503}
        assert 503 in answers
        assert process.wait(60) == 0


def test_process_ends_though_a_thread_does_not() -> None:
    """A codec thread may still be busy with abandoned work."""
    program = (
        "import threading; from service.termination import force_exit_soon;"
        "threading.Thread(target=threading.Event().wait).start(); force_exit_soon()"
    )

    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0


@pytest.mark.usefixtures("foreground")
@pytest.mark.parametrize("signals", [[signal.SIGHUP], [signal.SIGTERM, signal.SIGHUP], [signal.SIGHUP, signal.SIGHUP]])
def test_terminal_that_closes_is_a_shutdown_like_any_other(launch: Launch, signals: list[signal.Signals]) -> None:
    """Admitted requests are finished, and the process exits with 0, even if it closes during a shutdown."""
    with streaming(launch, samples=16) as (url, process, received):
        text = next(received)
        for number in signals:
            process.send_signal(number)
            for _ in range(1000):
                if httpx.get(f"{url}/readyz").status_code != 200:
                    break  # until here it had not heard of the signal
        text += "".join(received)

        assert text.count("event: step\n") == 64 * 16
        assert process.wait(60) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="what a full queue does with newcomers is the kernel's affair")
def test_nobody_is_connected_whom_we_would_not_accept() -> None:
    """Before the port closes, the kernel stops completing connections that would then be reset."""

    async def connect_twice() -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=128) as bound:
            listener = await asyncio.start_server(lambda *_: None, sock=bound, start_serving=False)
            shrink_backlog(listener.sockets)
            # The kernel queues one connection more than the backlog.
            with socket.create_connection(bound.getsockname(), timeout=5), pytest.raises(TimeoutError):
                socket.create_connection(bound.getsockname(), timeout=0.1)
            listener.close()

    asyncio.run(connect_twice())

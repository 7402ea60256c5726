"""Termination: signals, the drain before the server's own shutdown, and an exit in any case."""

import asyncio
import multiprocessing
import os
import signal
import threading
from collections.abc import Awaitable, Callable
from types import FrameType

import uvicorn

from service.port import shrink_backlog

LINGER_SECONDS = 0.2
EXIT_SECONDS = 1.0


class Termination:
    """Drains before the server closes its port: SIGTERM first makes the service unready, then reaches the server."""

    def __init__(self, drain: Callable[[], Awaitable[None]], notice_seconds: float) -> None:
        """`notice_seconds`: how long the port stays open at least, for load balancers to see that it is not ready."""
        self._drain = drain
        self._notice_seconds = notice_seconds
        self.is_asked_for = False

    def take_over(self) -> None:
        """Handle signals first from now on. Call it in the main thread's event loop, after the server set its own."""
        if threading.current_thread() is not threading.main_thread():
            return
        loop = asyncio.get_running_loop()
        servers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

        async def terminate(number: signal.Signals, frame: FrameType | None) -> None:
            handler = servers[number]
            server = getattr(handler, "__self__", None)
            try:
                await asyncio.gather(self._drain(), asyncio.sleep(self._notice_seconds))
                if isinstance(server, uvicorn.Server):
                    await _close_port(server)
            finally:
                if callable(handler):
                    handler(number, frame)

        def on_signal(number: int, frame: FrameType | None) -> None:
            # A second signal goes to the server itself, which drains nothing. Not in one of several processes: if the
            # whole group is signalled, the second one is the first again, passed on by the supervisor.
            for taken, handler in servers.items():
                signal.signal(taken, signal.SIG_IGN if multiprocessing.parent_process() else handler)
            # A closed terminal means an end, too. In a single process uvicorn does not handle SIGHUP, and another one
            # would kill it at once.
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            self.is_asked_for = True
            asked = signal.SIGTERM if number == signal.SIGHUP else signal.Signals(number)
            asyncio.run_coroutine_threadsafe(terminate(asked, frame), loop)

        for number in servers:
            signal.signal(number, on_signal)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as it is under `nohup`
            signal.signal(signal.SIGHUP, on_signal)


def force_exit_soon() -> None:
    """Exit within `EXIT_SECONDS`: the interpreter by itself would wait for threads that are not needed any more."""
    end = threading.Timer(EXIT_SECONDS, os._exit, [0])
    end.daemon = True
    end.start()


async def _close_port(server: uvicorn.Server) -> None:
    """Close the port before the server does: a request on its way over an open connection still gets its 503."""
    listeners = getattr(server, "servers", [])  # none before the start is complete
    for listener in listeners:
        shrink_backlog(listener.sockets)
    await asyncio.sleep(LINGER_SECONDS)
    for listener in listeners:
        listener.close()
    await asyncio.sleep(LINGER_SECONDS)

"""Termination: signal handlers, a drain before the server's own shutdown, and a forced exit."""

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
    """Drains the service on a signal, and only then passes the signal on to the server, which closes its port."""

    def __init__(self, drain: Callable[[], Awaitable[None]], notice_seconds: float) -> None:
        """`notice_seconds`: minimum time before the port closes, so that load balancers see the service not ready."""
        self._drain = drain
        self._notice_seconds = notice_seconds
        self.is_asked_for = False

    def take_over(self) -> None:
        """Install handlers in front of the server's. Call it on the main thread's event loop, once those are there."""
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
            # A second signal goes straight to the server, which does not drain. One of several processes ignores it: if
            # the whole group is signalled, it is the first signal again, passed on by the supervisor.
            for taken, handler in servers.items():
                signal.signal(taken, signal.SIG_IGN if multiprocessing.parent_process() else handler)
            # A closed terminal (SIGHUP) means a shutdown, too. In a single process uvicorn does not handle SIGHUP, and
            # a second one would kill the process at once.
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            self.is_asked_for = True
            asked = signal.SIGTERM if number == signal.SIGHUP else signal.Signals(number)
            asyncio.run_coroutine_threadsafe(terminate(asked, frame), loop)

        for number in servers:
            signal.signal(number, on_signal)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as it is under `nohup`
            signal.signal(signal.SIGHUP, on_signal)


def force_exit_soon() -> None:
    """Exit within `EXIT_SECONDS`: the interpreter itself would wait for threads that are no longer needed."""
    end = threading.Timer(EXIT_SECONDS, os._exit, [0])
    end.daemon = True
    end.start()


async def _close_port(server: uvicorn.Server) -> None:
    """Close the port before the server does, so that a request in flight on an open connection still gets its 503."""
    listeners = getattr(server, "servers", [])  # absent until startup is complete
    for listener in listeners:
        shrink_backlog(listener.sockets)
    await asyncio.sleep(LINGER_SECONDS)
    for listener in listeners:
        listener.close()
    await asyncio.sleep(LINGER_SECONDS)

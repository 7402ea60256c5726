"""The server: runs the application under uvicorn, in one process or in several on one port."""

import atexit
import contextlib
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Mapping
from functools import partial
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.supervisors import Multiprocess

from service import exit_codes
from service.metrics import MULTIPROCESS_VARIABLE
from service.port import SharedPort
from service.protocol import HttpProtocol
from service.settings import Settings

APPLICATION = "service.app:create"
FAREWELL_SECONDS = 5
"""Seconds that clients get to read their last responses."""
START_SECONDS = 30
"""Seconds that a replacement worker gets to load its models. uvicorn uses the same limit for all health checks."""


def serve(given: Mapping[str, object]) -> int:
    """Serve until a signal ends it, and return the exit code.

    Args:
        given: settings that override the environment, by name.
    """
    # Worker processes read their settings from the environment.
    os.environ.update({f"GLIMPSE_{name.upper()}": str(value) for name, value in given.items()})
    settings = Settings()
    if settings.workers > 1:
        directory = tempfile.mkdtemp(prefix="glimpse-metrics-")
        os.environ[MULTIPROCESS_VARIABLE] = directory
        atexit.register(shutil.rmtree, directory, ignore_errors=True)
    # ONNX Runtime sends telemetry, unless this is set before it is imported.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    options: dict[str, Any] = {
        "factory": True,
        "host": settings.host,
        "port": settings.port,
        "workers": settings.workers,
        "loop": "uvloop",
        "http": HttpProtocol,
        "ws": "none",
        "lifespan": "on",
        "log_config": _log_config(settings.log_level),
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,  # the client's address is not used
        "timeout_keep_alive": settings.keep_alive_seconds,
        "timeout_graceful_shutdown": FAREWELL_SECONDS,  # the drain comes before this, and has a limit of its own
        "timeout_worker_healthcheck": START_SECONDS,
    }
    if settings.workers == 1:
        uvicorn.run(APPLICATION, **options)
        return 0
    config = uvicorn.Config(APPLICATION, **options)
    supervisor = Supervisor(config, [SharedPort.taken_over(config.bind_socket())])
    supervisor.run()
    has_failed = any(process.exitcode == exit_codes.START_FAILURE for process in supervisor.processes)
    return exit_codes.START_FAILURE if has_failed else 0


class Supervisor(Multiprocess):
    """uvicorn's supervisor, except that it passes a shutdown on to its processes at once.

    By itself it looks for signals twice a second, and until then its processes would go on admitting requests.
    """

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket]) -> None:
        super().__init__(config, sockets)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, partial(self._pass_on, signal.getsignal(number)))

    def _pass_on(self, note: Any, number: int, frame: FrameType | None) -> None:
        for pid in [process.pid for process in self.processes if process.pid is not None]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        note(number, frame)


def _log_config(level: str) -> dict[str, Any]:
    """Return the logging configuration of every process: one format for our lines, the server's and the libraries'."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"level": level.upper(), "handlers": ["stderr"]},
        # A malformed form is the client's mistake; the response says so.
        "loggers": {"python_multipart": {"level": "ERROR"}},
    }

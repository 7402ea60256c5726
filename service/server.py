"""The server: runs the application under uvicorn, in one process or in several on one port."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Mapping
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
    supervisor = Multiprocess(config, [SharedPort.taken_over(config.bind_socket())])
    supervisor.run()
    has_failed = any(process.exitcode == exit_codes.START_FAILURE for process in supervisor.processes)
    return exit_codes.START_FAILURE if has_failed else 0


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

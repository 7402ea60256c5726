"""The supervisor of several processes."""

import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import uvicorn

from service.server import Supervisor


@pytest.mark.usefixtures("foreground")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_shutdown_reaches_the_processes_at_once(number: signal.Signals) -> None:
    """Not when the supervisor looks for signals the next time; and one that is gone already does not matter."""
    supervisor = Supervisor(uvicorn.Config("nowhere:app", workers=2), [])
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait(60)
    serving = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    supervisor.processes = [SimpleNamespace(pid=process.pid) for process in (gone, serving)]  # type: ignore[misc]

    os.kill(os.getpid(), number)

    assert serving.wait(60) == -signal.SIGTERM
    supervisor.handle_signals()
    assert supervisor.should_exit.is_set()

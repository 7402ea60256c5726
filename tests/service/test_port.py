"""A port that processes share: connections are distributed evenly, and only to processes that listen."""

import contextlib
import pickle
import socket
import sys

import pytest

from service.port import SharedPort

CONNECTIONS = 128

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="how a port is shared is the kernel's affair")


def passed_on(port: SharedPort) -> SharedPort:
    """Return the port as another process unpickles it."""
    copy: SharedPort = pickle.loads(pickle.dumps(port))
    return copy


def shared() -> SharedPort:
    """Return a port as uvicorn binds it."""
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", 0))
    return SharedPort.taken_over(bound)


def accepted(port: SharedPort) -> int:
    """Accept all connections that wait, and return their number."""
    port.settimeout(0.2)
    count = 0
    with contextlib.suppress(TimeoutError):
        while True:
            port.accept()[0].close()
            count += 1
    return count


def test_connections_are_dealt_out_evenly() -> None:
    """Each of two listening sockets gets its share, whichever accepts first; one that does not listen gets none."""
    with (
        shared() as port,
        passed_on(port) as one,
        passed_on(port) as other,
        contextlib.ExitStack() as clients,
    ):
        assert one.getsockname() == other.getsockname() == port.getsockname()
        for listener in (one, other):
            listener.listen(CONNECTIONS)
        for _ in range(CONNECTIONS):
            clients.enter_context(socket.create_connection(port.getsockname(), timeout=5))

        shares = accepted(one), accepted(other)

    assert sum(shares) == CONNECTIONS
    assert min(shares) > CONNECTIONS // 4  # less by chance once in 10^8 times


def test_nobody_else_gets_the_port() -> None:
    """A second service cannot bind the port, neither before any process listens nor later."""
    with shared() as port, socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            stranger.bind(port.getsockname())

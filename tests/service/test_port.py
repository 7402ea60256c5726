"""A port that processes share: dealt out evenly, and to those alone that listen."""

import contextlib
import pickle
import socket
import sys

import pytest

from service.port import SharedPort

CONNECTIONS = 128

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="how a port is shared is the kernel's affair")


def passed_on(port: SharedPort) -> SharedPort:
    """The port in another process, as pickling takes it there."""
    copy: SharedPort = pickle.loads(pickle.dumps(port))
    return copy


def shared() -> SharedPort:
    """A port as uvicorn binds it."""
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", 0))
    return SharedPort.taken_over(bound)


def accepted(port: SharedPort) -> int:
    """How many connections wait at it."""
    port.settimeout(0.2)
    count = 0
    with contextlib.suppress(TimeoutError):
        while True:
            port.accept()[0].close()
            count += 1
    return count


def test_connections_are_dealt_out_evenly() -> None:
    """Of two that listen, each has its share, whoever is quicker to accept; a port that does not listen has none."""
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
    """Before any process listens, a second service that starts is refused, as it is later."""
    with shared() as port, socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            stranger.bind(port.getsockname())

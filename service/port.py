"""The port: shared by several processes, and closed without resetting established connections."""

import os
import socket
from collections.abc import Callable, Iterable
from typing import Protocol


class SharedPort(socket.socket):
    """A bound port that worker processes share: unpickled in a process, it is a socket of its own with that address.

    If all processes accepted from one socket, the first one awake would get most connections: of 64 at once, one of two
    processes often got 50 to 64. Between several sockets, the Linux kernel distributes connections by a hash.
    """

    @classmethod
    def taken_over(cls, bound: socket.socket) -> "SharedPort":
        """Take over a bound socket, whose address its pickled copies can share from now on, but no second service."""
        port = cls(bound.family, bound.type, bound.proto, fileno=bound.detach())
        port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # uvicorn has set this to bind despite TIME_WAIT; left on, any process that sets it, too, could bind the port.
        port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        return port

    @classmethod
    def _with_address(cls, family: int, address: tuple[str, int]) -> "SharedPort":
        port = cls(family)
        port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        port.bind(address)
        return port

    def __reduce__(self) -> tuple[Callable[..., "SharedPort"], tuple[int, tuple[str, int]]]:
        """Unpickle as a new socket with the same address."""
        return SharedPort._with_address, (int(self.family), self.getsockname()[:2])


class Bound(Protocol):
    """A listening socket, or a wrapper of one."""

    def fileno(self) -> int:
        """Return the file descriptor."""
        ...


def shrink_backlog(listening: Iterable[Bound]) -> None:
    """Shrink the backlog, as connections that are established but not accepted are reset when the port is closed.

    New connections then wait, and are refused once the port is closed; only a handshake under way is reset.
    """
    for bound in listening:
        with socket.socket(fileno=os.dup(bound.fileno())) as same:
            same.listen(0)

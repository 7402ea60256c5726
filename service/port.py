"""The port: shared by several processes, and closed without losing connections that were already accepted."""

import os
import socket
from collections.abc import Callable, Iterable
from typing import Protocol


class SharedPort(socket.socket):
    """A bound port that is passed on, by pickling, to processes which listen on it, each with a socket of its own.

    If all accepted from one socket, whichever process is awake would take most: of 64 connections that came at once,
    one of two processes often had 50 or all. With a socket each, the kernel (Linux's) deals them out by a hash.
    """

    @classmethod
    def taken_over(cls, bound: socket.socket) -> "SharedPort":
        """Take over a bound socket, which now shares its address with those that are passed on, and with no other."""
        port = cls(bound.family, bound.type, bound.proto, fileno=bound.detach())
        port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # uvicorn set it to bind past TIME_WAIT; left on, another process that sets it too could bind the same port.
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
        """Become another socket in the process that it is passed on to."""
        return SharedPort._with_address, (int(self.family), self.getsockname()[:2])


class Bound(Protocol):
    """A listening socket, whatever wraps it."""

    def fileno(self) -> int:
        """Its file descriptor."""
        ...


def shrink_backlog(listening: Iterable[Bound]) -> None:
    """Have the kernel complete no more connections than are accepted; those in its queue are reset at the close.

    New connections wait, and are refused once the port is closed. A handshake that is under way then is reset.
    """
    for bound in listening:
        with socket.socket(fileno=os.dup(bound.fileno())) as same:
            same.listen(0)

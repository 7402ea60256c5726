"""The port: one that several processes share, and its end, where connections that nobody will accept are not begun."""

import os
import socket
from collections.abc import Callable, Iterable
from typing import Protocol


class SharedPort(socket.socket):
    """A bound port that is passed on, by pickling, to processes which listen on it, each with a socket of its own.

    From a socket that all accept from, whoever happens to be awake takes most: of 64 connections that come at once, one
    of two processes often had 50 or all. The kernel (Linux's, at least) deals them out by a hash instead.
    """

    @classmethod
    def taken_over(cls, bound: socket.socket) -> "SharedPort":
        """A bound socket, which from now on shares its address: with those that are passed on, and with nobody else."""
        port = cls(bound.family, bound.type, bound.proto, fileno=bound.detach())
        port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # It was bound with this, past connections that linger. Kept, it would let in whoever has it too.
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
        """In the process that it is passed on to it is another socket."""
        return SharedPort._with_address, (int(self.family), self.getsockname()[:2])


class Bound(Protocol):
    """A listening socket, whatever wraps it."""

    def fileno(self) -> int:
        """Its file descriptor."""
        ...


def let_nobody_queue_up(listening: Iterable[Bound]) -> None:
    """Have the kernel complete no more connections than are accepted: those in its queue are reset at the port's end.

    Newcomers are left unanswered, and refused once the port is closed. Whose handshake is under way then is reset.
    """
    for bound in listening:
        with socket.socket(fileno=os.dup(bound.fileno())) as same:
            same.listen(0)

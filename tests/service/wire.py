"""A transport without a socket: it remembers what was done to it."""

from collections.abc import Callable


class Wire:
    """The side of a connection that a protocol writes to; as a real one, it takes nothing after its end."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.untaken = 0
        self.is_ended = False
        self.is_closed = False
        self.is_aborted = False
        self.is_reading = True
        self.on_write: Callable[[], None] = lambda: None

    @property
    def written(self) -> bytes:
        return b"".join(self.writes)

    def write(self, data: bytes) -> None:
        assert not self.is_ended, "as a real transport says"
        self.writes.append(data)
        self.on_write()

    def write_eof(self) -> None:
        self.is_ended = True

    def close(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed

    def abort(self) -> None:
        self.is_aborted = True

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True

    def get_write_buffer_size(self) -> int:
        return self.untaken

    def get_extra_info(self, _: str) -> None:
        return None

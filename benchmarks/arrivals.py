"""When requests are to be sent. Policy only: no clock, no connections; times in seconds from the run's begin.

*Closed loop*: as many clients as there are connections, each of which sends its next request when its last one is
answered. It finds the throughput; its latency is flattered, because a slow server is asked less often.

*Open loop*: requests are due at times that do not depend on the server. If none can be sent, because all connections
are waiting, the next free one takes it, and its latency counts from when it was due.
"""

import math
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray


class Arrivals(Protocol):
    """Decides whether a free connection sends something."""

    @property
    def seconds(self) -> float:
        """How long requests are due."""
        ...

    def take(self, now: float) -> float | None:
        """When the request was due that a free connection is to send now; None if there is none."""
        ...

    def wake_at(self) -> float | None:
        """When to ask again although no connection has become free; None if that is no use."""
        ...

    def is_over(self, now: float) -> bool:
        """Whether nothing is to be sent from now on."""
        ...

    def left(self) -> list[float]:
        """When those requests were due that were never sent."""
        ...


class ClosedLoop:
    """Something is always due, up to a time and a number."""

    def __init__(self, seconds: float, count: int | None = None) -> None:
        self.seconds = seconds
        self._left = count

    def take(self, now: float) -> float | None:
        """`now`, until the end."""
        if self.is_over(now):
            return None
        if self._left is not None:
            self._left -= 1
        return now

    def wake_at(self) -> float:
        """The end: no connection may be left to notice it."""
        return self.seconds

    def is_over(self, now: float) -> bool:
        """Whether the time or the number is used up."""
        return now >= self.seconds or self._left == 0

    def left(self) -> list[float]:
        """None: nothing is due without a connection."""
        return []


class OpenLoop:
    """Requests are due at given times; what could not be sent before `until` never is."""

    def __init__(self, times: NDArray[np.float64], seconds: float, until: float = math.inf) -> None:
        self.seconds = seconds
        self._until = until
        self._times: list[float] = times.tolist()
        self._next = 0

    @classmethod
    def poisson(cls, rate: float, seconds: float, *, until: float = math.inf) -> Self:
        """Independent arrivals, `rate` a second."""
        generator = np.random.default_rng(1)
        # Given their number, the arrivals of a Poisson process are uniform.
        return cls(np.sort(generator.uniform(0, seconds, generator.poisson(rate * seconds))), seconds, until)

    def take(self, now: float) -> float | None:
        """The oldest that is due."""
        due = self.wake_at()
        if due is None or due > now or now >= self._until:
            return None
        self._next += 1
        return due

    def wake_at(self) -> float | None:
        """When the next is due."""
        return None if self._next == len(self._times) else self._times[self._next]

    def is_over(self, now: float) -> bool:
        """Whether all have been taken, or it is too late."""
        return self._next == len(self._times) or now >= self._until

    def left(self) -> list[float]:
        """Those that were due and not taken."""
        return self._times[self._next :]

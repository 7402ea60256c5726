"""When to send requests. Policy only: no clock, no connections; times are in seconds since the start of the run.

*Closed loop*: every connection is a client that sends its next request when the previous one is answered. This finds
the throughput, but flatters the latency, because a slow server gets fewer requests.

*Open loop*: requests are due at times that do not depend on the server. If all connections are busy, the next free one
sends the request, and its latency counts from the time at which it was due.
"""

import math
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray


class Arrivals(Protocol):
    """Decides whether a free connection sends a request."""

    @property
    def seconds(self) -> float:
        """Period during which requests are due."""
        ...

    def take(self, now: float) -> float | None:
        """Return when the request was due that a free connection should send now, or None if there is none."""
        ...

    def wake_at(self) -> float | None:
        """Return when to ask again even if no connection becomes free, or None if that is not needed."""
        ...

    def is_over(self, now: float) -> bool:
        """Return whether no more requests will be sent."""
        ...

    def left(self) -> list[float]:
        """Return the due times of all requests that were never sent."""
        ...


class ClosedLoop:
    """A request is always due, until the time is up or `count` requests have been taken."""

    def __init__(self, seconds: float, count: int | None = None) -> None:
        self.seconds = seconds
        self._left = count

    def take(self, now: float) -> float | None:
        """Return `now`, or None after the end."""
        if self.is_over(now):
            return None
        if self._left is not None:
            self._left -= 1
        return now

    def wake_at(self) -> float:
        """Return the end of the run: there may be no connection left to notice it."""
        return self.seconds

    def is_over(self, now: float) -> bool:
        """Return whether the time or the number of requests is used up."""
        return now >= self.seconds or self._left == 0

    def left(self) -> list[float]:
        """Return nothing: requests are only due when a connection takes them."""
        return []


class OpenLoop:
    """Requests are due at the given times; those not sent before `until` are dropped."""

    def __init__(self, times: NDArray[np.float64], seconds: float, until: float = math.inf) -> None:
        self.seconds = seconds
        self._until = until
        self._times: list[float] = times.tolist()
        self._next = 0

    @classmethod
    def poisson(cls, rate: float, seconds: float, *, until: float = math.inf) -> Self:
        """Create independent arrivals at `rate` requests per second; they are the same in every run."""
        generator = np.random.default_rng(1)
        # Given their number, the arrival times of a Poisson process are uniform.
        return cls(np.sort(generator.uniform(0, seconds, generator.poisson(rate * seconds))), seconds, until)

    def take(self, now: float) -> float | None:
        """Return the earliest due time that has not been taken, or None if there is none by now."""
        due = self.wake_at()
        if due is None or due > now or now >= self._until:
            return None
        self._next += 1
        return due

    def wake_at(self) -> float | None:
        """Return when the next request is due."""
        return None if self._next == len(self._times) else self._times[self._next]

    def is_over(self, now: float) -> bool:
        """Return whether all requests have been taken, or `until` has passed."""
        return self._next == len(self._times) or now >= self._until

    def left(self) -> list[float]:
        """Return the due times that were not taken."""
        return self._times[self._next :]

"""When requests are due, decided without a clock."""

import numpy as np
import pytest

from benchmarks.arrivals import ClosedLoop, OpenLoop


def test_closed_loop_is_always_due_until_its_end() -> None:
    """Each request is due when a connection is free for it."""
    arrivals = ClosedLoop(2.0)

    assert [arrivals.take(now) for now in (0.0, 0.0, 1.9, 2.0)] == [0.0, 0.0, 1.9, None]
    assert not arrivals.is_over(1.9)
    assert arrivals.is_over(2.0)


def test_closed_loop_ends_after_its_number_of_requests() -> None:
    """Time may be left."""
    arrivals = ClosedLoop(2.0, count=2)

    assert [arrivals.take(0.5) for _ in range(3)] == [0.5, 0.5, None]
    assert arrivals.is_over(0.5)
    assert arrivals.left() == []


def test_open_loop_hands_out_what_is_due_and_nothing_else() -> None:
    """A late sender takes all that has gathered, each with the time at which it was due."""
    arrivals = OpenLoop(np.array([0.5, 1.0, 3.0]), 4.0)

    assert arrivals.take(0.4) is None
    assert [arrivals.take(2.0) for _ in range(3)] == [0.5, 1.0, None]
    assert arrivals.wake_at() == 3.0
    assert not arrivals.is_over(2.0)
    assert arrivals.take(3.0) == 3.0
    assert arrivals.is_over(3.0)
    assert arrivals.wake_at() is None


def test_open_loop_that_is_over_leaves_what_it_could_not_send() -> None:
    """After its time nothing is sent, however much was due before."""
    arrivals = OpenLoop(np.array([0.5, 1.0, 1.5]), 2.0, until=2.0)

    assert arrivals.take(1.9) == 0.5
    assert arrivals.take(2.0) is None
    assert arrivals.is_over(2.0)
    assert arrivals.left() == [1.0, 1.5]


def test_poisson_arrivals_come_as_often_as_asked_and_are_independent() -> None:
    """Number, mean distance and spread of the distances are those of the process; the same seed, the same times."""
    rate, seconds = 1000.0, 20.0
    arrivals, again = OpenLoop.poisson(rate, seconds), OpenLoop.poisson(rate, seconds)

    times = np.array([due for _ in range(30_000) if (due := arrivals.take(seconds)) is not None])

    gaps = np.diff(times)
    assert len(times) == pytest.approx(rate * seconds, rel=0.03)
    assert gaps.min() >= 0
    assert gaps.mean() == pytest.approx(1 / rate, rel=0.03)
    assert gaps.std() == pytest.approx(1 / rate, rel=0.05)
    assert again.wake_at() == times[0]

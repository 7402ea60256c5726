"""Measurements that are compared take turns, so that any disturbance affects all of them alike."""

import time
from collections.abc import Callable, Mapping
from typing import TypeVar

T = TypeVar("T")

TURNS = 5
"""Number of turns that count, after one to warm up."""


def in_turns(contenders: Mapping[str, Callable[[float], T]], seconds: float) -> dict[str, list[T]]:
    """Measure each contender for `seconds` in total; return the results of its turns, without the warm-up turn."""
    found: dict[str, list[T]] = {name: [] for name in contenders}
    for turn in range(TURNS + 1):
        for name, measure in contenders.items():
            part = measure(seconds / TURNS)
            if turn:
                found[name].append(part)
    return found


def repeat(work: Callable[[], object], seconds: float) -> tuple[int, float]:
    """Repeat `work` for `seconds`, at least once; return how often it ran, and how long that took."""
    began = time.perf_counter()
    times = 0
    while not times or time.perf_counter() - began < seconds:
        work()
        times += 1
    return times, time.perf_counter() - began

"""What is compared takes turns: whatever disturbs one of them disturbs all."""

import time
from collections.abc import Callable, Mapping
from typing import TypeVar

T = TypeVar("T")

TURNS = 5


def in_turns(contenders: Mapping[str, Callable[[float], T]], seconds: float) -> dict[str, list[T]]:
    """Measure each in turns, `seconds` in all; return what every turn found, without the first, which warms up."""
    found: dict[str, list[T]] = {name: [] for name in contenders}
    for turn in range(TURNS + 1):
        for name, measure in contenders.items():
            part = measure(seconds / TURNS)
            if turn:
                found[name].append(part)
    return found


def repeat(work: Callable[[], object], seconds: float) -> tuple[int, float]:
    """Repeat something for so long, at least once; return how often it ran, and how long it took."""
    began = time.perf_counter()
    times = 0
    while not times or time.perf_counter() - began < seconds:
        work()
        times += 1
    return times, time.perf_counter() - began

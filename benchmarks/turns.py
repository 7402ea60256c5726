"""What is compared takes turns: whatever disturbs one of them disturbs all."""

from collections.abc import Callable, Mapping
from typing import TypeVar

T = TypeVar("T")

TURNS = 5


def in_turns(contenders: Mapping[str, Callable[[float], T]], seconds: float) -> dict[str, list[T]]:
    """Measure each for so many seconds in all; answers what every turn found, without the first, which warms up."""
    found: dict[str, list[T]] = {name: [] for name in contenders}
    for turn in range(TURNS + 1):
        for name, measure in contenders.items():
            part = measure(seconds / TURNS)
            if turn:
                found[name].append(part)
    return found

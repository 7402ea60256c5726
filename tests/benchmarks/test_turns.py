"""Contenders are measured under the same conditions."""

from benchmarks.turns import TURNS, in_turns, repeat


def test_contenders_take_turns_and_the_first_turn_does_not_count() -> None:
    """All have the same number of turns, which add up to the requested time."""
    order: list[str] = []

    def contender(name: str, seconds: float) -> float:
        order.append(name)
        return seconds

    found = in_turns({"a": lambda seconds: contender("a", seconds), "b": lambda seconds: contender("b", seconds)}, 2.0)

    assert order == ["a", "b"] * (TURNS + 1)
    assert found == {"a": [2.0 / TURNS] * TURNS, "b": [2.0 / TURNS] * TURNS}


def test_work_is_repeated_for_its_time_and_at_least_once() -> None:
    """The count returned is the number of calls."""
    calls: list[None] = []

    assert repeat(lambda: calls.append(None), 0.0)[0] == len(calls) == 1

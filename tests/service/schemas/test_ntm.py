"""Requests to `/ntm/{task}`: ranges, and random episodes within them."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from service.api.answer import to_json
from service.errors import InvalidParameter
from service.schemas.ntm import (
    TASKS,
    AssociativeRecallBody,
    CopyBody,
    PrioritySortBody,
    RandomAssociativeRecallQuery,
    RandomQuery,
)
from service.tasks.ntm import SORTED_VECTORS

VECTOR: list[Any] = [0, 1] * 4
ITEM: list[Any] = [[0, 1, 0, 1, 0, 1]] * 3
SIZES: dict[str, dict[str, tuple[int, int, int]]] = {
    "copy": {"length": (1, 128, 20)},
    "repeat-copy": {"length": (1, 128, 10), "repeats": (1, 32, 10)},
    "associative-recall": {"items": (2, 32, 6)},
    "dynamic-ngrams": {"length": (6, 1024, 200)},
    "priority-sort": {"length": (1, 32, 20)},
}
"""Minimum, maximum and default, by task and parameter."""


@st.composite
def random_queries(draw: st.DrawFn) -> tuple[str, RandomQuery]:
    task = draw(st.sampled_from(sorted(TASKS)))
    sizes = {name: draw(st.integers(low, high)) for name, (low, high, _) in SIZES[task].items()}
    return task, TASKS[task][1](**sizes)


@given(asked=random_queries(), seed=st.integers(0, 2**32))
@settings(max_examples=30)
def test_random_episode_is_one_that_a_client_could_have_sent(asked: tuple[str, RandomQuery], seed: int) -> None:
    """Sending back a response's `episode` gives the same episode, and so does the same seed."""
    task, query = asked

    episode = query.episode(seed)

    sent = TASKS[task][0].model_validate(json.loads(to_json(episode.given))).episode()
    assert sent.task == episode.task == task
    for same in (sent, query.episode(seed)):
        np.testing.assert_array_equal(same.inputs, episode.inputs)
        np.testing.assert_array_equal(same.expected, episode.expected)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_random_query_is_any_item_but_the_last(count: int) -> None:
    """Of two items, the first is queried, whatever the seed."""
    query = RandomAssociativeRecallQuery(items=count)

    asked = {query.episode(seed).given["query"] for seed in range(40)}

    assert asked == set(range(count - 1))


@pytest.mark.parametrize("task", SIZES)
def test_sizes_have_the_contracts_ranges_and_defaults(task: str) -> None:
    """Each size has its default; its bounds are allowed, and values beyond are not."""
    query = TASKS[task][1]

    for name, (low, high, default) in SIZES[task].items():
        assert getattr(query(), name) == default
        for allowed in (low, high):
            assert getattr(query(**{name: allowed}), name) == allowed
        for refused in (low - 1, high + 1):
            with pytest.raises(ValidationError, match=name):
                query(**{name: refused})


@pytest.mark.parametrize("wrong", [2, -1, 0.5, 1.0, "1", True, None, [1]])
def test_bit_is_zero_or_one(wrong: Any) -> None:
    """Other values do not become bits, neither by rounding nor by parsing."""
    with pytest.raises(ValidationError, match=r"sequence\.0\.7\n  Input should be "):
        CopyBody(sequence=[[*VECTOR[:7], wrong]])


@pytest.mark.parametrize("count", [2, 5, 32])
def test_query_is_below_the_last_item(count: int) -> None:
    """The last item cannot be queried, because it has no successor."""
    AssociativeRecallBody(items=[ITEM] * count, query=count - 2).episode()

    with pytest.raises((InvalidParameter, ValidationError), match="query"):
        AssociativeRecallBody(items=[ITEM] * count, query=count - 1).episode()


def test_every_vector_has_a_priority() -> None:
    """The numbers of vectors and priorities must be equal, and the message says so."""
    with pytest.raises(InvalidParameter, match="priorities must be as many as the vectors, 3, not 2"):
        PrioritySortBody(vectors=[VECTOR] * 3, priorities=[0.1, 0.2]).episode()


@pytest.mark.parametrize("wrong", [-1.01, 1.01, float("nan"), float("inf")])
def test_priority_is_between_minus_one_and_one(wrong: float) -> None:
    """Numbers outside this range, NaN and infinity are refused."""
    with pytest.raises(ValidationError, match=r"priorities\.0"):
        PrioritySortBody(vectors=[VECTOR], priorities=[wrong])


@pytest.mark.parametrize(("count", "sorted_count"), [(1, 1), (16, 16), (17, 16), (32, 16)])
def test_at_most_sixteen_vectors_are_sorted(count: int, sorted_count: int) -> None:
    """As in training, only the 16 vectors of highest priority are recalled."""
    episode = PrioritySortBody(vectors=[VECTOR] * count, priorities=[0.0] * count).episode()

    assert len(episode.expected) == sorted_count <= SORTED_VECTORS
    assert episode.steps == count + 1 + sorted_count


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ("repeat-copy", {"sequence": [VECTOR], "repeats": "3"}),
        ("repeat-copy", {"sequence": [VECTOR], "repeats": True}),
        ("associative-recall", {"items": [ITEM, ITEM], "query": False}),
        ("priority-sort", {"vectors": [VECTOR], "priorities": ["0.5"]}),
    ],
)
def test_number_is_a_number(body: str, wrong: dict[str, Any]) -> None:
    """Strings and booleans are not accepted as numbers."""
    with pytest.raises(ValidationError, match="should be a valid"):
        TASKS[body][0].model_validate(wrong)


def test_whole_number_is_a_priority_too() -> None:
    """An integer is accepted as a float."""
    assert PrioritySortBody.model_validate({"vectors": [VECTOR], "priorities": [1]}).priorities == [1.0]

"""Statistics of a run, on handmade timelines."""

import math

import numpy as np
import pytest

from benchmarks.timeline import LOST, UNANSWERED, UNSENT, Record, Timeline, percentile


def test_latency_counts_from_when_a_request_was_due() -> None:
    """A request that was sent late has waited since it should have been sent."""
    timeline = Timeline.of([(1.0, 3.0, 3.5, 200, "a")], seconds=4.0)

    assert timeline.latency.tolist() == [2.5]


def test_records_are_kept_in_the_order_in_which_they_were_due() -> None:
    """The order of answers does not matter."""
    timeline = Timeline.of([(2.0, 2.0, 2.1, 200, "b"), (1.0, 1.0, 2.5, 200, "a")], seconds=4.0)

    assert timeline.tag.tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("q", "expected"), [(0, 1.0), (10, 1.0), (10.1, 2.0), (50, 5.0), (90, 9.0), (99, 10.0), (100, 10.0)]
)
def test_percentile_is_the_smallest_value_that_so_many_do_not_exceed(q: float, expected: float) -> None:
    """It is one of the values, however they are ordered."""
    assert percentile(np.random.default_rng(0).permutation(np.arange(1.0, 11.0)), q) == expected


def test_percentile_of_nothing_is_not_a_number() -> None:
    """There is no value to return."""
    assert math.isnan(percentile(np.array([]), 50))


@pytest.mark.parametrize("status", [LOST, UNANSWERED, UNSENT, 429, 500])
def test_failed_request_is_infinitely_late(status: int) -> None:
    """A server does not get quicker by failing quickly."""
    records: list[Record] = [(0.0, 0.0, 0.5, 200, "a")] * 9 + [(0.0, 0.0, 0.001, status, "a")]
    timeline = Timeline.of(records, seconds=1.0)

    assert timeline.percentile(90) == 0.5
    assert timeline.percentile(91) == math.inf


def test_rate_counts_good_answers_within_the_time() -> None:
    """Neither refusals nor what is answered after the end count."""
    ends: list[Record] = [(0.0, 0.0, 1.0, 200, "a"), (0.0, 0.0, 1.0, 429, "a"), (0.0, 0.0, 2.5, 200, "a")]
    timeline = Timeline.of(ends, seconds=2.0)

    assert timeline.rate == 0.5
    assert timeline.offered_rate == 1.5


def test_empty_run_has_no_rate_and_no_percentiles() -> None:
    """Neither raises an error."""
    timeline = Timeline.of([], seconds=2.0)

    assert (len(timeline), timeline.rate, timeline.by_status()) == (0, 0.0, {})
    assert math.isnan(timeline.percentile(50))
    assert timeline.recovered_after(1.0) == 0.0


def test_tags_that_are_numbers_are_in_their_order() -> None:
    """8 comes before 16."""
    timeline = Timeline.of([(0.0, 0.0, float(tag), 200, tag) for tag in ("64", "8", "16", "8")], seconds=2.0)

    assert {tag: part.done.tolist() for tag, part in timeline.by_tag().items()} == {"8": [8, 8], "16": [16], "64": [64]}
    assert list(timeline.by_tag()) == ["8", "16", "64"]


def test_endings_are_counted_by_name() -> None:
    """Statuses are numbers; what has no status has a name."""
    timeline = Timeline.of([(0.0, 0.0, 1.0, status, "a") for status in (200, 200, 429, LOST, UNSENT)], seconds=1.0)

    assert timeline.by_status() == {"lost": 1, "unsent": 1, "200": 2, "429": 1}


def test_parts_of_a_run_join_into_one() -> None:
    """Their requests and their times add up."""
    parts = [Timeline.of([(0.0, 0.0, 0.5, 200, tag)], seconds=2.0) for tag in ("a", "b", "c")]

    joined = Timeline.joined(parts)

    assert (joined.tag.tolist(), joined.seconds, joined.rate) == (["a", "b", "c"], 6.0, 0.5)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([(0.1, 200), (0.1, 200)], 0.0),
        ([(0.9, 200), (0.1, 200), (0.1, 200)], 0.9),
        ([(0.1, 200), (0.1, 503), (0.1, 200)], 1.1),
        ([(0.1, 200), (0.9, 200)], math.inf),
    ],
)
def test_server_has_recovered_after_the_last_request_that_failed_or_was_slow(
    answers: list[tuple[float, int]], expected: float
) -> None:
    """If the last one is, the server has not recovered."""
    records = [(float(n), float(n), n + took, status, "a") for n, (took, status) in enumerate(answers)]

    assert Timeline.of(records, seconds=5.0).recovered_after(0.5) == pytest.approx(expected)

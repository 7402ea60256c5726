"""What Hypothesis draws from: small numbers, so that full queues, packed slots and odd segments are common."""

from dataclasses import dataclass

from hypothesis import strategies as st

from service.engine.batcher import BatchingPolicy

MAX_ROWS = 3
MAX_STEPS = 7


def policies(queue_delays: st.SearchStrategy[float]) -> st.SearchStrategy[BatchingPolicy]:
    """Policies of a few slots; the queue may be smaller than the batch, a request larger than either."""
    return st.builds(
        BatchingPolicy,
        slots=st.integers(1, 4),
        queue_rows=st.integers(1, 8),
        max_queue_delay_seconds=queue_delays,
        shortest_segment=st.integers(1, 4),
        longest_segment=st.integers(1, 6),
        stream_segment=st.integers(1, 6),
    )


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request as it comes, and what becomes of it."""

    segment: int
    """Number of the segment before which it comes."""
    rows: int
    steps: int
    seed: int
    poisoned_step: int | None
    """The runtime fails when it is shown this step of the last row."""
    leaves_after: int | None
    """Segments after which its client has gone."""
    is_stream: bool
    keeps_last_step: bool


def arrivals() -> st.SearchStrategy[list[Arrival]]:
    """Requests of mixed lengths, some of which fail, and some of which are given up."""
    return st.lists(
        st.builds(
            Arrival,
            segment=st.integers(0, 10),
            rows=st.integers(1, MAX_ROWS),
            steps=st.integers(1, MAX_STEPS),
            seed=st.integers(0, 2**32 - 1),
            poisoned_step=st.none() | st.integers(0, MAX_STEPS - 1),
            leaves_after=st.none() | st.integers(0, 5),
            is_stream=st.booleans(),
            keeps_last_step=st.booleans(),
        ),
        min_size=1,
        max_size=12,
    )

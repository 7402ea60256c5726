"""Slots: whatever shares the batch, a request gets the outputs of a plain loop over its own steps."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.manifest import Array
from service.engine.batcher import Batch, Batcher, BatchingPolicy
from service.engine.request import Request
from service.engine.slots import Slots
from service.engine.steps import FEW_STEPS
from service.errors import Overloaded
from tests.service.fakes import INITIAL, POISON, RECURRENT, STATELESS, FakeRuntime, recurrent_answers, recurrent_request
from tests.strategies import Arrival, arrivals, policies


class Bench:
    """A batcher and its slots, without a thread."""

    def __init__(self, policy: BatchingPolicy, runtime: FakeRuntime) -> None:
        self.runtime = runtime
        self.batcher = Batcher(policy)
        initial = INITIAL if runtime.signature.is_recurrent else {}
        self.slots = Slots(runtime, initial, slots=policy.slots, longest_segment=policy.longest_segment)
        self.computed: Counter[tuple[Request, int]] = Counter()
        """Number of steps computed for each row of the requests that did not fail."""
        self.failed: set[Request] = set()
        self.finished: set[Request] = set()

    def add(self, request: Request) -> Request:
        request.allocate(self.runtime.signature)
        self.batcher.add(request, 0.0)
        return request

    def compute(self) -> Batch | None:
        """Compute the next segment, if there is one; return its batch."""
        batch = self.batcher.next_batch(0.0)
        if batch is None:
            return None
        self.slots.load(batch)
        for slot in self.slots.compute(batch):
            request = batch.running[slot].request
            self.failed.add(request)
            self.batcher.discard(request)
        for sequence, left in zip(batch.running, batch.left, strict=True):
            if sequence.request not in self.failed:
                self.computed[sequence.request, sequence.row] += min(batch.steps, left)
        self.finished.update(self.batcher.advance(batch, 0.0))
        return batch

    def compute_all(self) -> None:
        while self.compute() is not None:
            pass

    def assert_right_so_far(self, request: Request) -> None:
        """Assert that of the steps computed so far, those that the request keeps are right."""
        answers = recurrent_answers(request)
        for row in range(request.rows):
            expected = answers[: self.computed[request, row], row][request.steps - request.kept_steps :]
            np.testing.assert_array_equal(request.outputs["answers"][: len(expected), row], expected)
            np.testing.assert_array_equal(request.outputs["sums"][: len(expected), row], expected.sum(axis=-1))


def bench(*, slots: int = 2, longest: int = 4, shortest: int = 1, runtime: FakeRuntime | None = None) -> Bench:
    policy = BatchingPolicy(
        slots=slots, queue_rows=16, shortest_segment=shortest, longest_segment=longest, stream_segment=longest
    )
    return Bench(policy, runtime or FakeRuntime())


def as_request(arrival: Arrival) -> Request:
    poisoned = arrival.poisoned_step
    request = recurrent_request(
        arrival.steps,
        rows=arrival.rows,
        seed=arrival.seed,
        poisoned_step=poisoned if poisoned is not None and poisoned < arrival.steps else None,
    )
    request.on_progress = (lambda: None) if arrival.is_stream else None
    request.keeps_last_step = arrival.keeps_last_step
    return request


@settings(max_examples=150)
@given(policies(queue_delays=st.just(0.0)), arrivals())
def test_result_never_depends_on_batch_mates(policy: BatchingPolicy, plan: list[Arrival]) -> None:
    """Among requests that fail, leave early or used the slot before, each gets the outputs of a plain loop."""
    made = Bench(policy, FakeRuntime())
    accepted: dict[Request, Arrival] = {}
    left: set[Request] = set()
    last = max(arrival.segment for arrival in plan)
    segment = 0
    while made.compute() is not None or segment <= last:
        for arrival in (one for one in plan if one.segment == segment):
            try:
                accepted[made.add(as_request(arrival))] = arrival
            except Overloaded:
                continue
        for request, arrival in accepted.items():
            leaves = arrival.leaves_after is not None and segment >= arrival.segment + arrival.leaves_after
            if leaves and not request.is_settled:
                made.batcher.discard(request)
                left.add(request)
            made.assert_right_so_far(request)
        segment += 1

    poisoned = {request for request in accepted if (request.inputs["shown"] == POISON).any()}
    assert made.failed == poisoned - left
    assert made.finished == set(accepted) - poisoned - left
    for request in made.finished:
        kept = recurrent_answers(request)[-request.kept_steps :]
        np.testing.assert_array_equal(request.outputs["answers"], kept)


def test_segment_computes_occupied_slots_alone() -> None:
    """Sequences of mixed lengths leave when they end, and the batch shrinks with them."""
    made = bench(slots=3, longest=2)
    for steps in (2, 4, 6):
        made.add(recurrent_request(steps, seed=steps))

    made.compute_all()

    assert made.runtime.shapes == [(3, 2), (2, 2), (1, 2)]


def test_member_that_fails_fails_alone() -> None:
    """A batch that fails is computed again row by row, and only the row at fault fails."""
    made = bench(slots=3)
    good = made.add(recurrent_request(4, seed=1))
    bad = made.add(recurrent_request(4, seed=2, poisoned_step=2))
    other = made.add(recurrent_request(9, seed=3))

    made.compute_all()

    assert made.failed == {bad}
    assert made.finished == {good, other}
    made.assert_right_so_far(good)
    made.assert_right_so_far(other)


def test_runtime_error_is_answered_with_its_slot() -> None:
    """The runtime's exception is returned for the slot that failed."""
    made = bench()
    made.add(recurrent_request(1, seed=1))
    made.add(recurrent_request(1, seed=2, poisoned_step=0))
    batch = made.batcher.next_batch(0.0)
    assert batch is not None

    made.slots.load(batch)
    failures = made.slots.compute(batch)

    assert list(failures) == [1]
    with pytest.raises(RuntimeError, match="poisoned"):
        raise failures[1]


def test_lone_request_that_fails_is_not_computed_twice() -> None:
    """If a batch of one fails, there is no other row to separate it from."""
    made = bench()
    made.add(recurrent_request(1, poisoned_step=0))

    made.compute_all()

    assert made.runtime.shapes == [(1, 1)]
    assert len(made.failed) == 1


@pytest.mark.parametrize("lengths", [(1, 4), (4, 1)])
@pytest.mark.parametrize(("steps", "poisoned_step"), [(4, 2), (4, 3), (FEW_STEPS, 0), (FEW_STEPS, 2)])
def test_padding_is_no_earlier_request(lengths: tuple[int, int], steps: int, poisoned_step: int) -> None:
    """The input that made one request fail is not reused as padding for a later one."""
    made = bench(slots=2, shortest=4, longest=4)
    made.add(recurrent_request(4, seed=1))
    bad = made.add(recurrent_request(steps, seed=2, poisoned_step=poisoned_step))
    made.compute_all()

    first, second = (made.add(recurrent_request(steps, seed=steps)) for steps in lengths)
    made.compute_all()

    assert made.failed == {bad}
    assert {first, second} <= made.finished
    assert made.runtime.shapes[-1] == (2, 4), "the batch failed as a whole and was computed again row by row"


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_sequence_is_never_computed_in_fewer_rows_than_the_graph_asks_for(slots: int) -> None:
    """A lone sequence is computed beside copies of itself, also when rows are computed one by one after a failure."""
    made = bench(slots=slots, longest=2, runtime=FakeRuntime(RECURRENT.model_copy(update={"least_rows": 3})))
    alone = made.add(recurrent_request(5, seed=1))
    made.compute_all()
    good = [made.add(recurrent_request(3 + seed, seed=seed)) for seed in range(2, 5)]
    bad = made.add(recurrent_request(4, seed=6, poisoned_step=2))
    made.compute_all()

    assert {rows for rows, _ in made.runtime.shapes} == {3}
    assert made.failed == {bad}
    assert made.finished == {alone, *good}
    for request in (alone, *good):
        made.assert_right_so_far(request)


def test_slot_starts_from_the_initial_state_whoever_used_it_before() -> None:
    """Nothing of a predecessor is left in a slot."""
    made = bench(slots=1)
    made.add(recurrent_request(5, seed=1))
    again = made.add(recurrent_request(5, seed=2))

    made.compute_all()

    made.assert_right_so_far(again)
    assert again in made.finished


def test_outputs_that_nobody_wants_are_not_kept() -> None:
    """A request only allocates the outputs that it names."""
    made = bench()
    request = recurrent_request(3)
    request.wanted = frozenset({"sums"})

    made.add(request)
    made.compute_all()

    assert set(request.outputs) == {"sums"}
    np.testing.assert_array_equal(request.outputs["sums"], recurrent_answers(request).sum(axis=-1))


@pytest.mark.parametrize("bad_slot", [0, 1, 2])
def test_row_is_computed_beside_copies_of_its_own_inputs(bad_slot: int) -> None:
    """Rows that are computed one by one after a failure do not meet the input that made it, in whichever slot it is."""
    made = bench(slots=3, runtime=FakeRuntime(RECURRENT.model_copy(update={"least_rows": 3})))
    requests = [
        made.add(recurrent_request(4, seed=slot, poisoned_step=0 if slot == bad_slot else None)) for slot in range(3)
    ]

    made.compute_all()

    assert made.failed == {requests[bad_slot]}
    assert made.finished == set(requests) - made.failed


def test_sequences_longer_than_all_before_enter_a_running_batch() -> None:
    """Memory for inputs grows, and nobody's inputs are lost."""
    made = bench(slots=4, longest=5)
    requests = []
    for seed, steps in enumerate((7, FEW_STEPS, FEW_STEPS + 1, 3, 3 * FEW_STEPS, 2 * FEW_STEPS)):
        requests.append(made.add(recurrent_request(steps, seed=seed)))
        made.compute()
        made.compute()

    made.compute_all()

    assert made.finished == set(requests)
    for request in requests:
        made.assert_right_so_far(request)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("steps", [1, 4, 7])
def test_last_step_can_be_kept_alone(rows: int, steps: int) -> None:
    """The outputs then take the memory of one step."""
    made = bench(slots=2, longest=4, shortest=3)
    request = recurrent_request(steps, rows=rows)
    request.keeps_last_step = True

    made.add(request)
    made.compute_all()

    assert request.outputs["answers"].shape == (1, rows, 2)
    np.testing.assert_array_equal(request.outputs["answers"], recurrent_answers(request)[-1:])


def test_shape_is_bound_once() -> None:
    """Binding is slow, so a shape that was seen before is not bound again."""
    made = bench(longest=2)
    made.add(recurrent_request(8))
    made.compute_all()
    bindings = made.runtime.bindings

    made.add(recurrent_request(8))
    made.compute_all()

    assert bindings == 2, "one for each of the two sets of state arrays"
    assert made.runtime.bindings == bindings


def test_bindings_are_forgotten_before_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache of bindings is bounded, and clearing it does not change any output."""
    monkeypatch.setattr("service.engine.slots.MAX_BINDINGS", 2)
    made = bench(longest=4)
    requests = [made.add(recurrent_request(steps, seed=steps)) for steps in (1, 2, 3, 7)]

    made.compute_all()

    for request in requests:
        made.assert_right_so_far(request)
    assert len(made.slots._bound) <= 2


def test_graph_without_state_answers_every_row_once() -> None:
    """Dynamic batching is the special case of sequences of one step."""
    made = bench(slots=4, longest=1, runtime=FakeRuntime(STATELESS))
    pictures: list[Array] = [np.arange(rows * 3).reshape(rows, 3) + rows for rows in (1, 2, 3)]
    requests = [made.add(Request({"picture": picture}, len(picture), 1, float("inf"))) for picture in pictures]

    made.compute_all()

    assert made.runtime.shapes == [(4, 1), (2, 1)]
    for picture, request in zip(pictures, requests, strict=True):
        assert request.outputs["total"].tolist() == [sum(row) for row in picture.tolist()]


def test_graph_without_state_fails_by_the_request() -> None:
    """A request with one poisoned picture fails as a whole; the others are correct."""
    made = bench(slots=4, longest=1, runtime=FakeRuntime(STATELESS))
    bad = made.add(Request({"picture": np.array([[1, 2, 3], [4, POISON, 6]])}, 2, 1, float("inf")))
    good = made.add(Request({"picture": np.array([[7, 8, 9]])}, 1, 1, float("inf")))

    made.compute_all()

    assert made.failed == {bad}
    assert made.finished == {good}
    assert good.outputs["total"].tolist() == [24]


def test_request_of_the_wrong_shape_is_refused_before_the_queue() -> None:
    """A row that does not fit a slot would crash the worker and fail all pending requests."""
    request = recurrent_request(3)
    request.steps = 4

    with pytest.raises(AssertionError, match=r"this is a bug: shown has the shape \(3, 1, 2\), not \(4, 1, 2\)"):
        request.allocate(RECURRENT)

"""The batcher, compared with a model of it that keeps every sequence in a list."""

import sys
from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from service.engine.batcher import Batch, Batcher, BatchingPolicy, CloseReason
from service.engine.request import Request, Sequence
from service.errors import Overloaded
from tests.strategies import MAX_ROWS, MAX_STEPS, policies

FOREVER = float("inf")
DELAYS = st.sampled_from([0.0, 0.5])
TIMES = st.sampled_from([0.25, 0.5, 2.0])


def ask(steps: int, *, rows: int = 1, deadline: float = FOREVER, is_stream: bool = False) -> Request:
    return Request({}, rows, steps, deadline, on_progress=(lambda: None) if is_stream else None)


def batcher(
    *requests: Request, slots: int = 2, longest: int = 8, shortest: int = 1, stream: int = 2, delay: float = 0.0
) -> Batcher:
    made = Batcher(
        BatchingPolicy(
            slots=slots,
            queue_rows=16,
            max_queue_delay_seconds=delay,
            shortest_segment=shortest,
            longest_segment=longest,
            stream_segment=stream,
        )
    )
    for request in requests:
        made.add(request, 0.0)
    return made


def formed(made: Batcher, now: float = 0.0) -> Batch:
    batch = made.next_batch(now)
    assert batch is not None
    return batch


Row = tuple[Request, int]
"""A request and the index of one of its rows, whether the row has entered or not."""


def row_of(sequence: Sequence) -> Row:
    return sequence.request, sequence.row


class BatcherMachine(RuleBasedStateMachine):
    """Requests are added, dropped, run and finished in any order, and the model predicts the outcome."""

    @initialize(policy=policies(DELAYS))
    def begin(self, policy: BatchingPolicy) -> None:
        self.policy = policy
        self.batcher = Batcher(policy)
        self.now = 0.0
        self.waiting: list[Row] = []
        """Rows of unsettled requests that have not entered, in the order of admission."""
        self.slots: list[Sequence | None] = [None] * policy.slots
        self.in_hand: Batch | None = None
        self.computed: Counter[Row] = Counter()
        """Number of steps computed for each row while its request was unsettled."""
        self.accepted: list[Request] = []
        self.outcomes: dict[Request, str] = {}
        """Outcomes of the settled requests."""

    def is_live(self, sequence: Sequence) -> bool:
        request = sequence.request
        return request not in self.outcomes and self.computed[row_of(sequence)] < request.steps

    def settle(self, request: Request, outcome: str) -> None:
        assert request not in self.outcomes, "settled twice"
        self.outcomes[request] = outcome
        self.waiting = [(owner, row) for owner, row in self.waiting if owner is not request]

    @rule(seconds=TIMES)
    def let_time_pass(self, seconds: float) -> None:
        self.now += seconds

    @rule(
        rows=st.integers(1, MAX_ROWS),
        steps=st.integers(1, MAX_STEPS),
        deadline=st.just(FOREVER) | TIMES,
        is_stream=st.booleans(),
    )
    def add(self, *, rows: int, steps: int, deadline: float, is_stream: bool) -> None:
        request = ask(steps, rows=rows, deadline=self.now + deadline, is_stream=is_stream)

        if len(self.waiting) + rows > self.policy.queue_rows:
            with pytest.raises(Overloaded, match=f"of {self.policy.queue_rows} rows are taken"):
                self.batcher.add(request, self.now)
            return
        self.batcher.add(request, self.now)

        self.accepted.append(request)
        self.waiting += [(request, row) for row in range(rows)]

    @precondition(lambda self: self.accepted)
    @rule(data=st.data())
    def discard(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(self.accepted))

        self.batcher.discard(request)

        if request not in self.outcomes:
            self.settle(request, "discarded")

    @precondition(lambda self: self.in_hand is None)
    @rule()
    def form_a_batch(self) -> None:
        running_before = [sequence for sequence in self.slots if sequence is not None and self.is_live(sequence)]
        wake_at = self.batcher.wake_at(self.now)

        batch = self.batcher.next_batch(self.now)

        if batch is not None or self.batcher.wake_at(self.now) is None:
            self.check_who_enters(batch, running_before)
        if batch is None:
            self.check_that_there_is_nothing_to_do(running_before)
            return
        assert wake_at == self.now
        self.check_the_slots(batch, running_before)
        self.check_the_segment(batch)
        self.in_hand = batch

    def check_that_there_is_nothing_to_do(self, running: list[Sequence]) -> None:
        assert not running
        if not self.waiting:
            assert self.batcher.wake_at(self.now) is None
            return
        due_at = self.waiting[0][0].queued_at + self.policy.max_queue_delay_seconds
        assert self.now < due_at
        assert len(self.waiting) < self.policy.slots
        assert self.batcher.wake_at(self.now) == due_at
        assert self.batcher.wake_at(due_at) == due_at

    def check_who_enters(self, batch: Batch | None, running_before: list[Sequence]) -> None:
        """Rows enter first in, first out, until the slots are full; expired requests are dropped instead."""
        entered: list[Row] = []
        free = self.policy.slots - len(running_before)
        while self.waiting and len(entered) < free:
            request, _ = self.waiting[0]
            if request.deadline <= self.now:
                self.settle(request, "expired")
            else:
                entered.append(self.waiting.pop(0))
        assert [row_of(sequence) for _, sequence in batch.entered] == entered if batch else not entered
        assert all(request.is_settled for request in self.outcomes)

    def check_the_slots(self, batch: Batch, running_before: list[Sequence]) -> None:
        """Arrays that are moved and filled as the batch says hold the sequences that it lists."""
        for source, target in batch.moves:
            self.slots[target] = self.slots[source]
        for slot, sequence in batch.entered:
            self.slots[slot] = sequence
        occupied = len(batch.running)
        assert occupied <= self.policy.slots
        assert self.slots[:occupied] == batch.running
        self.slots[occupied:] = [None] * (self.policy.slots - occupied)
        assert set(batch.running) == {*running_before, *(sequence for _, sequence in batch.entered)}
        assert self.batcher.running_rows == occupied
        if occupied == self.policy.slots:
            assert batch.reason is CloseReason.FULL
        elif self.policy.max_queue_delay_seconds > 0 and not running_before:
            assert batch.reason is CloseReason.DELAY
        else:
            assert batch.reason is CloseReason.IDLE

    def check_the_segment(self, batch: Batch) -> None:
        """The segment is as long as every rule allows, and no longer than the longest sequence needs."""
        left = [sequence.request.steps - self.computed[row_of(sequence)] for sequence in batch.running]
        limits = [self.policy.longest_segment, max(left), max(min(left), self.policy.shortest_segment)]
        streams = [slot for slot, sequence in enumerate(batch.running) if sequence.request.on_progress is not None]
        if streams:
            limits.append(self.policy.stream_segment)
        assert batch.left == left
        assert batch.streams == streams
        assert batch.steps == min(limits)
        assert batch.ending == [slot for slot, steps in enumerate(left) if steps <= batch.steps]
        assert batch.padding_row_steps == sum(batch.steps - min(batch.steps, steps) for steps in left)

    @precondition(lambda self: self.in_hand is not None)
    @rule()
    def finish_the_batch(self) -> None:
        batch, self.in_hand = self.in_hand, None
        assert batch is not None
        for sequence in batch.running:
            if self.is_live(sequence):
                row = row_of(sequence)
                self.computed[row] = min(self.computed[row] + batch.steps, sequence.request.steps)

        finished = self.batcher.advance(batch, self.now)

        for request in finished:
            self.settle(request, "finished")
            assert [self.computed[request, row] for row in range(request.rows)] == [request.steps] * request.rows
            assert request.finished_at == self.now

    @invariant()
    def queue_count_is_the_truth(self) -> None:
        assert self.batcher.queued_rows == len(self.waiting) <= self.policy.queue_rows

    @invariant()
    def counted_steps_are_those_that_were_computed_for_a_live_stream(self) -> None:
        for request in self.accepted:
            computed = [self.computed[request, row] for row in range(request.rows)]
            assert request.steps_done == (computed if request.on_progress is not None else [0] * request.rows)

    @invariant()
    def settled_requests_say_so(self) -> None:
        assert {request for request in self.accepted if request.is_settled} == set(self.outcomes)

    def teardown(self) -> None:
        """Each request that was accepted and not dropped finishes exactly once."""
        if not hasattr(self, "batcher"):
            return
        self.now += self.policy.max_queue_delay_seconds
        while True:
            if self.in_hand is None:
                self.form_a_batch()
            if self.in_hand is None:
                break
            self.finish_the_batch()
        assert set(self.outcomes) == set(self.accepted)
        assert not self.waiting
        assert self.batcher.running_rows == 0


TestBatcher = BatcherMachine.TestCase
TestBatcher.settings = settings(max_examples=80, stateful_step_count=40)


def test_what_waits_is_taken_at_once() -> None:
    """Without a queue delay, an idle worker starts at once."""
    made = batcher(ask(1))

    batch = formed(made)

    assert len(batch.running) == 1
    assert batch.reason is CloseReason.IDLE


def test_queue_delay_is_waited_out_and_no_longer() -> None:
    """With a queue delay, a lone request starts when the delay has passed."""
    made = batcher(ask(1), delay=0.5)

    assert made.next_batch(0.25) is None
    assert made.wake_at(0.25) == 0.5
    assert formed(made, 0.5).reason is CloseReason.DELAY


def test_full_batch_does_not_wait_for_the_queue_delay() -> None:
    """When the waiting rows fill every slot, the batch starts at once."""
    made = batcher(ask(1), ask(1), slots=2, delay=0.5)

    assert formed(made).reason is CloseReason.FULL


def test_delay_is_counted_from_the_oldest_that_is_still_wanted() -> None:
    """Later requests do not extend the delay, and a dropped request does not shorten it for the others."""
    abandoned = ask(1)
    made = batcher(abandoned, slots=4, delay=0.5)
    made.add(ask(1), 0.25)
    assert made.wake_at(0.25) == 0.5

    made.discard(abandoned)

    assert made.wake_at(0.25) == 0.75


def test_segment_is_no_longer_than_the_longest() -> None:
    """New requests wait no longer than one such segment."""
    assert formed(batcher(ask(20), slots=2, longest=8)).steps == 8


def test_segment_ends_with_the_first_of_its_sequences() -> None:
    """Its result is not held back, whether or not another sequence waits for its slot."""
    assert formed(batcher(ask(3), ask(20), slots=2, longest=8)).steps == 3
    assert formed(batcher(ask(3), ask(20), ask(1), slots=2, longest=8)).steps == 3


def test_segment_is_no_shorter_than_the_shortest() -> None:
    """Many calls of one or two steps cost more than padding."""
    batch = formed(batcher(ask(1), ask(20), slots=2, longest=8, shortest=4))

    assert batch.steps == 4
    assert batch.padding_row_steps == 3


def test_segment_computes_no_step_that_nobody_needs() -> None:
    """No segment is longer than its longest sequence, even if the minimum length is."""
    assert formed(batcher(ask(1), ask(2), slots=2, longest=8, shortest=4)).steps == 2


def test_watched_sequence_shortens_the_segment() -> None:
    """Segments are short while a stream is running."""
    assert formed(batcher(ask(20), ask(20, is_stream=True), slots=2, longest=8, stream=2)).steps == 2


def test_request_larger_than_the_batch_enters_in_parts() -> None:
    """Its rows use the slots in turn; it starts with its first row and finishes with its last."""
    request = ask(2, rows=5)
    made = batcher(request, slots=2)
    sizes: list[int] = []
    finished: list[Request] = []
    while not finished:
        now = 1.0 + len(sizes)
        batch = formed(made, now)
        sizes.append(len(batch.running))
        finished = made.advance(batch, now)

    assert sizes == [2, 2, 1]
    assert finished == [request]
    assert (request.started_at, request.finished_at) == (1.0, 3.0)


def test_request_that_expires_in_part_is_given_up_whole() -> None:
    """When the deadline passes, its running rows leave with its waiting ones."""
    request = ask(9, rows=3, deadline=1.0)
    made = batcher(ask(1), request, slots=2, longest=1)
    made.advance(formed(made), 0.5)

    batch = formed(made, 1.0)

    assert request.is_settled
    assert batch.entered == []
    assert made.queued_rows == 0
    assert made.advance(batch, 1.0) == []
    assert made.next_batch(1.0) is None


def test_discarded_request_leaves_before_the_next_batch() -> None:
    """Its slot goes to a waiting sequence; if there is none, the last sequence moves into the gap."""
    leaver, stayer, last, newcomer = ask(9), ask(9), ask(9), ask(9)
    made = batcher(leaver, stayer, last, newcomer, slots=3, longest=1)
    made.advance(formed(made), 0.0)

    made.discard(leaver)
    batch = formed(made)

    assert batch.moves == []
    assert [(slot, row_of(sequence)) for slot, sequence in batch.entered] == [(0, (newcomer, 0))]
    assert [sequence.request for sequence in batch.running] == [newcomer, stayer, last]

    made.advance(batch, 0.0)
    made.discard(newcomer)
    batch = formed(made)

    assert batch.moves == [(2, 0)]
    assert [sequence.request for sequence in batch.running] == [last, stayer]


def test_nothing_of_a_discarded_request_is_kept() -> None:
    """Requests that are dropped while they wait do not accumulate in memory."""
    made = batcher(ask(9), slots=1)
    formed(made)
    request = ask(9)
    before = sys.getrefcount(request)

    made.add(request, 0.0)
    made.discard(request)

    assert sys.getrefcount(request) == before


def test_steps_of_a_request_that_was_given_up_meanwhile_are_not_counted() -> None:
    """Its outputs were not written, so its stream must not report them."""
    request = ask(9, is_stream=True)
    made = batcher(request)
    batch = formed(made)

    made.discard(request)
    finished = made.advance(batch, 0.0)

    assert finished == []
    assert request.steps_done == [0]


def test_padding_of_a_stream_is_not_counted() -> None:
    """A stream that ends within a segment has no more steps than were asked for."""
    short, long = ask(1, is_stream=True), ask(4)
    made = batcher(short, long, shortest=4, stream=4)

    made.advance(formed(made), 0.0)

    assert short.steps_done == [1]


def test_clear_answers_everybody_once_and_leaves_nothing() -> None:
    """Running, waiting and partly running requests are dropped once; the current segment then finishes none of them."""
    running, both, waiting, gone = ask(1), ask(1, rows=2), ask(1), ask(1)
    made = batcher(running, both, waiting, gone, slots=2)
    batch = formed(made)
    made.discard(gone)

    assert made.clear() == [running, both, waiting]
    assert made.advance(batch, 0.0) == []
    assert made.next_batch(0.0) is None
    assert made.queued_rows == made.running_rows == 0

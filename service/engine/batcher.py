"""The batcher: which sequences to compute next, and for how many steps. Policy only: no clock, no threads, no arrays.

The running batch has `slots` slots. Sequences wait in a first-in, first-out queue and enter free slots when a batch is
formed. A batch is one *segment*: a number of steps, computed for all occupied slots at once. A sequence leaves after
the segment that contains its last step. Slots stay packed, so that a segment computes a prefix of the state arrays:
new sequences take the slots of those that left; if none is waiting, the last sequence moves into the gap, and the
batch lists that move.

Dynamic batching of stateless models is the special case of sequences of one step: all waiting sequences, up to the
number of slots, enter, and leave after one segment.

The length of a segment:

- It ends when the first of its sequences does, so that no result is held back and no slot stays empty; but it has at
  least `shortest_segment` steps, because each call has a fixed cost, and a few steps of padding are cheaper than many
  short calls.
- It has at most `longest_segment` steps, which bounds how long a new sequence waits to enter.
- While a stream is running, it has at most `stream_segment` steps.

Steps of a segment beyond the end of a sequence are *padding*: computed and dropped.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from enum import Enum

from service.engine.request import Request, Sequence
from service.errors import Overloaded


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchingPolicy:
    """Limits that the batcher applies."""

    slots: int
    """Largest batch, in sequences."""
    queue_rows: int
    """Maximum number of waiting sequences; requests beyond it are refused."""
    max_queue_delay_seconds: float = 0.0
    """Longest time that an idle worker waits to fill a batch. 0 is work-conserving: the worker starts at once."""
    shortest_segment: int = 1
    """Minimum length of a segment in steps, unless all its sequences end sooner or a maximum is lower."""
    longest_segment: int = 1
    """Maximum length of a segment in steps."""
    stream_segment: int = 1
    """Maximum length of a segment in steps while a stream is running."""


class CloseReason(Enum):
    """Why a batch was dispatched with the sequences it has."""

    FULL = "full"
    """All slots were taken."""
    IDLE = "idle"
    """The worker was free and took all there was."""
    DELAY = "delay"
    """The queue delay had passed."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One segment: changes to the slots, then the number of steps to compute."""

    moves: list[tuple[int, int]]
    """Slots to copy, (from, to), to close the gaps left by sequences that ended."""
    entered: list[tuple[int, Sequence]]
    """Sequences that begin in this segment, with their slots."""
    running: list[Sequence]
    """All live sequences; the index is the slot."""
    left: list[int]
    """Number of steps that each of them has left before the segment."""
    steps: int
    """Length of the segment."""
    ending: list[int]
    """Slots of the sequences that end in this segment."""
    streams: list[int]
    """Slots of the sequences that belong to streams."""
    reason: CloseReason
    padding_row_steps: int
    """Number of steps, summed over the rows, beyond the end of their sequences."""


@dataclass(slots=True)
class Batcher:
    """The queue and the slots of one graph. Not thread-safe: its owner holds a lock."""

    policy: BatchingPolicy
    queued_rows: int = 0
    """Number of waiting sequences, which `queue_rows` of the policy limits."""
    _waiting: OrderedDict[Request, None] = field(default_factory=OrderedDict)
    """Unsettled requests with rows that have not entered yet, oldest first."""
    _running: list[Sequence] = field(default_factory=list)
    _step: int = 0
    """Number of steps computed so far. All running sequences advance together, so that one count serves them all."""

    @property
    def running_rows(self) -> int:
        """Number of slots occupied when the last batch was formed and not vacated since."""
        return len(self._running)

    def check_room(self, rows: int, reserved_rows: int = 0) -> None:
        """Check that the queue has room for more rows, besides those waiting and those reserved.

        Raises:
            Overloaded: they do not fit.
        """
        waiting_rows = self.queued_rows + reserved_rows
        if waiting_rows + rows > self.policy.queue_rows:
            raise Overloaded(
                f"the queue has no room: {waiting_rows} of {self.policy.queue_rows} rows are taken, "
                f"and this request has {rows}"
            )

    def add(self, request: Request, now: float) -> None:
        """Queue a request.

        Raises:
            Overloaded: the queue has no room for its rows.
        """
        self.check_room(request.rows)
        request.queued_at = now
        self.queued_rows += request.rows
        self._waiting[request] = None

    def discard(self, request: Request) -> None:
        """Drop a request: its waiting rows leave the queue now, its running rows their slots at the next batch."""
        if request.is_settled:
            return
        request.is_settled = True
        self._waiting.pop(request, None)
        self.queued_rows -= request.rows - request.rows_entered

    def next_batch(self, now: float) -> Batch | None:
        """Form and return the next segment, or None if there is nothing to compute yet (see `wake_at`)."""
        running = self._running
        step = self._step
        gaps = [slot for slot, one in enumerate(running) if one.ends_at <= step or one.request.is_settled]
        if len(gaps) == len(running):
            running.clear()
            gaps.clear()
        waits_until = self.wake_at(now)
        if waits_until is None or waits_until > now:
            return None
        delayed = not running and self.policy.max_queue_delay_seconds > 0
        entered = self._enter(now, gaps)
        moves = self._close(gaps[len(entered) :])
        if not running:  # the deadlines of all waiting requests had passed
            return None
        if len(running) == self.policy.slots:
            reason = CloseReason.FULL
        else:
            reason = CloseReason.DELAY if delayed else CloseReason.IDLE
        left = [sequence.ends_at - step for sequence in running]
        streams = [slot for slot, sequence in enumerate(running) if sequence.request.on_progress is not None]
        steps = self._segment_steps(left, has_streams=bool(streams))
        ending = [slot for slot, few in enumerate(left) if few <= steps]
        padding = sum(steps - left[slot] for slot in ending)
        return Batch(moves, entered, list(running), left, steps, ending, streams, reason, padding)

    def wake_at(self, now: float) -> float | None:
        """Return when to call `next_batch` again: `now` if at once, None if not before the next `add`."""
        if self._running:
            return now
        if not self.queued_rows:
            return None
        if self.queued_rows >= self.policy.slots:
            return now
        oldest = next(iter(self._waiting))
        return max(now, oldest.queued_at + self.policy.max_queue_delay_seconds)

    def advance(self, batch: Batch, now: float) -> list[Request]:
        """Record a computed segment; return the requests that it finished."""
        self._step += batch.steps
        for slot in batch.streams:
            sequence = batch.running[slot]
            # If it was dropped because it failed, its outputs were not written.
            if not sequence.request.is_settled:
                sequence.request.steps_done[sequence.row] += min(batch.steps, batch.left[slot])
        finished = []
        for slot in batch.ending:
            sequence = batch.running[slot]
            request = sequence.request
            if request.is_settled:  # dropped meanwhile
                continue
            request.rows_left -= 1
            if not request.rows_left:
                request.is_settled = True
                request.finished_at = now
                finished.append(request)
        return finished

    def clear(self) -> list[Request]:
        """Drop all waiting and running requests; return those that were unsettled."""
        known = dict.fromkeys((*(sequence.request for sequence in self._running), *self._waiting))
        live = [request for request in known if not request.is_settled]
        for request in live:
            request.is_settled = True
        self._running.clear()
        self._waiting.clear()
        self.queued_rows = 0
        return live

    def _enter(self, now: float, gaps: list[int]) -> list[tuple[int, Sequence]]:
        """Let waiting sequences enter: first into the gaps, lowest first, then behind the last slot.

        A request whose deadline has passed is dropped; the engine reports it.
        """
        entered: list[tuple[int, Sequence]] = []
        running = self._running
        while self._waiting and (len(entered) < len(gaps) or len(running) < self.policy.slots):
            request = next(iter(self._waiting))
            if request.deadline <= now:
                self.discard(request)
                continue
            if request.started_at is None:
                request.started_at = now
            sequence = Sequence(request, request.rows_entered, self._step + request.steps)
            request.rows_entered += 1
            self.queued_rows -= 1
            if request.rows_entered == request.rows:
                del self._waiting[request]
            if len(entered) < len(gaps):
                slot = gaps[len(entered)]
                running[slot] = sequence
            else:
                slot = len(running)
                running.append(sequence)
            entered.append((slot, sequence))
        return entered

    def _close(self, gaps: list[int]) -> list[tuple[int, int]]:
        """Close the remaining gaps, in ascending order, by moving the last slot's sequence into each."""
        moves = []
        running = self._running
        while gaps:
            last = running.pop()
            if gaps[-1] == len(running):
                gaps.pop()
                continue
            running[gaps[0]] = last
            moves.append((len(running), gaps.pop(0)))
        return moves

    def _segment_steps(self, left: list[int], *, has_streams: bool) -> int:
        policy = self.policy
        longest = policy.longest_segment
        if has_streams:
            longest = min(longest, policy.stream_segment)
        return min(longest, max(min(left), policy.shortest_segment), max(left))

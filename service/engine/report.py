"""What the engine tells its listeners. The engine knows nothing of metrics; metrics listen."""

from dataclasses import dataclass
from typing import Protocol

from service.engine.batcher import CloseReason


@dataclass(frozen=True, slots=True)
class BatchReport:
    """One computed segment."""

    rows: int
    """Live sequences in the batch."""
    steps: int
    """Length of the segment."""
    padding_row_steps: int
    """Row-steps computed beyond the end of their sequence."""
    reason: CloseReason
    compute_seconds: float
    """From forming the batch to its last output."""
    failed_rows: int


class Listener(Protocol):
    """Hears of what happens in an engine, on whatever thread it happens; must be quick and must not raise.

    Batches, and the counts of the queue and the slots, are told under the engine's lock; who has just come is counted
    by the end of the event loop's turn.
    """

    def on_batch(self, report: BatchReport) -> None:
        """A segment was computed."""
        ...

    def on_queue(self, rows: int) -> None:
        """The number of waiting sequences is now `rows`."""
        ...

    def on_slots(self, rows: int) -> None:
        """The number of occupied slots is now `rows`."""
        ...

    def on_rejected(self, rows: int) -> None:
        """A full queue refused a request of `rows` sequences."""
        ...

    def on_cancelled(self, rows: int) -> None:
        """A client went away; its sequences were given up."""
        ...

    def on_deadline_missed(self, rows: int) -> None:
        """A deadline passed; its sequences were given up."""
        ...

    def on_worker_replaced(self) -> None:
        """The worker had died, and another is at work."""
        ...

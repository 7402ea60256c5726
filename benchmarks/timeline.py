"""What became of every request, and what can be said of them together.

Percentiles are over *all* requests. One that was refused, lost or never answered has not been quick: its latency is
infinite, so that a server cannot improve its percentiles by dropping requests.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

LOST, UNANSWERED, UNSENT, UNEXPECTED = 0, 1, 2, 3
"""In place of a status: the connection broke; no answer before the end; no connection was free before the end; a good
answer where a refusal was to be expected."""
NAMES = {LOST: "lost", UNANSWERED: "unanswered", UNSENT: "unsent", UNEXPECTED: "unexpected"}
OK = 200

COLUMNS = ("intended", "sent", "done", "status", "tag")
Record = tuple[float, float, float, int, str]
"""(intended, sent, done, status, tag) of one request."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """One run of the load generator, a row a request; times in seconds from the run's begin."""

    intended: NDArray[np.float64]
    """When the request should have been sent."""
    sent: NDArray[np.float64]
    done: NDArray[np.float64]
    """When its answer was complete, or it was given up."""
    status: NDArray[np.int64]
    tag: NDArray[np.str_]
    seconds: float
    """How long requests were meant to be sent."""
    began: float = 0.0
    """The run's begin on the monotonic clock."""
    client_cpu_seconds: float = 0.0
    """Processor time that the load generator itself has used."""

    @classmethod
    def of(
        cls, records: list[Record], seconds: float, began: float = 0.0, client_cpu_seconds: float = 0.0
    ) -> "Timeline":
        """Records as a timeline, in the order in which they were due."""
        intended, sent, done, status, tag = zip(*sorted(records), strict=True) if records else ((),) * 5
        return cls(
            np.array(intended, np.float64),
            np.array(sent, np.float64),
            np.array(done, np.float64),
            np.array(status, np.int64),
            np.array(tag, np.str_),
            seconds,
            began,
            client_cpu_seconds,
        )

    @classmethod
    def joined(cls, parts: "Sequence[Timeline]") -> "Timeline":
        """Several runs of the same load as one that took as long as all of them."""
        columns: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS}
        return cls(**columns, seconds=sum(part.seconds for part in parts), began=parts[0].began)

    def __len__(self) -> int:
        return len(self.status)

    def where(self, mask: NDArray[np.bool_]) -> "Timeline":
        """Some of the requests."""
        columns: dict[str, Any] = {name: getattr(self, name)[mask] for name in COLUMNS}
        return replace(self, **columns)

    def by_tag(self) -> dict[str, "Timeline"]:
        """Every tag's requests; short tags first, so that numbers are in their order."""
        return {tag: self.where(self.tag == tag) for tag in sorted(set(self.tag.tolist()), key=lambda t: (len(t), t))}

    @property
    def ok(self) -> NDArray[np.bool_]:
        """Which requests got a good answer."""
        return np.equal(self.status, OK)

    @property
    def latency(self) -> NDArray[np.float64]:
        """From when a request should have been sent to the end of its answer, whatever the answer was."""
        return self.done - self.intended

    @property
    def rate(self) -> float:
        """Good answers a second, while requests were being sent."""
        return float((self.ok & (self.done <= self.seconds)).sum() / self.seconds)

    @property
    def offered_rate(self) -> float:
        """Requests a second that were meant to be sent."""
        return len(self) / self.seconds

    def percentile(self, q: float) -> float:
        """The latency that a share `q` per cent of all requests did not exceed; see the module on those that failed."""
        return percentile(np.where(self.ok, self.latency, np.inf), q)

    def by_status(self) -> dict[str, int]:
        """How many requests ended in what."""
        statuses, counts = np.unique(self.status, return_counts=True)
        return {NAMES.get(s, str(s)): n for s, n in zip(statuses.tolist(), counts.tolist(), strict=True)}

    def recovered_after(self, normal_seconds: float) -> float:
        """When the last request was done that failed or took longer than is normal; infinite if that was the last."""
        abnormal = ~self.ok | (self.latency > normal_seconds)
        return math.inf if abnormal[-1:].any() else float(self.done[abnormal].max(initial=0.0))


def percentile(values: NDArray[np.floating], q: float) -> float:
    """The smallest value that at least `q` per cent do not exceed: one that occurred, never one in between."""
    return float(np.percentile(values, q, method="inverted_cdf")) if len(values) else float("nan")

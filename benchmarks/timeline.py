"""Records of all requests of a run, and statistics over them.

Percentiles are over *all* requests. Requests that were refused, lost or never answered have infinite latency, so that a
server cannot improve its percentiles by dropping requests.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

LOST, UNANSWERED, UNSENT, UNEXPECTED = 0, 1, 2, 3
"""Values in place of an HTTP status: the connection broke; no response before the end of the run; no free connection
before the end of the run; a successful response where an error was expected."""
NAMES = {LOST: "lost", UNANSWERED: "unanswered", UNSENT: "unsent", UNEXPECTED: "unexpected"}
OK = 200

COLUMNS = ("intended", "sent", "done", "status", "tag")
Record = tuple[float, float, float, int, str]
"""Record of one request: (intended, sent, done, status, tag)."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """One run of the load generator, one row per request; times are in seconds since the start of the run."""

    intended: NDArray[np.float64]
    """Times at which requests were due."""
    sent: NDArray[np.float64]
    done: NDArray[np.float64]
    """Times at which responses were complete, or requests were given up."""
    status: NDArray[np.int64]
    tag: NDArray[np.str_]
    seconds: float
    """Period during which requests were due."""
    began: float = 0.0
    """Start of the run on the monotonic clock."""
    client_cpu_seconds: float = 0.0
    """Processor time that the load generator itself used."""

    @classmethod
    def of(
        cls, records: list[Record], seconds: float, began: float = 0.0, client_cpu_seconds: float = 0.0
    ) -> "Timeline":
        """Create a timeline from records, sorted by due time."""
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
        """Concatenate several runs of the same load; their durations add up."""
        columns: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS}
        return cls(**columns, seconds=sum(part.seconds for part in parts), began=parts[0].began)

    def __len__(self) -> int:
        return len(self.status)

    def where(self, mask: NDArray[np.bool_]) -> "Timeline":
        """Return the selected requests only."""
        columns: dict[str, Any] = {name: getattr(self, name)[mask] for name in COLUMNS}
        return replace(self, **columns)

    def by_tag(self) -> dict[str, "Timeline"]:
        """Return the requests by tag; shorter tags first, so that numbers are in numerical order."""
        return {tag: self.where(self.tag == tag) for tag in sorted(set(self.tag.tolist()), key=lambda t: (len(t), t))}

    @property
    def ok(self) -> NDArray[np.bool_]:
        """Mask of the requests that were answered successfully."""
        return np.equal(self.status, OK)

    @property
    def latency(self) -> NDArray[np.float64]:
        """Time from when each request was due until its response was complete, whatever its status."""
        return self.done - self.intended

    @property
    def rate(self) -> float:
        """Successful responses per second, within the period in which requests were due."""
        return float((self.ok & (self.done <= self.seconds)).sum() / self.seconds)

    @property
    def offered_rate(self) -> float:
        """Requests per second that were due."""
        return len(self) / self.seconds

    def percentile(self, q: float) -> float:
        """Return the `q`-th percentile of the latency over all requests; failed ones count as infinite."""
        return percentile(np.where(self.ok, self.latency, np.inf), q)

    def by_status(self) -> dict[str, int]:
        """Return the number of requests by status, or by the name of what happened instead."""
        statuses, counts = np.unique(self.status, return_counts=True)
        return {NAMES.get(s, str(s)): n for s, n in zip(statuses.tolist(), counts.tolist(), strict=True)}

    def recovered_after(self, normal_seconds: float) -> float:
        """Return when the last request that failed or took longer than `normal_seconds` was done; 0 if there was none.

        Infinite if it is the last request of the run.
        """
        abnormal = ~self.ok | (self.latency > normal_seconds)
        return math.inf if abnormal[-1:].any() else float(self.done[abnormal].max(initial=0.0))


def percentile(values: NDArray[np.floating], q: float) -> float:
    """Return the smallest value that at least `q` percent do not exceed, never interpolated; NaN if there is none."""
    return float(np.percentile(values, q, method="inverted_cdf")) if len(values) else float("nan")

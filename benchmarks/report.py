"""The report of all measurements and their environment, as Markdown."""

import math
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.chart import Point
from benchmarks.scenarios import Overload, Run, Stretch
from benchmarks.sequences import Recurrent
from benchmarks.served import BATCH
from benchmarks.stn_limit import StnLimit
from benchmarks.timeline import OK, UNSENT, Timeline, percentile
from service.settings import granted_cpus

PERCENTILES = (50, 90, 99, 99.9)
PACKAGES = ("onnxruntime", "numpy", "opencv-python-headless", "uvicorn", "uvloop", "httptools", "fastapi")
CHART = "benchmarks.svg"
PLAIN = "plain FastAPI"
"""Baseline over HTTP: FastAPI with the model in its handler."""
WHOLE = "whole requests"
"""Baseline over HTTP: the service with whole-request batching."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A workload over HTTP, measured on the service and on a baseline in turns."""

    workload: str
    other: str
    """Baseline: `PLAIN` or `WHOLE`."""
    connections: int
    ours: Timeline
    theirs: Timeline

    def runs(self) -> list[Run]:
        """Return both measurements as rows of a table."""
        return [
            Run(self.workload, self.connections, self.ours),
            Run(f"{self.workload}, {self.other}", self.connections, self.theirs),
        ]


@dataclass(frozen=True, slots=True)
class Start:
    """The start of a service, before any request."""

    seconds: float
    """Time until all processes were ready."""
    memory: float
    """Resident memory of all processes, in bytes."""


@dataclass(slots=True)
class Results:
    """All measurements of one call of `glimpse bench`; those not made are empty."""

    environment: dict[str, str]
    start: Start | None = None
    runs: list[Run] = field(default_factory=list)
    sweeps: dict[str, list[Run]] = field(default_factory=dict)
    overloads: dict[str, Overload] = field(default_factory=dict)
    soak: list[Stretch] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)
    stn_limit: StnLimit | None = None
    stn_rate: float = 0.0
    """Pictures per second over HTTP, measured in turns with the limit."""
    recurrent: dict[str, Recurrent] = field(default_factory=dict)


def environment() -> dict[str, str]:
    """Return date, command, versions and machine."""
    memory = next((line.split()[1] for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), "0")
    model = next((line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if "model name" in line), "")
    return {
        "Date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "Command": " ".join(["glimpse", *sys.argv[1:]]),
        "Glimpse": f"{_version('glimpse')}, commit {_git('rev-parse', '--short', 'HEAD') or 'unknown'}"
        + (", with changes" if _git("status", "--porcelain", "--untracked-files=no") else ""),
        "Machine": f"{model or platform.machine()}, {granted_cpus()} cores, {int(memory) / 2**20:.0f} GiB",
        "Load before": f"{os.getloadavg()[0]:.2f} (average of a minute; an idle machine has 0)",
        "System": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "Packages": ", ".join(f"{name} {_version(name)}" for name in PACKAGES),
    }


def markdown(results: Results) -> str:
    """Return the whole report."""
    sections = ["# Benchmarks", table(("", ""), results.environment.items())]
    if claims := list(_claims(results)):
        sections += ["## The promises", table(("What", "Measured", "Aim"), claims)]
    if results.runs:
        sections += [
            "## Over HTTP",
            "Percentiles are over all requests; one that failed counts as infinitely late. "
            "Latency of an open loop counts from when the request was due.",
            requests_table(results.runs),
        ]
    if sides := [run for run in results.runs if run.server is not None]:
        sections += ["What the service says of the same requests, in the mean:", server_table(sides)]
    if results.sweeps:
        sections += [
            "## Latency against load",
            f"![Latency against load]({CHART})",
            requests_table([run for runs in results.sweeps.values() for run in runs], with_kinds=False),
        ]
    if results.overloads:
        sections += ["## Overload", overload_table(results.overloads)]
    if results.soak:
        sections += ["## A long load", soak_table(results.soak)]
    if results.comparisons:
        sections += [
            "## Beside others over HTTP",
            f"Measured in turns. *{PLAIN}* runs the same graph in its handler, in as many processes and threads; "
            f"*{WHOLE}* is this service with segments that end when their longest sequence does.",
            requests_table([run for comparison in results.comparisons for run in comparison.runs()]),
        ]
    if results.stn_limit is not None:
        sections += ["## The STN beside its limit", limit_table(results.stn_limit, results.stn_rate)]
    for name, found in results.recurrent.items():
        sections += [f"## {name.upper()} without HTTP", recurrent_table(found)]
    return "\n\n".join(sections) + "\n"


def requests_table(runs: Iterable[Run], *, with_kinds: bool = True) -> str:
    """Return a table with one row per run and one for each of its kinds of request."""
    rows = []
    for run in runs:
        rows.append((run.name, str(run.connections), *_figures(run.timeline), _errors(run.timeline)))
        kinds = run.timeline.by_tag()
        if with_kinds and len(kinds) > 1:
            rows += [(f"- {tag}", "", *_figures(part), _errors(part)) for tag, part in kinds.items()]
    percentiles = [f"p{q:g} ms" for q in PERCENTILES]
    return table(("", "connections", "asked/s", "answered/s", *percentiles, "errors"), rows)


def server_table(runs: Iterable[Run]) -> str:
    """Return a table of the same runs by the service's own metrics."""
    return table(
        ("", "decode ms", "queue ms", "compute ms", "encode ms", "batch", "padding", "counted / sent", "client µs"),
        [
            (
                run.name,
                *(f"{1e3 * t:.3f}" for t in (s.decode, s.queue, s.compute, s.encode)),
                f"{s.batch_rows:.1f}",
                f"{s.padding_share:.1%}",
                f"{s.requests} / {len(run.timeline)}",
                f"{1e6 * run.timeline.client_cpu_seconds / max(1, len(run.timeline)):.0f}",
            )
            for run in runs
            if (s := run.server) is not None
        ],
    )


def overload_table(overloads: Mapping[str, Overload]) -> str:
    """Return a table of overloads, one column each."""
    columns = [_overload_figures(overload) for overload in overloads.values()]
    return table(("", *overloads), [(what, *(column[what] for column in columns)) for what in columns[0]])


def _overload_figures(overload: Overload) -> dict[str, str]:
    flood, refused = overload.flood, overload.refused
    sent = flood.where(flood.status != UNSENT)
    return {
        "Throughput before, /s": f"{overload.peak_rate:.0f}",
        "Asked for, /s": f"{flood.offered_rate:.0f}",
        "Good answers, /s": f"{flood.rate:.0f}",
        "Answers by status": ", ".join(f"{name}: {count}" for name, count in flood.by_status().items()),
        "Sent late, for want of a free connection, p50 / p99 ms": _p50_and_p99(sent.sent - sent.intended),
        "Refused, from when due, p50 / p99 ms": _p50_and_p99(refused.latency),
        "Refused, from when sent, p50 / p99 ms": _p50_and_p99(refused.done - refused.sent),
        "Normal again after, ms": _ms(overload.recovery_seconds),
        "Memory before / after, MB": f"{overload.memory_before / 1e6:.0f} / {overload.memory_after / 1e6:.0f}",
    }


def soak_table(stretches: Iterable[Stretch]) -> str:
    """Return a table of a long load, one row per stretch."""
    rows, until = [], 0.0
    for stretch in stretches:
        timeline = stretch.timeline
        until += timeline.seconds
        rows.append(
            (
                f"{until:g}",
                f"{timeline.rate:.0f}",
                _ms(timeline.percentile(99)),
                _errors(timeline),
                f"{stretch.memory / 1e6:.0f}",
            )
        )
    return table(("until, s", "answered/s", "p99 ms", "errors", "memory, MB"), rows)


def limit_table(limit: StnLimit, http_rate: float) -> str:
    """Return a table of the STN without HTTP beside the service's throughput."""
    stages = (limit.decode_seconds, limit.model_seconds, limit.encode_seconds)
    return table(
        ("processes", "pictures/s", "over HTTP/s", "decode µs", "model µs", "encode µs"),
        [
            (
                str(limit.processes),
                f"{limit.rate:.0f}",
                f"{http_rate:.0f}",
                *(f"{1e6 * seconds:.1f}" for seconds in stages),
            )
        ],
    )


def recurrent_table(found: Recurrent) -> str:
    """Return a table of the engine, its upper limit and whole-request batching."""
    columns = list(found.engine.by_tag())
    rows = []
    for name, timeline in (
        ("Engine-free loop, equal lengths", found.engine_free),
        ("Whole-request batching", found.whole_request),
        ("The engine", found.engine),
    ):
        medians = [_ms(part.percentile(50)) for part in timeline.by_tag().values()]
        rows.append((name, f"{timeline.rate:.0f}", *medians))
    return table(("", "sequences/s", *(f"p50 of {length} steps, ms" for length in columns)), rows)


def points(runs: Sequence[Run]) -> list[Point]:
    """Return the chart's points for a sweep, whose last run is at the full throughput."""
    max_rate = runs[-1].timeline.offered_rate
    return [
        Point(run.timeline.offered_rate / max_rate, run.timeline.percentile(50), run.timeline.percentile(99))
        for run in runs
    ]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; the first column is text, the others are numbers."""
    rule = [":--", *["--:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))


def _claims(results: Results) -> Iterator[tuple[str, str, str]]:
    """Yield (what, measured, aim) for every promise of the design, where possible as a ratio of two measurements."""
    if results.start:
        yield "Start to ready", f"{results.start.seconds:.1f} s", "< 3 s"
        yield "Memory at rest", f"{results.start.memory / 1e6:.0f} MB", "< 400 MB"
    for found in results.comparisons:
        ours, theirs = found.ours, found.theirs
        where = f"{found.workload.upper()}, {found.connections} connection{'s' if found.connections > 1 else ''}"
        if found.other == WHOLE:
            yield from _over_whole_requests(where, ours, theirs)
        elif found.connections == 1:
            yield f"{where}: {PLAIN}'s median over ours", _ratio(theirs.percentile(50), ours.percentile(50)), "> 1"
        else:
            yield f"{where}: throughput over {PLAIN}'s", _ratio(ours.rate, theirs.rate), "> 1"
    if results.stn_limit:
        share = results.stn_rate / results.stn_limit.rate
        yield f"STN, {BATCH} connections: share of the limit without HTTP", f"{share:.0%}", ">= 75 %"
    for name, ways in results.recurrent.items():
        where = f"{name.upper()}, engine"
        yield from _over_whole_requests(where, ways.engine, ways.whole_request)
        yield f"{where}: share of the engine-free loop", f"{ways.engine.rate / ways.engine_free.rate:.0%}", ">= 85 %"
    for name, overload in results.overloads.items():
        where = f"Overload, {name}"
        yield f"{where}: refusals, p99", f"{_ms(percentile(overload.refused.latency, 99))} ms", "< 50 ms"
        yield (
            f"{where}: good answers, share of the throughput",
            f"{overload.flood.rate / overload.peak_rate:.0%}",
            ">= 90 %",
        )
        yield f"{where}: normal again after", f"{_ms(overload.recovery_seconds)} ms", "< 1000 ms"


def _over_whole_requests(where: str, ours: Timeline, whole: Timeline) -> Iterator[tuple[str, str, str]]:
    yield f"{where}: throughput over whole-request batching", _ratio(ours.rate, whole.rate), ">= 1.5"
    shortest = [next(iter(timeline.by_tag().values()), timeline) for timeline in (ours, whole)]
    medians = [timeline.percentile(50) for timeline in shortest]
    yield f"{where}: shortest's median over whole-request batching's", _ratio(*medians), "<= 0.33"


def _figures(timeline: Timeline) -> list[str]:
    rates = [f"{timeline.offered_rate:.0f}", f"{timeline.rate:.0f}"]
    return [*rates, *(_ms(timeline.percentile(q)) for q in PERCENTILES)]


def _errors(timeline: Timeline) -> str:
    return ", ".join(f"{name}: {count}" for name, count in timeline.by_status().items() if name != str(OK)) or "none"


def _p50_and_p99(seconds: NDArray[np.float64]) -> str:
    return f"{_ms(percentile(seconds, 50))} / {_ms(percentile(seconds, 99))}"


def _ratio(ours: float, theirs: float) -> str:
    return f"{ours / theirs:.2f}" if theirs else "-"


def _ms(seconds: float) -> str:
    return "-" if math.isnan(seconds) else f"{1e3 * seconds:.2f}" if math.isfinite(seconds) else "never"


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _git(*arguments: str) -> str:
    """Return the output of git in this working tree, or an empty string if git or the tree is missing."""
    try:
        completed = subprocess.run(  # noqa: S603
            ["git", *arguments],  # noqa: S607
            cwd=Path(__file__).parent, capture_output=True, text=True, check=False,
        )  # fmt: skip
    except OSError:
        return ""
    return completed.stdout.strip()

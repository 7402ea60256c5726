"""What was measured, as Markdown, with what it was measured on."""

import math
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.baselines import BATCH, StnLimit
from benchmarks.chart import Point
from benchmarks.scenarios import Overload, Run
from benchmarks.sequences import Recurrent
from benchmarks.timeline import OK, UNSENT, Timeline, percentile
from service.settings import granted_cpus

PERCENTILES = (50, 90, 99, 99.9)
PACKAGES = ("onnxruntime", "numpy", "opencv-python-headless", "uvicorn", "uvloop", "httptools", "fastapi")
CHART = "benchmarks.svg"


@dataclass(slots=True)
class Results:
    """All that one call of `glimpse bench` has measured; what it has not is empty."""

    environment: dict[str, str]
    runs: list[Run] = field(default_factory=list)
    sweeps: dict[str, list[Run]] = field(default_factory=dict)
    overload: Overload | None = None
    stn_limit: StnLimit | None = None
    plain: Run | None = None
    """Plain FastAPI at one connection."""
    recurrent: dict[str, Recurrent] = field(default_factory=dict)

    def run(self, name: str, connections: int) -> Run | None:
        """A closed-loop run by its name, if it was made."""
        return next((run for run in self.runs if (run.name, run.connections) == (name, connections)), None)


def environment() -> dict[str, str]:
    """Where, when and with what."""
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
    """The whole report."""
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
    if results.overload is not None:
        sections += ["## Overload", overload_table(results.overload)]
    if results.stn_limit is not None:
        sections += ["## The STN without HTTP", limit_table(results.stn_limit)]
    for name, found in results.recurrent.items():
        sections += [f"## {name.upper()} without HTTP", recurrent_table(found)]
    return "\n\n".join(sections) + "\n"


def requests_table(runs: Iterable[Run], *, with_kinds: bool = True) -> str:
    """A row a run, and one for each of its kinds of requests."""
    rows = []
    for run in runs:
        rows.append((run.name, str(run.connections), *_figures(run.timeline), _errors(run.timeline)))
        kinds = run.timeline.by_tag()
        if with_kinds and len(kinds) > 1:
            rows += [(f"- {tag}", "", *_figures(part), _errors(part)) for tag, part in kinds.items()]
    percentiles = [f"p{q:g} ms" for q in PERCENTILES]
    return table(("", "connections", "asked/s", "answered/s", *percentiles, "errors"), rows)


def server_table(runs: Iterable[Run]) -> str:
    """The service's own view."""
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


def overload_table(overload: Overload) -> str:
    """A server that is asked for too much."""
    flood, refused = overload.flood, overload.refused
    sent = flood.where(flood.status != UNSENT)
    return table(
        ("", ""),
        [
            ("Throughput before, /s", f"{overload.peak_rate:.0f}"),
            ("Asked for, /s", f"{flood.offered_rate:.0f}"),
            ("Good answers, /s", f"{flood.rate:.0f}"),
            ("Answers by status", ", ".join(f"{name}: {count}" for name, count in flood.by_status().items())),
            ("Sent late, for want of a free connection, p50 / p99 ms", _middle_and_end(sent.sent - sent.intended)),
            ("Refused, from when due, p50 / p99 ms", _middle_and_end(refused.latency)),
            ("Refused, from when sent, p50 / p99 ms", _middle_and_end(refused.done - refused.sent)),
            ("Normal again after, ms", _ms(overload.recovery_seconds)),
            ("Memory before / after, MB", f"{overload.memory_before / 1e6:.0f} / {overload.memory_after / 1e6:.0f}"),
        ],
    )


def limit_table(limit: StnLimit) -> str:
    """What cores can do that do nothing else."""
    stages = (limit.decode_seconds, limit.model_seconds, limit.encode_seconds)
    return table(
        ("processes", "pictures/s", "decode µs", "model µs", "encode µs"),
        [(str(limit.processes), f"{limit.rate:.0f}", *(f"{1e6 * seconds:.1f}" for seconds in stages))],
    )


def recurrent_table(found: Recurrent) -> str:
    """The engine between its limit and whole-request batching."""
    columns = list(found.engine.by_tag())
    rows = [("Engine-free loop, equal lengths", f"{found.engine_free_rate:.0f}", *[""] * len(columns))]
    for name, timeline in (("Whole-request batching", found.whole_request), ("The engine", found.engine)):
        medians = [_ms(part.percentile(50)) for part in timeline.by_tag().values()]
        rows.append((name, f"{timeline.rate:.0f}", *medians))
    return table(("", "sequences/s", *(f"p50 of {length} steps, ms" for length in columns)), rows)


def points(runs: Sequence[Run]) -> list[Point]:
    """A sweep, whose last run was at the throughput, for the chart."""
    most = runs[-1].timeline.offered_rate
    return [
        Point(run.timeline.offered_rate / most, run.timeline.percentile(50), run.timeline.percentile(99))
        for run in runs
    ]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others numbers."""
    rule = [":--", *["--:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))


def _claims(results: Results) -> Iterator[tuple[str, str, str]]:
    """What the design promises, as ratios of two things that were measured here."""
    alone, crowd, plain = results.run("stn", 1), results.run("stn", BATCH), results.plain
    if alone and plain:
        ratio = plain.timeline.percentile(50) / alone.timeline.percentile(50)
        yield "STN, 1 connection: plain FastAPI's median over ours", f"{ratio:.2f}", "> 1"
    if crowd and results.stn_limit:
        ratio = crowd.timeline.rate / results.stn_limit.rate
        yield f"STN, {BATCH} connections: share of the limit without HTTP", f"{ratio:.0%}", ">= 75 %"
    for name, found in results.recurrent.items():
        rates = {"engine": found.engine.rate}
        if over_http := results.run(name, BATCH):
            rates["over HTTP"] = over_http.timeline.rate
        for way, rate in rates.items():
            ratio = rate / found.whole_request.rate
            yield f"{name.upper()}, {way}: throughput over whole-request batching", f"{ratio:.2f}", ">= 1.5"
        ratio = found.engine.rate / found.engine_free_rate
        yield f"{name.upper()}, engine: share of the engine-free loop", f"{ratio:.0%}", ">= 85 %"
        medians = [next(iter(t.by_tag().values())).percentile(50) for t in (found.engine, found.whole_request)]
        ratio = medians[0] / medians[1]
        yield f"{name.upper()}, engine: shortest's median over whole-request batching's", f"{ratio:.2f}", "<= 0.33"
    if overload := results.overload:
        yield "Overload: refusals, p99", f"{_ms(percentile(overload.refused.latency, 99))} ms", "< 50 ms"
        yield (
            "Overload: good answers, share of the throughput",
            f"{overload.flood.rate / overload.peak_rate:.0%}",
            ">= 90 %",
        )
        yield "Overload: normal again after", f"{_ms(overload.recovery_seconds)} ms", "< 1000 ms"


def _figures(timeline: Timeline) -> list[str]:
    rates = [f"{timeline.offered_rate:.0f}", f"{timeline.rate:.0f}"]
    return [*rates, *(_ms(timeline.percentile(q)) for q in PERCENTILES)]


def _errors(timeline: Timeline) -> str:
    return ", ".join(f"{name}: {count}" for name, count in timeline.by_status().items() if name != str(OK)) or "none"


def _middle_and_end(seconds: NDArray[np.float64]) -> str:
    return f"{_ms(percentile(seconds, 50))} / {_ms(percentile(seconds, 99))}"


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
    """What git says of this working tree; nothing where there is none."""
    try:
        asked = subprocess.run(  # noqa: S603
            ["git", *arguments],  # noqa: S607
            cwd=Path(__file__).parent, capture_output=True, text=True, check=False,
        )  # fmt: skip
    except OSError:
        return ""
    return asked.stdout.strip()

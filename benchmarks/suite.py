"""`glimpse bench`: the measurements of each scenario, and where the report goes."""

import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import report, scenarios, server, workloads
from benchmarks.chart import latency_chart
from benchmarks.client import Call
from benchmarks.sequences import recurrent, subject
from benchmarks.served import BATCH
from benchmarks.stn_limit import StnLimit, stn_processes
from benchmarks.timeline import Timeline
from benchmarks.turns import in_turns
from service.settings import Settings, granted_cpus

ALL = "all"
BASELINES = "baselines"
OVERLOAD = "overload"
SOAK = "soak"
SCENARIOS = (*workloads.WORKLOADS, OVERLOAD, SOAK, BASELINES, ALL)
RATED = (*workloads.WORKLOADS, OVERLOAD)
"""Scenarios that take a rate."""
ONE_SERVICE = (*workloads.WORKLOADS, OVERLOAD, SOAK)
"""Scenarios that need only one service; the others start more of them."""
SWEPT = ("stn", "draw", "ntm")
FIGURES_SECONDS = 2.0
"""Time within which the service has measured its own memory."""
PEAK_CONNECTIONS = 16
"""Connections that keep every process busy, and whose largest requests fit into its queue."""


def bench(
    scenario: str,
    *,
    url: str | None,
    api_key: str = "",
    workers: int,
    seconds: float,
    connections: int,
    rate: float | None,
    out: Path | None,
) -> None:
    """Measure, print the report, and write it to a folder.

    Args:
        scenario: one of `SCENARIOS`.
        url: URL of a running service; one is started and stopped when None.
        api_key: key that is sent with every request, unless it is empty.
        workers: number of processes of the service that is started.
        seconds: length of each measurement; of a soak, in all.
        connections: number of connections of a workload; in an open loop, the largest.
        rate: requests a second. Makes a workload an open loop, and replaces the rate of an overload.
        out: folder for `benchmarks.md` and its picture; they are not written when None.

    Raises:
        BenchmarkError: there is no such scenario, it cannot be measured in this way, there is no service, or no
            request got a good response.
    """
    _check_arguments(scenario, url, rate)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)  # now, because the report comes after minutes of work
    # SIGTERM ends like any other error, so that servers that were started are stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    environment = report.environment()
    if api_key:
        environment["Command"] = environment["Command"].replace(api_key, "...")
    results = report.Results(environment)
    began = time.monotonic()
    with _service(url, workers) as service_url:
        if url is None:
            ready_after = time.monotonic() - began
            time.sleep(FIGURES_SECONDS)
            results.start = report.Start(ready_after, server.metrics(service_url)[server.MEMORY])
        _over_http(results, scenario, service_url, api_key, seconds, connections, rate)
        if scenario in {BASELINES, ALL}:
            _beside_others(results, service_url, seconds, workers)
    if scenario in {BASELINES, ALL}:
        _without_http(results, seconds)
    text = report.markdown(results)
    print(text)
    if out is not None:
        (out / "benchmarks.md").write_text(text, encoding="utf-8")
        if results.sweeps:
            lines = {name: report.points(runs) for name, runs in results.sweeps.items()}
            (out / report.CHART).write_text(latency_chart(lines), encoding="utf-8")


def _check_arguments(scenario: str, url: str | None, rate: float | None) -> None:
    if scenario not in SCENARIOS:
        raise server.BenchmarkError(f"there is no scenario {scenario!r}; there are {', '.join(SCENARIOS)}")
    if rate is not None and scenario not in RATED:
        raise server.BenchmarkError(f"{scenario} goes at rates of its own; --rate is for {', '.join(RATED)}")
    if url is not None and scenario not in ONE_SERVICE:
        raise server.BenchmarkError(f"{scenario} starts services of its own; --url is for {', '.join(ONE_SERVICE)}")


@contextlib.contextmanager
def _service(url: str | None, workers: int) -> Iterator[str]:
    if url is None:
        with server.glimpse(workers) as started:
            yield started
    else:
        server.check(url)
        yield url


def _over_http(
    results: report.Results,
    scenario: str,
    url: str,
    api_key: str,
    seconds: float,
    connections: int,
    rate: float | None,
) -> None:
    def made(make: Callable[[], list[Call]]) -> list[Call]:
        return [replace(call, api_key=api_key) for call in make()]

    for name, make in workloads.WORKLOADS.items():
        if scenario not in {name, ALL}:
            continue
        calls = made(make)
        _say(f"{name}: closed loop" if rate is None else f"{name}: open loop")
        if scenario == ALL:
            counts = (1, BATCH)
            results.runs += [scenarios.closed(name, url, calls, connections=n, seconds=seconds) for n in counts]
        elif rate is None:
            results.runs.append(scenarios.closed(name, url, calls, connections=connections, seconds=seconds))
        else:
            results.runs.append(scenarios.opened(name, url, calls, rate=rate, seconds=seconds, connections=connections))
        _require_good_responses(results.runs[-1].timeline)
        if scenario == ALL and name in SWEPT:
            _say(f"{name}: latency against load")
            peak = results.runs[-1].timeline.rate
            results.sweeps[name] = scenarios.sweep(name, url, calls, peak_rate=peak, seconds=seconds)
    if scenario == SOAK:
        _say("everything: a long load")
        results.soak = scenarios.soak(url, made(workloads.everything), connections=connections, seconds=seconds)
        _require_good_responses(Timeline.joined([stretch.timeline for stretch in results.soak]))
    if scenario in {OVERLOAD, ALL}:
        for name, make in workloads.OVERLOADS.items():
            calls = made(make)
            _say(f"{name}: overload")
            unhurried = scenarios.closed(name, url, calls, connections=PEAK_CONNECTIONS, seconds=seconds).timeline
            _require_good_responses(unhurried)
            peak = unhurried.rate
            results.overloads[name] = scenarios.overload(url, calls, peak_rate=peak, rate=rate, seconds=seconds)


def _require_good_responses(timeline: Timeline) -> None:
    if not timeline.ok.any():
        ends = ", ".join(f"{count} x {status}" for status, count in timeline.by_status().items())
        raise server.BenchmarkError(f"no request got a good response: {ends or 'none was sent'}")


def _beside_others(results: report.Results, url: str, seconds: float, workers: int) -> None:
    """Compare the service with its baselines over HTTP."""

    def compare(name: str, other: str, other_url: str, connections: int) -> None:
        _say(f"{name}: {connections} connections, beside {other}")
        calls = workloads.WORKLOADS[name]()
        urls = {"service": url, other: other_url}
        contenders = {who: scenarios.contender(where, calls, connections) for who, where in urls.items()}
        ours, theirs = map(Timeline.joined, in_turns(contenders, seconds).values())
        results.comparisons.append(report.Comparison(name, other, connections, ours, theirs))

    with server.plain(workers) as plain:
        for connections in (1, BATCH):
            compare("stn", report.PLAIN, plain, connections)
    with server.whole_requests(workers) as whole:
        for name in ("draw", "ntm"):
            compare(name, report.WHOLE, whole, BATCH)
    _say("stn: beside its limit")
    service = scenarios.contender(url, workloads.stn(), BATCH)
    with stn_processes(Settings().models, granted_cpus()) as limit:
        found: dict[str, list[Any]] = in_turns({"service": service, "limit": limit}, seconds)
    results.stn_limit = StnLimit.mean(found["limit"])
    results.stn_rate = Timeline.joined(found["service"]).rate


def _without_http(results: report.Results, seconds: float) -> None:
    repository = Settings().models
    for name in ("draw", "ntm"):
        _say(f"{name}: without HTTP")
        results.recurrent[name] = recurrent(subject(name, repository), seconds)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)

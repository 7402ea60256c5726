"""The scenarios, each for a moment, against a server that answers at once."""

import pytest

from benchmarks import scenarios, workloads
from benchmarks.client import Call
from benchmarks.timeline import Timeline
from tests.benchmarks.tiny_server import TinyServer


@pytest.mark.parametrize("name", ["stn", "draw", "ntm", "mixed"])
def test_closed_loop_counts_what_the_server_counts(tiny_server: TinyServer, name: str) -> None:
    """Every request of the run is answered, and the warm-up is none of it."""
    calls = workloads.WORKLOADS[name]()

    run = scenarios.closed(name, tiny_server.url, calls, connections=4, seconds=0.1)

    assert run.server is not None
    assert run.timeline.by_status() == {"200": run.server.requests}
    assert set(run.timeline.by_tag()) == {call.tag for call in calls}
    assert tiny_server.requests.total() > run.server.requests + tiny_server.requests["/metrics"]


def test_contender_is_asked_for_nothing_but_its_work(tiny_server: TinyServer) -> None:
    """It may be no Glimpse; and what it answers after its turn does not count."""
    timeline = scenarios.contender(tiny_server.url, workloads.stn(2), 4)(0.05)

    assert set(tiny_server.requests) == {"/stn/rectify"}
    assert 0 < len(timeline) <= tiny_server.requests.total()
    assert timeline.done.max() <= timeline.seconds == 0.05


def test_sweep_goes_up_to_the_throughput(tiny_server: TinyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each load is offered as it is meant to be."""
    monkeypatch.setattr(scenarios, "POOL", 16)

    runs = scenarios.sweep("stn", tiny_server.url, workloads.stn(2), peak_rate=2000.0, seconds=0.1)

    offered = [run.timeline.offered_rate for run in runs]
    assert offered == pytest.approx([share * 2000 for share in scenarios.LOADS], rel=0.5)
    assert all(set(run.timeline.by_status()) == {"200"} for run in runs)


def test_overload_asks_for_ten_times_as_much(tiny_server: TinyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refusals are told from good answers; a server that is quick throughout has recovered at once."""
    monkeypatch.setattr(scenarios, "OVERLOAD_POOL", 32)
    monkeypatch.setattr(scenarios, "PROBE_SECONDS", 0.2)
    monkeypatch.setattr(scenarios, "NORMAL", 1e6)
    calls = [Call("a", "GET", "/answer"), Call("b", "GET", "/status/429")]

    found = scenarios.overload(tiny_server.url, calls, peak_rate=100.0, rate=None, seconds=0.3)

    assert found.flood.offered_rate == pytest.approx(1000, rel=0.3)
    assert len(found.refused) == found.flood.by_status()["429"]
    assert found.flood.by_status()["200"] == pytest.approx(len(found.flood) / 2, abs=1)
    assert (found.memory_before, found.memory_after) == (3000.0, 3000.0)


def test_long_load_is_measured_in_equal_parts(tiny_server: TinyServer) -> None:
    """With the memory of all processes after each."""
    found = scenarios.soak(tiny_server.url, workloads.ntm(4), connections=2, seconds=0.5)

    assert [part.timeline.seconds for part in found] == [0.5 / scenarios.STRETCHES] * scenarios.STRETCHES
    assert {part.memory for part in found} == {3000.0}
    assert sum(len(part.timeline) for part in found) == tiny_server.requests["/ntm/copy"]


def test_refusals_are_answers_and_lost_requests_are_not() -> None:
    """Only what the server has said counts for how quickly it refuses."""
    records = [(0.0, 0.0, took, status, "a") for took, status in ((0.1, 200), (0.2, 429), (0.3, 503), (0.4, 0))]

    found = scenarios.Overload(1.0, Timeline.of(records, seconds=1.0), 0.0, 0.0, 0.0)

    assert found.refused.latency.tolist() == [0.2, 0.3]

"""The load generator against a real server: everything is counted, nothing goes on for ever."""

import time

import numpy as np
import pytest

from benchmarks.arrivals import Arrivals, ClosedLoop, OpenLoop
from benchmarks.client import Call, address_of, load
from benchmarks.scenarios import run
from benchmarks.timeline import Timeline
from tests.benchmarks.tiny_server import TinyServer

ANSWER = Call("answer", "GET", "/answer")


def sent(
    server: TinyServer, arrivals: Arrivals, *paths: str, connections: int = 4, patience_seconds: float = 5.0
) -> Timeline:
    calls = [Call(path, "GET", path) for path in paths]
    return run(load(server.url, calls, arrivals, connections=connections, patience_seconds=patience_seconds))


def test_closed_loop_sends_as_many_as_asked(tiny_server: TinyServer) -> None:
    """The server has seen as many requests as the timeline has, over as many connections as asked."""
    timeline = sent(tiny_server, ClosedLoop(30.0, count=100), "/answer")

    assert timeline.by_status() == {"200": 100}
    assert tiny_server.requests == {"/answer": 100}
    assert len(tiny_server.connections) == 4


def test_closed_loop_ends_at_its_time(tiny_server: TinyServer) -> None:
    """Requests are sent until then and answered after."""
    timeline = sent(tiny_server, ClosedLoop(0.1), "/answer")

    assert 0 < timeline.sent.max() < 0.1
    assert len(timeline) == tiny_server.requests["/answer"]
    assert timeline.client_cpu_seconds > 0


def test_each_connection_has_one_request_at_a_time(tiny_server: TinyServer) -> None:
    """At no time are more requests under way than there are connections."""
    timeline = sent(tiny_server, ClosedLoop(30.0, count=200), "/answer", connections=3)

    changes = sorted([(t, 1) for t in timeline.sent] + [(t, -1) for t in timeline.done])
    under_way = [sum(change for _, change in changes[: n + 1]) for n in range(len(changes))]
    assert max(under_way) == 3


def test_calls_are_sent_in_turn_with_their_bodies(tiny_server: TinyServer) -> None:
    """After the last comes the first; each is tagged with its kind."""
    calls = [Call("a", "POST", "/a", b"x" * 5000, "text/plain"), Call("b", "GET", "/b")]

    timeline = run(load(tiny_server.url, calls, ClosedLoop(30.0, count=5), connections=1))

    assert timeline.tag.tolist() == ["a", "b", "a", "b", "a"]
    assert [len(body) for body in tiny_server.bodies] == [5000, 0, 5000, 0, 5000]


@pytest.mark.parametrize(
    ("path", "ending"),
    [
        ("/chunks", "200"),
        ("/until-close", "200"),
        ("/close", "200"),
        ("/status/429", "429"),
        ("/break", "lost"),
        ("/nonsense", "lost"),
    ],
)
def test_every_ending_is_recorded_and_the_load_goes_on(tiny_server: TinyServer, path: str, ending: str) -> None:
    """Whatever a server does to a connection, the next request is sent, over another if need be."""
    timeline = sent(tiny_server, ClosedLoop(30.0, count=12), path, "/answer", connections=2)

    by_tag = timeline.by_tag()
    assert by_tag[path].by_status() == {ending: 6}
    assert by_tag["/answer"].by_status() == {"200": 6}
    assert tiny_server.requests == {path: 6, "/answer": 6}


@pytest.mark.parametrize(
    ("path", "expected", "counted"),
    [("/status/429", 429, "200"), ("/status/429", 404, "429"), ("/answer", 404, "unexpected")],
)
def test_expected_refusal_is_a_good_answer_and_nothing_else_is(
    tiny_server: TinyServer, path: str, expected: int, counted: str
) -> None:
    """What a call is to be answered with is what counts as well done."""
    call = Call("a", "GET", path, status=expected)

    timeline = run(load(tiny_server.url, [call], ClosedLoop(30.0, count=3), connections=1))

    assert timeline.by_status() == {counted: 3}


def test_open_loop_sends_every_request_once_and_not_before_it_is_due(tiny_server: TinyServer) -> None:
    """As many as arrive, at a steady pace."""
    timeline = sent(tiny_server, OpenLoop(np.arange(100) / 500, 0.2), "/answer")

    assert timeline.intended.tolist() == pytest.approx([n / 500 for n in range(100)])
    assert (timeline.sent >= timeline.intended).all()
    assert timeline.by_status() == {"200": 100}
    assert tiny_server.requests == {"/answer": 100}


def test_connections_take_turns(tiny_server: TinyServer) -> None:
    """The one that has been free for longest is next: each may lead to a process of its own."""
    sent(tiny_server, OpenLoop(np.arange(4) / 50, 0.08), "/answer", connections=4)

    assert [connection.requests for connection in tiny_server.connections] == [1, 1, 1, 1]


def test_request_that_waited_for_a_connection_counts_from_when_it_was_due(tiny_server: TinyServer) -> None:
    """With one connection, of requests that are due together the last has waited for all."""
    timeline = sent(tiny_server, OpenLoop(np.arange(50) / 1e6, 50e-6), "/answer", connections=1)

    assert len(timeline) == 50
    assert (timeline.sent[1:] >= timeline.done[:-1]).all()
    assert timeline.latency[-1] == timeline.done[-1] - timeline.intended[-1] > timeline.done[-2] - 50e-6


def test_what_is_never_answered_or_never_sent_is_recorded_when_patience_ends(tiny_server: TinyServer) -> None:
    """Two connections wait for ever; what was due after that finds none free."""
    began = time.monotonic()

    timeline = sent(tiny_server, OpenLoop(np.arange(10) / 100, 0.1), "/never", connections=2, patience_seconds=0.1)

    assert timeline.by_status() == {"unanswered": 2, "unsent": 8}
    assert time.monotonic() - began < 5


def test_open_loop_sends_nothing_after_its_end(tiny_server: TinyServer) -> None:
    """What was due while the only connection was waiting is recorded as never sent."""
    arrivals = OpenLoop(np.array([0.0, 0.01, 0.02]), 0.05, until=0.05)

    timeline = sent(tiny_server, arrivals, "/never", connections=1, patience_seconds=0.1)

    assert timeline.by_status() == {"unanswered": 1, "unsent": 2}


def test_closed_loop_ends_when_the_server_never_answers(tiny_server: TinyServer) -> None:
    """Every connection's request is recorded."""
    timeline = sent(tiny_server, ClosedLoop(0.05), "/never", connections=3, patience_seconds=0.05)

    assert timeline.by_status() == {"unanswered": 3}


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://localhost", ("localhost", 80)),
        ("http://127.0.0.1:8000/", ("127.0.0.1", 8000)),
        ("http://[::1]:8000", ("::1", 8000)),
    ],
)
def test_url_has_a_host_and_a_port(url: str, address: tuple[str, int]) -> None:
    """The port is HTTP's unless it is given."""
    assert address_of(url) == address


def test_server_that_is_gone_does_not_keep_the_client() -> None:
    """It ends when patience does, with what was lost."""
    with TinyServer() as server:
        url = server.url
    with pytest.raises(OSError, match="refused"):
        run(load(url, [ANSWER], ClosedLoop(0.1), connections=1))


@pytest.mark.parametrize(
    "url",
    [
        "https://localhost",
        "localhost:8000",
        "http://",
        "http://localhost/glimpse",
        "http://localhost?key=1",
        "http://me:secret@localhost",
    ],
)
def test_url_that_is_not_the_address_of_plain_http_is_refused(url: str) -> None:
    """The load generator speaks no TLS, and would leave a path, a query or a password out."""
    with pytest.raises(ValueError, match="plain HTTP"):
        run(load(url, [ANSWER], ClosedLoop(0.1), connections=1))

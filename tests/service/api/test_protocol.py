"""HTTP on the wire: what a client library would not send."""

import json
import re
import socket
from collections.abc import Callable
from urllib.parse import urlsplit

import httpx
import pytest

Problem = Callable[[httpx.Response, int, str], dict[str, object]]

BODY = b'{"sequence": [[1, 0, 1, 1, 0, 0, 1, 0]]}'
UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"
WHOLE = b"GET /livez HTTP/1.1\r\nHost: glimpse\r\n\r\n"
COPY = b"POST /ntm/copy HTTP/1.1\r\nHost: glimpse\r\nContent-Type: application/json\r\n"
LOOKS = 5_000
"""Maximum number of times that the metrics are read until they show something: more than a minute's worth."""
CHUNKED = b"%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n" % (10, BODY[:10], len(BODY) - 10, BODY[10:])


def connected(server: str) -> socket.socket:
    """Return a connection on which nothing has been sent yet."""
    url = urlsplit(server)
    assert url.hostname is not None
    connection = socket.create_connection((url.hostname, url.port or 80), timeout=30)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def answers(connection: socket.socket, count: int) -> list[httpx.Response]:
    """Return the next responses, each with a length."""
    data = b""
    found: list[httpx.Response] = []
    while len(found) < count:
        head, is_complete, rest = data.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        if is_complete and length and len(rest) >= int(length[1]):
            status, *lines = head.decode("latin-1").split("\r\n")
            headers = [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
            found.append(httpx.Response(int(status.split()[1]), headers=headers, content=rest[: int(length[1])]))
            data = rest[int(length[1]) :]
        else:
            chunk = connection.recv(65536)
            assert chunk, f"the connection was closed after {data!r}"
            data += chunk
    return found


@pytest.mark.parametrize("framing", [b"Content-Length: %d\r\n" % len(BODY), b"Transfer-Encoding: chunked\r\n"])
@pytest.mark.parametrize("is_in_pieces", [False, True])
def test_request_that_offers_another_protocol_is_answered_in_this_one(
    server: str, framing: bytes, *, is_in_pieces: bool
) -> None:
    """Its body is read, in whatever parts it arrives, and what follows the body is another request."""
    body = CHUNKED if b"chunked" in framing else BODY
    after = b"GET /livez HTTP/1.1\r\nHost: glimpse\r\n\r\n"
    with connected(server) as connection:
        pieces = [COPY + UPGRADE + framing + b"\r\n", body[:7], body[7:], after]
        if is_in_pieces:
            for piece in pieces:
                connection.sendall(piece)
        else:
            connection.sendall(b"".join(pieces))
        first, second = answers(connection, 2)

    assert first.status_code == 200, first.text
    assert first.json()["expected"] == json.loads(BODY)["sequence"]
    assert second.json() == {"status": "alive"}


def test_offer_of_another_protocol_without_a_body_is_declined(server: str) -> None:
    """The connection goes on."""
    ask = b"GET /livez HTTP/1.1\r\nHost: glimpse\r\n" + UPGRADE + b"\r\n"
    with connected(server) as connection:
        connection.sendall(ask + ask)
        assert [answer.status_code for answer in answers(connection, 2)] == [200, 200]


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"BREW /livez HTTP/1.1\r\nHost: glimpse\r\n\r\n",
        b"GET /livez\xff HTTP/1.1\r\nHost: glimpse\r\n\r\n",
        COPY + b"Transfer-Encoding: chunked\r\n\r\nnot a size\r\n",
        b"CONNECT glimpse:80 HTTP/1.1\r\nHost: glimpse\r\n\r\n",
    ],
)
def test_what_is_no_http_is_answered_with_a_problem(server: str, problem: Problem, sent: bytes) -> None:
    """The problem has a request ID, as for every error, and the connection is closed."""
    with connected(server) as connection:
        connection.sendall(sent)
        (answer,) = answers(connection, 1)
        assert connection.recv(1) == b""

    detail = str(problem(answer, 400, "bad-request")["detail"])
    assert "not HTTP" in detail
    assert "callback" not in detail, "that is our affair"
    assert answer.headers["x-request-id"]
    told = [part.partition(";")[0] for part in answer.headers["server-timing"].split(", ")]
    assert told == ["decode", "queue", "compute", "encode"]


def test_head_without_end_is_refused(server: str, problem: Problem) -> None:
    """It is not collected in memory, and the client gets a 431; many short requests are not refused."""
    with connected(server) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: glimpse\r\n\r\n" * 2000)
        assert {answer.status_code for answer in answers(connection, 2000)} == {200}
        connection.sendall(b"GET /livez HTTP/1.1\r\nX-Endless: ")
        for _ in range(300):
            connection.sendall(b"a" * 10_000)
        (answer,) = answers(connection, 1)
        assert connection.recv(1) == b""

    assert "65536 bytes" in str(problem(answer, 431, "too-large")["detail"])


def test_requests_sent_ahead_are_no_head_without_end(server: str) -> None:
    """This holds for any number of them, wherever a packet ends, and even if all of them have `Upgrade`."""
    ask = b"GET /livez HTTP/1.1\r\nHost: glimpse\r\nX-Long: " + b"a" * 900 + b"\r\n" + UPGRADE + b"\r\n"
    with connected(server) as connection:
        connection.sendall(ask * 2000 + ask[:500])
        connection.sendall(ask[500:])
        assert {answer.status_code for answer in answers(connection, 2001)} == {200}


def test_what_follows_a_body_without_end_is_refused(server: str) -> None:
    """Neither trailers nor chunk extensions are collected without limit."""
    for endless in (b"0\r\n" + b"a:\r\n" * 100_000, b"5;" + b"a" * 500_000):
        with connected(server) as connection, pytest.raises((OSError, AssertionError)):  # noqa: PT012
            connection.sendall(COPY + b"Transfer-Encoding: chunked\r\n\r\n")
            for _ in range(20):
                connection.sendall(endless)
            answers(connection, 2)
    assert httpx.get(f"{server}/livez").status_code == 200


def test_trailers_are_no_headers(server: str) -> None:
    """This includes trailers in the same packet as the head; a proxy that checks headers would not see them."""
    trailer = b"X-Request-ID: from-a-trailer\r\n\r\n"
    with connected(server) as connection:
        connection.sendall(COPY + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKED[:-2] + trailer + COPY[:20])
        (answer,) = answers(connection, 1)

    assert answer.status_code == 200
    assert answer.headers["x-request-id"] != "from-a-trailer"


def test_blanks_around_a_header_are_not_of_it(server: str) -> None:
    """Whitespace around a value is stripped (RFC 9110, 5.5)."""
    with connected(server) as connection:
        connection.sendall(WHOLE[:-2] + b"X-Request-ID: \t mine \t \r\n\r\n")
        (answer,) = answers(connection, 1)

    assert answer.headers["x-request-id"] == "mine"


def test_type_is_refused_before_the_body_comes(server: str, problem: Problem) -> None:
    """A client that waits for `100 Continue`, as `curl` does with large files, need not send its body."""
    head = b"POST /stn/rectify HTTP/1.1\r\nHost: glimpse\r\nContent-Type: application/pdf\r\n"
    with connected(server) as connection:
        connection.sendall(head + b"Content-Length: 1000000\r\nExpect: 100-continue\r\n\r\n")
        (answer,) = answers(connection, 1)

    problem(answer, 415, "unsupported-type")


def test_stream_to_a_client_of_http_1_0_is_sent_as_a_whole(server: str) -> None:
    """HTTP/1.0 has no chunked encoding (RFC 9112, 6.1): the client would take chunk sizes for text of the stream."""
    with connected(server) as connection:
        connection.sendall(b"GET /ntm/copy?length=2&seed=1&format=sse HTTP/1.0\r\nHost: glimpse\r\n\r\n")
        (answer,) = answers(connection, 1)
        assert connection.recv(1) == b""

    assert "transfer-encoding" not in answer.headers
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.content == httpx.get(f"{server}/ntm/copy?length=2&seed=1&format=sse").content


def test_client_that_sends_too_much_hears_so(server: str, problem: Problem) -> None:
    """It reads only after it has sent everything, and no reset of the connection overtakes the response."""
    with connected(server) as connection:
        connection.sendall(COPY + b"Content-Length: 8000000\r\n\r\n")
        for _ in range(8):
            connection.sendall(bytes(1_000_000))
        (answer,) = answers(connection, 1)
        assert connection.recv(1) == b""

    problem(answer, 413, "too-large")


def test_what_is_no_http_does_not_overtake_what_was_asked_before(server: str) -> None:
    """The request before it gets its response first; then the connection is closed."""
    with connected(server) as connection:
        connection.sendall(b"GET /ntm/copy?length=100 HTTP/1.1\r\nHost: glimpse\r\n\r\nnonsense\r\n\r\n")
        (answer,) = answers(connection, 1)
        assert connection.recv(1) == b""

    assert answer.json()["task"] == "copy"


def test_everything_that_a_lost_connection_asked_for_is_given_up(server: str) -> None:
    """Of several pipelined requests, the first is running and the others wait; all of them are cancelled."""
    ask = b"GET /ntm/repeat-copy?length=128&repeats=32 HTTP/1.1\r\nHost: glimpse\r\n\r\n"

    def told(metric: str) -> float:
        text = httpx.get(f"{server}/metrics").text
        found = re.search(rf'{metric}{{graph="step",model="ntm-repeat-copy",version="1"}} (\S+)', text)
        return float(found[1]) if found else 0.0

    def wait_for(slots: float) -> None:
        assert any(told("glimpse_slots_occupied") == slots for _ in range(LOOKS)), f"{slots} slots were never occupied"

    before = told("glimpse_cancellations_total")
    with connected(server) as connection:
        connection.sendall(ask * 4)
        wait_for(1.0)
    wait_for(0.0)

    assert told("glimpse_cancellations_total") == before + 1

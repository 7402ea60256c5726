"""The end of a response is found, whatever pieces it arrives in."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.response import ResponseReader

SIZED = b"HTTP/1.1 429 Too Many Requests\r\nX-A: content-length: 9\r\nContent-Length:  5\r\nB: c\r\n\r\n0\r\n\r\n"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n7;a=b\r\n0\r\n\r\nab\r\n1F\r\n"
    + 31 * b"x"
    + b"\r\n0\r\n\r\n"
)
EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"
CLOSING = b"HTTP/1.1 503 Gone\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[begin:end] for begin, end in pairwise(edges) if begin < end]


@given(
    responses=st.lists(st.sampled_from([(SIZED, 429), (CHUNKED, 200), (EMPTY, 204)]), min_size=1, max_size=4),
    cuts=st.lists(st.integers(0, 200), max_size=6),
)
def test_response_is_complete_at_its_last_byte(responses: list[tuple[bytes, int]], cuts: list[int]) -> None:
    """Neither earlier nor later, for several responses in a row, cut anywhere."""
    reader = ResponseReader()
    for data, status in responses:
        *before, last = pieces(data, cuts)

        assert not any(reader.feed(piece) for piece in before)
        assert reader.feed(last)
        assert reader.status == status
        assert not reader.end()


def test_body_without_a_length_ends_with_the_connection() -> None:
    """It is complete when the connection has closed."""
    reader = ResponseReader()

    assert not reader.feed(b"HTTP/1.1 200 OK\r\n\r\nwhat")
    assert not reader.feed(b"ever")
    assert reader.end()


def test_server_that_will_close_is_believed() -> None:
    """The response is the connection's last, and its end is in order."""
    reader = ResponseReader()

    assert reader.feed(CLOSING)
    assert reader.is_last
    assert reader.end()


@pytest.mark.parametrize("data", [SIZED[:20], SIZED[:-1], CHUNKED[:-1]])
def test_connection_that_ends_within_a_response_has_broken(data: bytes) -> None:
    """A partial response does not count."""
    reader = ResponseReader()

    assert not reader.feed(data)
    assert not reader.end()


@pytest.mark.parametrize("data", [SIZED + b"H", b"SSH-2.0-OpenSSH\r\n\r\n", CHUNKED + b"HTTP", b"HTTP/1.1 ok\r\n\r\n"])
def test_anything_else_is_refused(data: bytes) -> None:
    """Bytes after the end, or no HTTP at all."""
    with pytest.raises(ValueError, match=r"after the end|no HTTP|invalid literal"):
        ResponseReader().feed(data)

"""Requests are valid for the service, and evenly mixed."""

from collections import Counter
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import orjson
import pytest

from benchmarks import workloads
from benchmarks.client import Call
from service.api.endpoint import CACHED_QUERIES
from service.media.decoding import decode
from service.schemas.draw import GenerateQuery
from service.schemas.ntm import CopyBody


def test_request_on_the_wire_has_its_host_and_its_body() -> None:
    """A body comes with its type and its length, and nothing else without one."""
    assert Call("a", "GET", "/x?y=1").encoded("h:1") == b"GET /x?y=1 HTTP/1.1\r\nhost: h:1\r\n\r\n"
    assert Call("a", "POST", "/x", b"body", "text/plain").encoded("h") == (
        b"POST /x HTTP/1.1\r\nhost: h\r\ncontent-type: text/plain\r\ncontent-length: 4\r\n\r\nbody"
    )


def test_everything_is_every_kind_of_request() -> None:
    """A quarter are requests of kinds that `mixed` lacks, each kind equally often."""
    tags = Counter(call.tag for call in workloads.everything())

    rare = [count for tag, count in tags.items() if tag not in {"stn", "draw", "ntm"}]
    assert 4 * sum(rare) == tags.total()
    assert max(rare) - min(rare) <= 1
    assert {"photograph", "damaged", "redrawn", "gif", "sse", "figure"} <= set(tags)


@pytest.mark.parametrize("count", [1, 4, 10, 1000])
def test_lengths_are_mixed_evenly_and_always_alike(count: int) -> None:
    """Each group of four has all lengths; the order is always the same, and not a plain rotation."""
    lengths = workloads.mixed_lengths(count)

    fours = [lengths[n : n + 4] for n in range(0, count - count % 4, 4)]
    assert len(lengths) == count
    assert all(sorted(four) == [8, 16, 32, 64] for four in fours)
    assert lengths == workloads.mixed_lengths(count)
    assert count < 1000 or len({tuple(four) for four in fours}) == 24


def test_pictures_are_grey_digits_that_differ() -> None:
    """28 x 28 with some ink, and away from the border."""
    pictures = [decode(call.body, call.content_type).grey for call in workloads.stn(20)]

    assert all(picture.shape == (28, 28) for picture in pictures)
    assert all(20 < (picture > 127).sum() < 400 for picture in pictures)
    assert not any(np.concatenate([p[0], p[-1], p[:, 0], p[:, -1]]).any() for p in pictures)
    assert len({picture.tobytes() for picture in pictures}) == 20


def test_drawings_are_valid_and_differ_for_longer_than_the_service_remembers() -> None:
    """Each has the length of its tag and a seed of its own."""
    calls = workloads.draw()

    queries = [GenerateQuery.model_validate(dict(parse_qsl(urlsplit(call.target).query))) for call in calls]
    assert len({query.seed for query in queries}) == len(calls) > 2 * CACHED_QUERIES
    assert all(
        str(query.steps) == call.tag and query.format == "final" for query, call in zip(queries, calls, strict=True)
    )


def test_episodes_are_valid_and_about_as_long_as_their_tags() -> None:
    """At most one step is missing."""
    calls = workloads.ntm(40)

    steps = [CopyBody.model_validate(orjson.loads(call.body)).episode().steps for call in calls]
    assert all(int(call.tag) - step == 1 for call, step in zip(calls, steps, strict=True))


def test_mixed_load_has_as_much_of_each_model() -> None:
    """One after the other."""
    calls = workloads.mixed(8)

    assert Counter(call.tag for call in calls) == {"stn": 8, "draw": 8, "ntm": 8}
    assert [call.target.split("/")[1] for call in calls[:3]] == ["stn", "draw", "ntm"]

"""Errors: each is a problem document with the status and code of the contract, and says what to do."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, NoReturn

import httpx
import pytest

from service import errors
from service.api.problems import MAX_DETAIL_CHARACTERS, STATUSES, document, status_of
from service.app import Glimpse
from service.tasks import ntm

Problem = Callable[[httpx.Response, int, str], dict[str, Any]]
Serve = Callable[..., AbstractAsyncContextManager[tuple[Glimpse, httpx.AsyncClient]]]

BIT_VECTOR = [0, 1, 0, 1, 0, 1, 0, 1]


# --- 404 and 405: what is not there ---


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/nowhere", "not-found"),
        ("POST", "/stn", "not-found"),
        ("GET", "/ntm/copy/", "not-found"),
        ("GET", "/ntm/juggling", "unknown-task"),
        ("POST", "/ntm/juggling", "unknown-task"),
        ("GET", "/draw/generate?version=7", "unknown-model"),
        ("GET", "/ntm/copy?version=7", "unknown-model"),
        ("POST", "/stn/rectify?version=7", "unknown-model"),
        ("POST", "/stn/rectify?model=stn-circular", "unknown-model"),
        ("POST", "/stn/rectify?model=draw", "unknown-model"),
    ],
)
def test_what_is_not_there_is_a_404(client: httpx.Client, problem: Problem, method: str, path: str, code: str) -> None:
    """Paths, tasks, models and versions that are unknown are told apart by their code."""
    problem(client.request(method, path), 404, code)


def test_unknown_names_are_answered_with_the_known_ones(client: httpx.Client, problem: Problem) -> None:
    """The problem lists the names that exist."""
    assert "stn-projective" in problem(client.post("/stn/rectify?model=stn"), 404, "unknown-model")["detail"]
    assert "priority-sort" in problem(client.get("/ntm/sort"), 404, "unknown-task")["detail"]
    assert "available: 1" in problem(client.get("/draw/generate?version=2"), 404, "unknown-model")["detail"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/stn/rectify", "POST"),
        ("POST", "/draw/generate", "GET"),
        ("DELETE", "/draw/reconstruct", "POST"),
        ("PUT", "/ntm/juggling", "POST"),
        ("POST", "/livez", "GET"),
        ("POST", "/metrics", "GET"),
        ("POST", "/livez", "HEAD"),
        ("DELETE", "/draw/generate", "HEAD"),
    ],
)
def test_wrong_method_is_a_405_that_names_the_right_one(
    client: httpx.Client, problem: Problem, method: str, path: str, allowed: str
) -> None:
    """The `Allow` header names the method of the path."""
    response = client.request(method, path)

    problem(response, 405, "method-not-allowed")
    assert allowed in response.headers["allow"].split(", ")


def test_wrong_method_is_answered_with_all_right_ones(client: httpx.Client) -> None:
    """A task has POST for the client's episodes and GET for random ones."""
    allowed = client.delete("/ntm/copy").headers["allow"].split(", ")

    assert {"GET", "POST"} <= set(allowed)


# --- 422: parameters out of range ---


@pytest.mark.parametrize(
    ("method", "query", "parameter", "value", "allowed"),
    [
        ("GET", "/draw/generate?steps=0", "steps", "'0'", "1..64"),
        ("GET", "/draw/generate?steps=65", "steps", "'65'", "1..64"),
        ("GET", "/draw/generate?steps=abc", "steps", "'abc'", "1..64"),
        ("GET", "/draw/generate?steps=", "steps", "''", "1..64"),
        ("GET", "/draw/generate?steps=8.5", "steps", "'8.5'", "1..64"),
        ("GET", "/draw/generate?count=0", "count", "'0'", "1..64"),
        ("GET", "/draw/generate?count=65", "count", "'65'", "1..64"),
        ("GET", "/draw/generate?seed=-1", "seed", "'-1'", "0..9007199254740991"),
        ("GET", "/draw/generate?digit=10", "digit", "'10'", "0..9"),
        ("GET", "/draw/generate?temperature=2.1", "temperature", "'2.1'", "0..2"),
        ("GET", "/draw/generate?temperature=nan", "temperature", "'nan'", "0..2"),
        ("GET", "/draw/generate?scale=0", "scale", "'0'", "1..16"),
        ("GET", "/draw/generate?scale=17", "scale", "'17'", "1..16"),
        ("GET", "/draw/generate?steps=64&count=64&scale=16", "scale", "16", "1..4"),
        ("GET", "/draw/generate?format=json&steps=64&count=64&scale=16", "scale", "16", "1..4"),
        ("GET", "/draw/generate?fps=61", "fps", "'61'", "1..60"),
        ("GET", "/draw/generate?attention=perhaps", "attention", "'perhaps'", "true or false"),
        ("GET", "/draw/generate?format=jpeg", "format", "'jpeg'", "gif, apng, webp, png, final, json, npz, sse"),
        ("GET", "/draw/generate?version=0", "version", "'0'", "1..1000000"),
        ("POST", "/draw/reconstruct?steps=0", "steps", "'0'", "1..64"),
        ("POST", "/stn/rectify?size=27", "size", "'27'", "28..1024"),
        ("POST", "/stn/rectify?size=1025", "size", "'1025'", "28..1024"),
        ("POST", "/stn/rectify?view=inverse", "view", "'inverse'", "rectified, overlay, strip"),
        ("POST", "/stn/rectify?format=gif", "format", "'gif'", "png, webp, json, npz"),
        ("GET", "/ntm/copy?length=129", "length", "'129'", "1..128"),
        ("GET", "/ntm/repeat-copy?repeats=33", "repeats", "'33'", "1..32"),
        ("GET", "/ntm/associative-recall?items=1", "items", "'1'", "2..32"),
        ("GET", "/ntm/dynamic-ngrams?length=5", "length", "'5'", "6..1024"),
        ("GET", "/ntm/priority-sort?length=33", "length", "'33'", "1..32"),
        ("GET", "/ntm/copy?trace=2", "trace", "'2'", "true or false"),
        ("GET", "/ntm/copy?format=gif", "format", "'gif'", "json, png, sse"),
    ],
)
def test_query_out_of_range_is_a_422_with_name_value_and_range(
    client: httpx.Client, problem: Problem, method: str, query: str, parameter: str, value: str, allowed: str
) -> None:
    """The detail says what to send instead."""
    document = problem(client.request(method, query), 422, "invalid-parameter")

    assert document["parameter"] == parameter
    assert parameter in document["detail"]
    assert value in document["detail"]
    assert allowed in document["detail"]


@pytest.mark.parametrize(
    ("task", "episode", "detail"),
    [
        (
            "copy",
            {"sequence": [BIT_VECTOR, [0, 1, 0, 2, 0, 1, 0, 1]]},
            "sequence.1.3 must be a whole number in 0..1, not 2",
        ),
        ("copy", {"sequence": [[0, 1, 0.5, 1, 0, 1, 0, 1]]}, "sequence.0.2 must be a whole number in 0..1, not 0.5"),
        ("copy", {"sequence": [["0", 1, 0, 1, 0, 1, 0, 1]]}, "sequence.0.0 must be a whole number in 0..1, not '0'"),
        ("copy", {"sequence": [BIT_VECTOR[:7]]}, "sequence.0 must be a list of 8 items, not of 7"),
        ("copy", {"sequence": [[*BIT_VECTOR, 0]]}, "sequence.0 must be a list of 8 items, not of 9"),
        ("copy", {"sequence": []}, "sequence must be a list of 1..128 items, not of 0"),
        ("copy", {"sequence": [BIT_VECTOR] * 129}, "sequence must be a list of 1..128 items, not of 129"),
        ("copy", {"sequence": 7}, "sequence must be a list of 1..128 items, not 7"),
        ("copy", {}, "sequence is missing"),
        ("copy", {"sequence": [BIT_VECTOR], "speed": 1}, "speed is not a known field; known fields: sequence"),
        ("copy", {"sequence": None}, "sequence must be a list of 1..128 items, not null"),
        ("copy", {"sequence": [[True, *BIT_VECTOR[1:]]]}, "sequence.0.0 must be a whole number in 0..1, not true"),
        ("copy", [BIT_VECTOR], "body must be a JSON object, not an array"),
        ("copy", True, "body must be a JSON object, not a boolean"),
        (
            "repeat-copy",
            {"sequence": [BIT_VECTOR], "repeats": 0},
            "repeats must be a whole number in 1..32, not 0",
        ),
        (
            "repeat-copy",
            {"sequence": [BIT_VECTOR], "repeats": 33},
            "repeats must be a whole number in 1..32, not 33",
        ),
        ("repeat-copy", {"sequence": [BIT_VECTOR]}, "repeats is missing"),
        (
            "associative-recall",
            {"items": [[[0] * 6] * 3] * 3, "query": 2},
            "query must be a whole number in 0..1, so that an item follows, not 2",
        ),
        (
            "associative-recall",
            {"items": [[[0] * 6] * 3] * 3, "query": -1},
            "query must be a whole number in 0..1, so that an item follows, not -1",
        ),
        (
            "associative-recall",
            {"items": [[[0] * 6] * 3], "query": 0},
            "items must be a list of 2..32 items, not of 1",
        ),
        (
            "associative-recall",
            {"items": [[[0] * 6] * 2] * 3, "query": 0},
            "items.0 must be a list of 3 items, not of 2",
        ),
        (
            "associative-recall",
            {"items": [[[0] * 5] * 3] * 3, "query": 0},
            "items.0.0 must be a list of 6 items, not of 5",
        ),
        ("dynamic-ngrams", {"bits": [0, 1, 0, 1, 0]}, "bits must be a list of 6..1024 items, not of 5"),
        ("dynamic-ngrams", {"bits": [0, 1] * 513}, "bits must be a list of 6..1024 items, not of 1026"),
        ("dynamic-ngrams", {"bits": [0, 1, 0, 1, 0, 3]}, "bits.5 must be a whole number in 0..1, not 3"),
        (
            "priority-sort",
            {"vectors": [BIT_VECTOR], "priorities": [1.5]},
            "priorities.0 must be a number in -1..1, not 1.5",
        ),
        (
            "priority-sort",
            {"vectors": [BIT_VECTOR] * 2, "priorities": [0.5]},
            "priorities must be as many as the vectors, 2, not 1",
        ),
        (
            "priority-sort",
            {"vectors": [BIT_VECTOR] * 33, "priorities": [0.5] * 33},
            "vectors must be a list of 1..32 items, not of 33",
        ),
    ],
)
def test_episode_out_of_range_is_a_422_that_says_where_what_and_what_may_be(
    client: httpx.Client, problem: Problem, task: str, episode: object, detail: str
) -> None:
    """The path of the invalid value in the body is given, with indices from 0."""
    document = problem(client.post(f"/ntm/{task}", json=episode), 422, "invalid-parameter")

    assert document["detail"] == detail
    assert document["parameter"] == detail.partition(" ")[0]


@pytest.mark.parametrize("asked", ["", "abc", "0", "-5", "1.5", "1e3", "\u00b2"])
def test_timeout_that_is_no_positive_whole_number_is_a_422(client: httpx.Client, problem: Problem, asked: str) -> None:
    """The header is a parameter like any other."""
    response = client.get("/ntm/copy", headers={b"x-request-timeout-ms": asked.encode("latin-1")})

    assert problem(response, 422, "invalid-parameter")["parameter"] == "X-Request-Timeout-Ms"


def test_more_files_than_allowed_are_a_422(client: httpx.Client, problem: Problem, digit_png: bytes) -> None:
    """The limit on files is a setting, here 8; the problem names the field and the limit."""
    for count, data in ((9, digit_png), (20, digit_png), (9, b"tiny"), (20, b"tiny")):
        files = [("image", (f"{index}.png", data, "image/png")) for index in range(count)]
        document = problem(client.post("/stn/rectify", files=files), 422, "invalid-parameter")
        assert document["parameter"] == "image"
        assert "at most 8" in document["detail"]


@pytest.mark.parametrize("asked", ["png", "webp"])
def test_picture_asked_for_several_files_is_a_422(
    client: httpx.Client, problem: Problem, digit_png: bytes, asked: str
) -> None:
    """The response to several files cannot be one picture."""
    files = [("image", (name, digit_png, "image/png")) for name in ("a.png", "b.png")]

    document = problem(client.post(f"/stn/rectify?format={asked}", files=files), 422, "invalid-parameter")

    assert document["parameter"] == "format"
    assert "json or npz" in document["detail"]


def test_reconstruction_of_two_files_is_a_422(client: httpx.Client, problem: Problem, digit_png: bytes) -> None:
    """DRAW redraws one picture per request."""
    files = [("image", (name, digit_png, "image/png")) for name in ("a.png", "b.png")]

    assert problem(client.post("/draw/reconstruct", files=files), 422, "invalid-parameter")["parameter"] == "image"


# --- 500: a bug ---


def test_error_that_nobody_meant_to_raise_is_a_500(
    serve: Serve, problem: Problem, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Only the log has the cause, under the request's ID, which the response has, too."""

    def broken(*_: object) -> NoReturn:
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(ntm, "copy", broken)

    async def scenario() -> tuple[httpx.Response, bytes]:
        async with serve() as (app, client):
            response = await client.get("/ntm/copy", headers={"x-request-id": "mine"})
            return response, app.metrics.exposition()

    response, metrics = asyncio.run(scenario())

    problem(response, 500, "internal-error")
    assert response.headers["x-request-id"] == "mine"
    assert "secret" not in response.text
    assert "request mine failed" in caplog.text
    assert "ZeroDivisionError: a secret" in caplog.text
    assert b'glimpse_requests_total{code="500",model="ntm-copy",route="/ntm/copy"} 1.0' in metrics


# --- the table ---


def test_every_error_has_a_status_of_its_own_or_its_parents() -> None:
    """Every error class has a status, and no client error is a 500."""

    def family(of: type[errors.GlimpseError]) -> list[type[errors.GlimpseError]]:
        return [of, *(member for child in of.__subclasses__() for member in family(child))]

    for cls in family(errors.GlimpseError):
        status = next(STATUSES[ancestor] for ancestor in cls.__mro__ if ancestor in STATUSES)
        assert 400 <= status <= 504
        assert (status < 500) == issubclass(cls, errors.ClientError | errors.Overloaded | errors.Cancelled)
    assert status_of(errors.ArtifactRejected("damaged")) == 500


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/draw/generate%0A"), ("POST", "/ntm/copy%0A"), ("GET", "/ntm/copy%0A")]
)
def test_path_that_is_nearly_an_endpoints_is_none(
    client: httpx.Client, problem: Problem, method: str, path: str
) -> None:
    """No other route leads to the endpoint."""
    problem(client.request(method, path), 404, "not-found")


@pytest.mark.parametrize(("query", "accept"), [("format=npz&view=strip", "*/*"), ("view=overlay", "application/x-npz")])
def test_view_of_arrays_is_a_422_before_the_body_is_looked_at(
    client: httpx.Client, problem: Problem, query: str, accept: str
) -> None:
    """An array is the rectified digit, and nothing else."""
    headers = {"content-type": "multipart/form-data; boundary=B", "accept": accept}

    response = client.post(f"/stn/rectify?{query}", content=b"no form", headers=headers)

    assert problem(response, 422, "invalid-parameter")["parameter"] == "view"


def test_detail_is_cut_where_it_is_too_long() -> None:
    """The longest allowed detail is not changed."""
    longest = "x" * MAX_DETAIL_CHARACTERS

    assert document(404, "code", longest)["detail"] == longest
    assert document(404, "code", longest + "y")["detail"] == f"{longest}..."


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/ntm/copy", {"x" * 20_000: 1}),
        (f"/stn/rectify?model={'x' * 20_000}", None),
        (f"/stn/rectify?model={'x' * 8_000}", None),
    ],
    ids=["key", "endless name", "name"],
)
def test_answer_repeats_no_more_than_the_beginning_of_what_was_sent(
    client: httpx.Client, path: str, body: object
) -> None:
    """The problem document is short even if thousands of characters were sent."""
    response = client.post(path, json=body)

    assert response.status_code in {404, 422}
    assert len(response.content) < 2_000

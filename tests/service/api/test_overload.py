"""Overload: too many requests at once are a 429, and a response that would be too late is a 504."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import pytest

from service.app import Glimpse
from service.engine.request import Request
from service.settings import Batching, Limits, RecurrentBatching
from service.tasks import draw

Problem = Callable[[httpx.Response, int, str], dict[str, Any]]
Serve = Callable[..., AbstractAsyncContextManager[tuple[Glimpse, httpx.AsyncClient]]]


def test_more_requests_than_a_process_takes_are_a_429(serve: Serve, problem: Problem) -> None:
    """Requests over the limit are refused before any work is done; health and metrics still respond."""

    async def crowd() -> tuple[list[httpx.Response], httpx.Response, bytes]:
        async with serve(limits={"concurrent_requests": 2}) as (app, client):
            asked = [client.get("/draw/generate", params={"steps": 64, "count": 64}) for _ in range(8)]
            *answers, ready = await asyncio.gather(*asked, client.get("/readyz"))
            return answers, ready, app.metrics.exposition()

    answers, ready, metrics = asyncio.run(crowd())

    assert [answer.status_code for answer in answers].count(200) == 2
    for answer in answers:
        if answer.status_code != 200:
            assert problem(answer, 429, "overloaded")["detail"].startswith("2 requests are in progress")
            assert int(answer.headers["retry-after"]) >= 1
    assert ready.status_code == 200
    assert b'glimpse_requests_total{code="429",model="",route="/draw/generate"} 6.0' in metrics


@pytest.mark.parametrize(("path", "content_type"), [("/stn/rectify", "image/png"), ("/ntm/copy", "application/json")])
def test_clients_that_do_not_send_their_bodies_take_nobodys_place(
    serve: Serve, problem: Problem, path: str, content_type: str
) -> None:
    """Others are served meanwhile; when the bodies arrive after all, as many as the limit allows are served."""

    async def scenario() -> tuple[httpx.Response, list[httpx.Response]]:
        async with serve(limits={"concurrent_requests": 2}) as (app, client):
            may_go_on = asyncio.Event()

            async def slow() -> AsyncIterator[bytes]:
                yield b"["
                await may_go_on.wait()
                yield b"]"

            async def send() -> httpx.Response:
                return await client.post(path, content=slow(), headers={"content-type": content_type})

            waiting = [asyncio.create_task(send()) for _ in range(6)]
            while app._admission._receiving < 6:
                await asyncio.wait(waiting, timeout=0.001)
            meanwhile = await client.get("/ntm/copy?length=1")
            may_go_on.set()
            return meanwhile, await asyncio.gather(*waiting)

    meanwhile, later = asyncio.run(scenario())

    assert meanwhile.status_code == 200
    statuses = {answer.status_code for answer in later}
    assert statuses <= {400, 422, 429}
    assert statuses != {429}
    for answer in later:
        if answer.status_code == 429:
            problem(answer, 429, "overloaded")


def test_full_queue_is_a_429_with_retry_after(serve: Serve, problem: Problem) -> None:
    """The queue has room for 64 samples, and one is computed at a time: some of four requests for 64 are refused."""

    async def scenario() -> list[httpx.Response]:
        async with serve(draw=RecurrentBatching(slots=1, queue_rows=64, longest_segment=1)) as (_, client):
            query = "/draw/generate?count=64&steps=16&format=npz"
            return list(await asyncio.gather(*(client.get(query) for _ in range(4))))

    responses = asyncio.run(scenario())

    refused = [response for response in responses if response.status_code != 200]
    assert 0 < len(refused) < 4
    for response in refused:
        problem(response, 429, "overloaded")
        assert int(response.headers["retry-after"]) >= 1


def test_nothing_is_prepared_that_is_refused(serve: Serve, problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise is drawn only for the drawings that the queue has room for, however many are requested."""
    prepared: list[int] = []
    generation = draw.generation

    def noted(*args: Any, **kwargs: Any) -> Request:
        prepared.append(kwargs["count"])
        return generation(*args, **kwargs)

    monkeypatch.setattr(draw, "generation", noted)

    async def scenario() -> list[httpx.Response]:
        async with serve(draw=RecurrentBatching(slots=1, queue_rows=64, longest_segment=1)) as (_, client):
            queries = [f"/draw/generate?count=64&steps=16&format={kind}" for kind in ("npz", "sse") * 4]
            return list(await asyncio.gather(*map(client.get, queries)))

    responses = asyncio.run(scenario())

    answered = [response for response in responses if response.status_code == 200]
    assert prepared == [64] * len(answered)
    assert 0 < len(answered) < 8
    for response in responses:
        if response.status_code != 200:
            problem(response, 429, "overloaded")


def test_full_queue_refuses_a_form_before_it_is_decoded(serve: Serve, problem: Problem) -> None:
    """Two files do not fit where one does."""

    async def scenario() -> httpx.Response:
        async with serve(stn=Batching(queue_rows=64)) as (app, client):
            engine = app.catalogue.find("stn-affine", None, "stn").engine("rectify")
            form = [("image", (name, b"never decoded", "image/png")) for name in "ab"]
            with engine.reserve(63):
                return await client.post("/stn/rectify", files=form)

    document = problem(asyncio.run(scenario()), 429, "overloaded")

    assert document["detail"].endswith("63 of 64 rows are taken, and this request has 2")


@pytest.mark.parametrize(
    ("path", "family", "name", "graph"),
    [
        ("/stn/rectify", "stn", "stn-affine", "rectify"),
        ("/draw/reconstruct", "draw", "draw", "reconstruct"),
        ("/ntm/copy", "ntm", "ntm-copy", "step"),
    ],
)
def test_full_queue_refuses_before_the_body(
    serve: Serve, problem: Problem, path: str, family: str, name: str, graph: str
) -> None:
    """The body is not read, and need not be sent."""
    asked_for: list[str] = []

    async def body() -> AsyncIterator[bytes]:
        asked_for.append(path)
        yield b""

    async def scenario() -> httpx.Response:
        async with serve() as (app, client):
            engine = app.catalogue.find(name, None, family).engine(graph)
            with engine.reserve(engine.policy.queue_rows):
                return await client.post(path, content=body())

    document = problem(asyncio.run(scenario()), 429, "overloaded")

    assert document["detail"].endswith("rows are taken, and this request has 1")
    assert asked_for == []


def test_deadline_that_passes_is_a_504(client: httpx.Client, problem: Problem) -> None:
    """The noise of 64 samples alone takes longer than a millisecond."""
    response = client.get("/draw/generate?count=64&steps=64&format=npz", headers={"x-request-timeout-ms": "1"})

    problem(response, 504, "deadline-exceeded")


def test_deadline_that_passes_in_a_stream_is_a_504(client: httpx.Client, problem: Problem) -> None:
    """What fails before the first event is answered with a status, not with an event."""
    response = client.get("/draw/generate?count=64&steps=64&format=sse", headers={"x-request-timeout-ms": "1"})

    problem(response, 504, "deadline-exceeded")


def test_deadline_of_the_settings_holds_for_who_brings_none(serve: Serve, problem: Problem) -> None:
    """The default timeout is a setting, and the longest that a client may ask for."""

    async def scenario() -> list[httpx.Response]:
        async with serve(limits=Limits(timeout_seconds=0.001)) as (_, client):
            query = "/draw/generate?count=64&steps=64&format=npz"
            asked = {"x-request-timeout-ms": "60000"}
            return [await client.get(query), await client.get(query, headers=asked)]

    for response in asyncio.run(scenario()):
        problem(response, 504, "deadline-exceeded")

"""The memory budget: what all requests in progress hold together is bounded, and is given back."""

import asyncio
import gc
import tracemalloc
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from io import BytesIO
from typing import Any

import httpx
import pytest
from PIL import Image
from starlette.types import Message

from service.api.budget import MemoryBudget, Share
from service.api.exchange import Exchange
from service.api.forms import Upload
from service.api.uploads import read_uploads
from service.app import Glimpse
from service.errors import Cancelled, Overloaded, TooLarge

Problem = Callable[[httpx.Response, int, str], dict[str, Any]]
Serve = Callable[..., AbstractAsyncContextManager[tuple[Glimpse, httpx.AsyncClient]]]

ROOM_FOR_ONE = {"body_bytes": 2**20, "pixels": 10**6, "memory_bytes": 7 * 2**20}


def test_share_that_goes_over_what_is_left_is_refused_and_takes_nothing() -> None:
    """Its own size counts and those of others; what is left can still be taken."""
    memory = MemoryBudget(100)
    first, second = Share(memory), Share(memory)
    first.take(70)

    with pytest.raises(Overloaded, match="hold 70 of 100 bytes of memory; this one needs 31 more"):
        second.take(31)

    second.take(30)
    assert memory.taken_bytes == 100


def test_share_that_would_need_more_than_the_whole_budget_is_too_large() -> None:
    """Trying again would not help, so that the error is another one, whatever is left."""
    share = Share(MemoryBudget(100))
    share.take(60)

    with pytest.raises(TooLarge, match="needs 101 bytes of memory; at most 100 are allowed"):
        share.take(41)


def test_share_can_be_exchanged_for_what_is_there() -> None:
    """It may become smaller or larger, even larger than what is left; at the end it is zero."""
    memory = MemoryBudget(100)
    share = Share(memory)
    share.take(70)

    share.hold(20)
    assert memory.taken_bytes == 20
    share.hold(120)
    assert memory.taken_bytes == 120
    share.give_back()
    share.hold(5)
    assert memory.taken_bytes == 0


def test_share_is_given_back_as_a_whole_and_once() -> None:
    """It does not matter in how many parts it was taken, nor how often it is given back."""
    memory = MemoryBudget(100)
    share, other = Share(memory), Share(memory)
    other.take(5)
    share.take(30)
    share.take(20)

    share.give_back()
    share.give_back()

    assert memory.taken_bytes == 5


def test_nothing_is_taken_for_a_request_that_is_over() -> None:
    """A codec thread that gets to a file after its client has disconnected does not decode it."""
    memory = MemoryBudget(100)
    share = Share(memory)
    share.give_back()

    with pytest.raises(Cancelled, match="nobody waits"):
        share.take(1)

    assert memory.taken_bytes == 0


def test_finished_pictures_alone_take_the_memory_of_one_step(serve: Serve, problem: Problem) -> None:
    """A response that shows all steps of as many drawings is refused."""
    query = "/draw/generate?steps=64&count=64&scale=1&seed=1&format="

    async def scenario() -> tuple[httpx.Response, httpx.Response]:
        limits = {"body_bytes": 1024, "pixels": 784, "memory_bytes": 2**20}
        async with serve(limits=limits) as (_, client):
            return await client.get(f"{query}final"), await client.get(f"{query}npz")

    final, every_step = asyncio.run(scenario())

    assert final.status_code == 200
    problem(every_step, 413, "too-large")


@pytest.mark.parametrize("is_form", [False, True])
def test_large_pictures_at_once_are_decoded_within_the_memory(serve: Serve, problem: Problem, is_form: bool) -> None:  # noqa: FBT001
    """Of pictures with a megapixel in a few hundred bytes, one fits at a time; others are refused until it is done."""
    file = BytesIO()
    Image.new("RGB", (1000, 1000)).save(file, "PNG")
    upload: dict[str, Any] = (
        {"files": {"image": ("large.png", file.getvalue(), "image/png")}}
        if is_form
        else {"content": file.getvalue(), "headers": {"content-type": "image/png"}}
    )

    async def scenario() -> tuple[list[httpx.Response], httpx.Response]:
        async with serve(limits=ROOM_FOR_ONE) as (_, client):
            crowd = await asyncio.gather(*(client.post("/stn/rectify", **upload) for _ in range(6)))
            return list(crowd), await client.post("/stn/rectify", **upload)

    crowd, later = asyncio.run(scenario())

    refused = [response for response in crowd if response.status_code != 200]
    assert 0 < len(refused) < 6
    for response in refused:
        assert "bytes of memory" in problem(response, 429, "overloaded")["detail"]
        assert int(response.headers["retry-after"]) >= 1
    assert later.status_code == 200


def test_large_bodies_at_once_are_kept_within_the_memory(serve: Serve, problem: Problem) -> None:
    """They count while they are being received, whatever is in them."""

    async def slowly(went: asyncio.Event) -> Any:
        yield b" " * 2**19
        await went.wait()
        yield b"no picture"

    async def scenario() -> list[httpx.Response]:
        limits = {"body_bytes": 2**20, "pixels": 784, "memory_bytes": 5 * 2**19 + 2**16}
        async with serve(limits=limits) as (_, client):
            went = asyncio.Event()

            async def post() -> httpx.Response:
                try:
                    headers = {"content-type": "image/png"}
                    return await client.post("/stn/rectify", content=slowly(went), headers=headers)
                finally:
                    went.set()

            return list(await asyncio.gather(*(post() for _ in range(6))))

    answers = asyncio.run(scenario())

    statuses = [answer.status_code for answer in answers]
    assert (statuses.count(429), statuses.count(400)) == (1, 5)
    assert "bytes of memory" in problem(answers[statuses.index(429)], 429, "overloaded")["detail"]


def test_client_that_takes_its_answer_slowly_keeps_no_memory(serve: Serve) -> None:
    """Once the response is ready, the request's memory is given back."""
    file = BytesIO()
    Image.new("L", (1000, 1000)).save(file, "PNG")
    messages = [{"type": "http.request", "body": file.getvalue(), "more_body": False}]
    scope = {
        "type": "http", "method": "POST", "path": "/stn/rectify", "query_string": b"", "headers": [],
    }  # fmt: skip

    async def scenario() -> httpx.Response:
        async with serve(limits=ROOM_FOR_ONE) as (app, client):
            is_sending, is_taken = asyncio.Event(), asyncio.Event()

            async def receive() -> Message:
                if not messages:
                    await asyncio.Event().wait()
                return messages.pop()

            async def send(_: Message) -> None:
                is_sending.set()
                await is_taken.wait()

            slow = asyncio.create_task(app(scope, receive, send))
            await is_sending.wait()
            other = await client.post("/stn/rectify", content=file.getvalue(), headers={"content-type": "image/png"})
            is_taken.set()
            await slow
            return other

    assert asyncio.run(scenario()).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "query", "held"),
    [
        ("POST", "/stn/rectify", b"size=1024&format=npz", 1024**2),
        ("GET", "/draw/generate", b"seed=1&count=64&steps=20&format=sse", 64 * 20 * 784),
        ("POST", "/draw/reconstruct", b"seed=1&steps=64&format=sse", 64 * 784),
    ],
)
def test_response_counts_until_its_client_has_taken_it(
    serve: Serve, problem: Problem, method: str, path: str, query: bytes, held: int
) -> None:
    """A client that reads slowly holds the memory of its response, and no more."""
    large, small = BytesIO(), BytesIO()
    Image.new("L", (1000, 1000)).save(large, "PNG")
    Image.new("L", (28, 28), 9).save(small, "PNG")
    messages = [{"type": "http.request", "body": small.getvalue(), "more_body": False}]
    scope = {"type": "http", "method": method, "path": path, "query_string": query, "headers": []}

    async def scenario() -> tuple[httpx.Response, httpx.Response]:
        limits = {"body_bytes": 2**14, "pixels": 10**6, "memory_bytes": 4 * 10**6 + held}
        async with serve(limits=limits) as (app, client):
            is_sending, is_taken = asyncio.Event(), asyncio.Event()

            async def receive() -> Message:
                if not messages:
                    await asyncio.Event().wait()
                return messages.pop()

            async def send(_: Message) -> None:
                is_sending.set()
                await is_taken.wait()

            async def other() -> httpx.Response:
                headers = {"content-type": "image/png"}
                return await client.post("/stn/rectify", content=large.getvalue(), headers=headers)

            slow = asyncio.create_task(app(scope, receive, send))
            await is_sending.wait()
            refused = await other()
            is_taken.set()
            await slow
            return refused, await other()

    refused, later = asyncio.run(scenario())

    in_progress = int(problem(refused, 429, "overloaded")["detail"].split()[4])
    assert held <= in_progress < 1.1 * held + 10_000
    assert later.status_code == 200


@pytest.mark.parametrize("field", [b"image", b"other"], ids=["of no picture", "of another name"])
def test_form_that_is_refused_leaves_nothing_behind(serve: Serve, field: bytes) -> None:
    """Its memory is freed at once, without a garbage collection; otherwise eight forms would keep a megabyte each."""
    head = b'--B\r\nContent-Disposition: form-data; name="%s"; filename="a"\r\n\r\n' % field
    content = head + bytes(2**20) + b"\r\n--B--\r\n"
    headers = {"content-type": "multipart/form-data; boundary=B"}

    async def scenario() -> int:
        async with serve() as (_, client):
            response = await client.post("/stn/rectify", content=content, headers=headers)
            assert response.status_code in {400, 422}
            gc.collect()
            gc.disable()
            tracemalloc.start()
            try:
                for _ in range(8):
                    await client.post("/stn/rectify", content=content, headers=headers)
                return tracemalloc.get_traced_memory()[0]
            finally:
                tracemalloc.stop()
                gc.enable()

    assert asyncio.run(scenario()) < 3 * 2**20


def test_form_needs_memory_twice(serve: Serve) -> None:
    """Its files are in memory in addition to the body that they are parsed from."""
    head = b'--B\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    content = head + b"anything\r\n--B--\r\n"
    scope = {"type": "http", "headers": [(b"content-type", b"multipart/form-data; boundary=B")]}

    async def receive() -> Message:
        return {"type": "http.request", "body": content}

    async def scenario() -> None:
        async with serve() as (app, _):

            async def read(memory_bytes: int) -> list[Upload]:
                memory = Share(MemoryBudget(memory_bytes))
                return await read_uploads(Exchange(scope, receive, 30.0, memory), app._context)

            assert [upload.data for upload in await read(2 * len(content))] == [b"anything"]
            with pytest.raises(TooLarge, match=f"the request needs {2 * len(content)} bytes"):
                await read(2 * len(content) - 1)

    asyncio.run(scenario())


@pytest.mark.parametrize(("name", "status"), [("png", 413), ("webp", 413), ("gif", 200), ("final", 200)])
def test_drawing_that_is_encoded_as_a_whole_needs_memory_for_it(
    serve: Serve, problem: Problem, name: str, status: int
) -> None:
    """It takes six bytes per pixel before anything is drawn; a format that is encoded frame by frame takes less."""
    pixels = 4 * 2 * (28 * 8) ** 2
    picture = BytesIO()
    Image.new("L", (28, 28)).save(picture, "PNG")

    async def scenario() -> list[httpx.Response]:
        limits = {"body_bytes": 1024, "pixels": 784, "memory_bytes": 6 * pixels - 1}
        async with serve(limits=limits) as (_, client):
            query = f"/draw/generate?steps=4&scale=8&seed=1&format={name}"
            redraw = f"/draw/reconstruct?steps=8&scale=8&format={name}"
            redrawn = await client.post(redraw, content=picture.getvalue(), headers={"content-type": "image/png"})
            return [redrawn, *[await client.get(f"{query}&count={count}") for count in (2, 1, 1)]]

    *large, first, second = asyncio.run(scenario())

    for response in large:
        assert response.status_code == status
        if status == 413:
            assert f"at most {6 * pixels - 1} are allowed" in problem(response, 413, "too-large")["detail"]
    assert (first.status_code, second.status_code) == (200, 200)

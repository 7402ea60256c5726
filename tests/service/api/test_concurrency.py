"""Many requests at once: every response is what it would have been alone."""

import asyncio
import base64
import re
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from io import BytesIO
from types import ModuleType
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from service.api import uploads
from service.app import Glimpse
from service.tasks import ntm, stn

Arrays = dict[str, NDArray[Any]]
Decode = Callable[[bytes], NDArray[np.uint8]]
Serve = Callable[..., AbstractAsyncContextManager[tuple[Glimpse, httpx.AsyncClient]]]

REPETITIONS = 3
ROUNDED = {"output", "bit_errors", "accuracy", "ended"}
"""Members that depend on rounded probabilities: close to one half, these may round either way."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request, and whether it must fail."""

    method: str
    path: str
    content: bytes | None = None
    status: int = 200
    timeout_ms: int = 60_000

    async def send(self, client: httpx.AsyncClient) -> httpx.Response:
        headers = {"content-type": "image/png", "x-request-timeout-ms": str(self.timeout_ms)}
        return await client.request(self.method, self.path, content=self.content, headers=headers)


def calls(upload: bytes) -> list[Call]:
    """Return short and long requests to all families, some of which fail, expire or are invalid."""
    drawings = [
        Call("GET", f"/draw/generate?format=npz&seed={seed}&steps={steps}&count={count}")
        for seed, (steps, count) in enumerate([(8, 1), (64, 1), (16, 7), (3, 2), (32, 20)])
    ]
    pictures = [
        Call("POST", f"/stn/rectify?model=stn-{kind}&format={name}&size={size}", upload)
        for kind, name, size in [
            ("affine", "json", 28),
            ("affine", "png", 28),
            ("tps", "json", 64),
            ("affine", "npz", 99),
        ]
    ]
    episodes = [
        Call("GET", f"/ntm/{query}&seed=5")
        for query in ("copy?length=3", "copy?length=60", "priority-sort?length=9", "dynamic-ngrams?length=50")
    ]
    redrawing = [
        Call("POST", f"/draw/reconstruct?seed=1&format=json&scale=1&steps={steps}", upload) for steps in (5, 30)
    ]
    failing = [
        Call("POST", "/stn/rectify", upload[:-20], 400),
        Call("GET", "/draw/generate?steps=0", None, 422),
        Call("GET", "/draw/generate?steps=64&count=64&format=npz", None, 504, timeout_ms=1),
    ]
    return [*drawings, *pictures, *episodes, *redrawing, *failing]


def numbers(document: object, decoded: Decode) -> list[float]:
    """Return all numbers of a JSON document in order, and the pixels of its pictures in units of the tolerance."""
    if isinstance(document, dict):
        return [n for key, value in document.items() if key not in ROUNDED for n in numbers(value, decoded)]
    if isinstance(document, list):
        return [n for value in document for n in numbers(value, decoded)]
    if isinstance(document, str) and document.startswith("iVBOR"):
        return [float(grey) * 1e-4 for grey in decoded(base64.b64decode(document)).ravel()]
    return [float(document)] if isinstance(document, int | float) else []


def same_answer(found: httpx.Response, alone: httpx.Response, decoded: Decode) -> None:
    kind = alone.headers["content-type"]
    assert found.headers["content-type"] == kind
    if kind == "application/json":
        right = numbers(alone.json(), decoded)
        np.testing.assert_allclose(numbers(found.json(), decoded), right, atol=1.01e-4, rtol=1e-4)
    elif kind == "image/png":
        np.testing.assert_allclose(decoded(found.content).astype(int), decoded(alone.content), atol=1)
    else:
        with np.load(BytesIO(found.content)) as mine, np.load(BytesIO(alone.content)) as theirs:
            for name in theirs.files:
                tolerance = 1 if theirs[name].dtype == np.uint8 else 1e-4
                np.testing.assert_allclose(
                    mine[name].astype(float), theirs[name].astype(float), atol=tolerance, rtol=1e-4
                )


def test_burst_of_mixed_requests_is_answered_as_each_would_be_alone(
    server: str, digit_png: bytes, decoded: Decode
) -> None:
    """Whatever shares a batch, floats are within 1e-4, pictures within a grey level, and failures have their status."""
    mixed = calls(digit_png)

    async def scenario() -> tuple[list[httpx.Response], list[httpx.Response]]:
        limits = httpx.Limits(max_connections=100)
        async with httpx.AsyncClient(base_url=server, timeout=60, limits=limits) as client:
            alone = [await call.send(client) for call in mixed]
            return alone, list(await asyncio.gather(*(call.send(client) for call in mixed * REPETITIONS)))

    alone, together = asyncio.run(scenario())

    for call, response in zip(mixed * REPETITIONS, together, strict=True):
        assert response.status_code == call.status, (call, response.text)
    for index, response in enumerate(together):
        if response.status_code == 200:
            same_answer(response, alone[index % len(mixed)], decoded)


@pytest.mark.parametrize("answer_format", ["gif", "sse"])
def test_clients_that_leave_free_their_slots(server: str, decoded: Decode, answer_format: str) -> None:
    """After many clients have disconnected halfway, none of their work is left running, and responses are right."""

    async def told(client: httpx.AsyncClient, metric: str) -> float:
        text = (await client.get("/metrics")).text
        found = re.search(rf'{metric}{{graph="generate",model="draw",version="1"}} (\S+)', text)
        return float(found[1]) if found else 0.0

    async def scenario() -> tuple[httpx.Response, httpx.Response]:
        async with httpx.AsyncClient(base_url=server, timeout=60) as client:
            alone = await client.get("/draw/generate?format=npz&seed=1")
            cancelled = await told(client, "glimpse_cancellations_total")
            query = f"/draw/generate?steps=64&count=64&format={answer_format}"
            leaving = [asyncio.create_task(client.get(query)) for _ in range(6)]
            await asyncio.wait(leaving, timeout=0.05)
            for task in leaving:
                task.cancel()
            await asyncio.gather(*leaving, return_exceptions=True)
            after = await client.get("/draw/generate?format=npz&seed=1")
            for _ in range(1000):
                if await told(client, "glimpse_slots_occupied") == 0:
                    assert await told(client, "glimpse_cancellations_total") > cancelled
                    return alone, after
            pytest.fail("slots are still occupied")

    alone, after = asyncio.run(scenario())

    same_answer(after, alone, decoded)


def watch(monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str) -> list[str]:
    """Collect the names of the threads that call a function from now on."""
    threads: list[str] = []
    work = getattr(module, name)

    def watched(*args: object) -> object:
        threads.append(threading.current_thread().name)
        return work(*args)

    monkeypatch.setattr(module, name, watched)
    return threads


@pytest.mark.parametrize("path", ["/stn/rectify", "/draw/reconstruct?format=npz&steps=2"])
def test_large_upload_is_worked_on_off_the_event_loop(serve: Serve, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """A picture of a megapixel is decoded and framed on codec threads, so that no other request waits for it."""
    worked = [watch(monkeypatch, uploads, "decode"), watch(monkeypatch, stn, "network_input")]
    file = BytesIO()
    Image.effect_noise((1200, 1000), 60).save(file, "JPEG")

    async def scenario() -> httpx.Response:
        async with serve() as (_, client):
            return await client.post(path, content=file.getvalue(), headers={"content-type": "image/jpeg"})

    assert asyncio.run(scenario()).status_code == 200
    for threads in worked:
        assert [name.startswith("glimpse-codec") for name in threads] == [True]


def test_long_episode_is_drawn_off_the_event_loop(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bits of n-grams depend on one another, and take long to draw; a short episode is not worth a thread."""
    threads = watch(monkeypatch, ntm, "random_ngrams")

    async def scenario() -> list[int]:
        async with serve() as (_, client):
            return [(await client.get(f"/ntm/dynamic-ngrams?length={n}")).status_code for n in (6, 1024)]

    assert asyncio.run(scenario()) == [200, 200]
    assert [name.startswith("glimpse-codec") for name in threads] == [False, True]

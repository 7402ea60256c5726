"""The plain application does the same work as the service."""

import asyncio
from pathlib import Path

import httpx
import pytest

from benchmarks import plain, workloads
from service.media.decoding import decode


def test_plain_application_answers_as_the_service_does(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PNG of the rectified digit, with its class."""
    monkeypatch.setenv("GLIMPSE_MODELS", str(repository))
    (call,) = workloads.stn(1)

    async def ask() -> tuple[httpx.Response, httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(plain.create()), base_url="http://plain") as client:
            head = {"content-type": call.content_type}
            return await client.post(call.target, content=call.body, headers=head), await client.get("/readyz")

    answer, ready = asyncio.run(ask())

    assert ready.status_code == 200
    assert answer.status_code == 200
    assert decode(answer.content, answer.headers["content-type"]).grey.shape == (28, 28)
    assert int(answer.headers["x-label"]) in range(10)

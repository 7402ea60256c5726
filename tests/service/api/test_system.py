"""The service itself: health, models, metrics, request IDs, API keys."""

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from export.manifest import sha256
from service.api.gateway import OPEN_PATHS
from service.app import Glimpse

Problem = Callable[[httpx.Response, int, str], dict[str, Any]]
Serve = Callable[..., AbstractAsyncContextManager[tuple[Glimpse, httpx.AsyncClient]]]
Labels = tuple[tuple[str, str], ...]

PNG = {"content-type": "image/png"}
TASKS = ("copy", "repeat-copy", "associative-recall", "dynamic-ngrams", "priority-sort")
COPY: Labels = (("graph", "step"), ("model", "ntm-copy"), ("version", "1"))
REPEAT_COPY: Labels = (("graph", "step"), ("model", "ntm-repeat-copy"), ("version", "1"))
GENERATE: Labels = (("graph", "generate"), ("model", "draw"), ("version", "1"))
MODELS = {"stn-affine", "stn-projective", "stn-tps", "draw", *(f"ntm-{task}" for task in TASKS)}
LONGEST_EPISODE = "/ntm/repeat-copy?length=128&repeats=32"
TIMING = re.compile(r"decode;dur=[\d.]+, queue;dur=[\d.]+, compute;dur=[\d.]+, encode;dur=[\d.]+")

CALLS = [
    ("GET", "/livez", 200),
    ("GET", "/readyz", 200),
    ("GET", "/models", 200),
    ("GET", "/metrics", 200),
    ("GET", "/docs", 200),
    ("GET", "/openapi.json", 200),
    ("GET", "/draw/generate?steps=2", 200),
    ("GET", "/draw/generate?steps=2&format=sse", 200),
    ("GET", "/ntm/copy?length=2", 200),
    ("POST", "/stn/rectify", 400),
    ("GET", "/nowhere", 404),
    ("GET", "/ntm/juggling", 404),
    ("DELETE", "/livez", 405),
    ("GET", "/draw/generate?steps=0", 422),
]


# --- every answer ---


@pytest.mark.parametrize(("method", "path", "status"), CALLS)
def test_request_id_is_echoed_and_timings_are_told(client: httpx.Client, method: str, path: str, status: int) -> None:
    """Every response can be found in a log by its ID, and says where its time was spent."""
    response = client.request(method, path, headers={"x-request-id": "seven-of-nine"})

    assert response.status_code == status
    assert response.headers["x-request-id"] == "seven-of-nine"
    assert TIMING.fullmatch(response.headers["server-timing"])


@pytest.mark.parametrize(("method", "path", "status"), CALLS)
def test_caches_are_told_that_answers_depend_on_what_is_accepted(
    client: httpx.Client, method: str, path: str, status: int
) -> None:
    """One URL has several representations (RFC 9110, 12.5.5)."""
    response = client.request(method, path)

    assert (response.status_code, response.headers["vary"]) == (status, "accept")


@pytest.mark.parametrize("sent", [None, "", "x" * 2000, "tab\tin it"])
def test_request_id_that_is_absent_or_unfit_is_made_anew(client: httpx.Client, sent: str | None) -> None:
    """Every request has an ID that is fit for a log."""
    headers = {} if sent is None else {"x-request-id": sent}

    made = [client.get("/livez", headers=headers).headers["x-request-id"] for _ in range(2)]

    assert made[0] != made[1]
    assert all(re.fullmatch(r"[\x21-\x7e]{8,128}", identity) for identity in made)


def test_request_id_is_echoed_to_the_byte(client: httpx.Client) -> None:
    """This holds for every alphabet."""
    sent = "\u8def\u5f84 \u00df".encode()

    raw = dict(client.get("/livez", headers={b"x-request-id": sent}).headers.raw)

    assert raw[b"x-request-id"] == sent


def test_timings_of_what_is_not_finished_are_those_until_now(client: httpx.Client) -> None:
    """A stream begins when its first step is ready, and a deadline may pass during the computation."""
    with client.stream("GET", "/draw/generate?steps=64&count=8&format=sse") as streamed:
        streamed.read()
    late = client.get(LONGEST_EPISODE, headers={"x-request-timeout-ms": "50"})

    assert late.status_code == 504
    for response in (streamed, late):
        told = dict(part.split(";dur=") for part in response.headers["server-timing"].split(", "))
        assert float(told["compute"]) > 0, response


def test_timings_of_a_computed_answer_are_above_zero(client: httpx.Client, digit_png: bytes) -> None:
    """The timings of decoding, computing and encoding are reported."""
    response = client.post("/stn/rectify?size=512", content=digit_png, headers=PNG)

    told = dict(part.split(";dur=") for part in response.headers["server-timing"].split(", "))
    assert all(float(told[stage]) > 0 for stage in ("decode", "compute", "encode"))
    assert sum(map(float, told.values())) / 1000 < response.elapsed.total_seconds()


# --- health and models ---


def test_loaded_service_is_alive_and_ready(client: httpx.Client) -> None:
    """Both probes respond with 200."""
    assert client.get("/livez").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready"}


def test_models_shows_every_manifest(client: httpx.Client, repository: Path) -> None:
    """It has signatures, metrics and checksums as in the repository."""
    models = {model["name"]: model for model in client.get("/models").json()["models"]}

    assert models.keys() == MODELS
    for name, model in models.items():
        assert model["version"] == 1
        assert model["family"] == name.split("-")[0]
        assert model["metrics"] == {"score": 1.0}
        for file, described in model["files"].items():
            assert described["sha256"] == sha256(repository / name / "1" / file)
        for graph in model["graphs"].values():
            assert graph["signature"]["inputs"][0].keys() == {"name", "dtype", "shape"}
            assert graph["worst_error"] <= graph["tolerance"]
    assert models["draw"]["graphs"].keys() == {"generate", "reconstruct"}


# --- metrics ---


def samples(client: httpx.Client) -> dict[tuple[str, Labels], float]:
    """Return the samples that Prometheus would read, by name and labels."""
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def grown(
    client: httpx.Client, before: dict[tuple[str, Labels], float], expected: dict[tuple[str, Labels], float]
) -> dict[tuple[str, Labels], float]:
    """Return by how much metrics have grown, once that is as expected, or after many attempts.

    A worker reports its batch on its own thread, just after the result is there.
    """
    growth: dict[tuple[str, Labels], float] = {}
    for _ in range(100):
        now = samples(client)
        growth = {key: now.get(key, 0) - before.get(key, 0) for key in expected}
        if growth == expected:
            break
    return growth


def test_counters_move_by_what_was_sent(client: httpx.Client) -> None:
    """Three copies of five vectors, one of them as a stream, are three requests and 33 steps of that model."""
    before = samples(client)

    for query in ("length=5", "length=5", "length=5&format=sse"):
        client.get(f"/ntm/copy?{query}")
    client.get("/ntm/copy?length=0")

    route, model = ("route", "/ntm/copy"), ("model", "ntm-copy")
    expected: dict[tuple[str, Labels], float] = {
        ("glimpse_requests_total", (("code", "200"), model, route)): 3,
        ("glimpse_requests_total", (("code", "422"), ("model", ""), route)): 1,
        ("glimpse_request_seconds_count", (route,)): 4,
        ("glimpse_compute_seconds_count", (route,)): 3,
        ("glimpse_encode_seconds_count", (route,)): 3,
        ("glimpse_steps_total", COPY): 33,
    }
    assert grown(client, before, expected) == expected


def test_samples_of_a_drawing_are_counted_as_rows_of_batches(client: httpx.Client) -> None:
    """Sixteen steps of ten samples are 160 steps, in batches of at most ten rows."""
    before = samples(client)

    client.get("/draw/generate?count=10&steps=16&format=npz")

    expected: dict[tuple[str, Labels], float] = {
        ("glimpse_steps_total", GENERATE): 160,
        ("glimpse_padding_rows_total", GENERATE): 0,
        ("glimpse_batch_size_bucket", (GENERATE[0], ("le", "8.0"), *GENERATE[1:])): 0,
    }
    assert grown(client, before, expected) == expected


@pytest.mark.parametrize(
    ("path", "graph", "rows"),
    [(LONGEST_EPISODE, REPEAT_COPY, 1), ("/draw/generate?steps=64&count=64&format=npz", GENERATE, 64)],
)
def test_missed_deadline_is_counted(client: httpx.Client, path: str, graph: Labels, rows: int) -> None:
    """Its rows are counted, whether they were being computed or still being prepared."""
    before = samples(client)

    client.get(path, headers={"x-request-timeout-ms": "1"})

    expected: dict[tuple[str, Labels], float] = {("glimpse_deadline_misses_total", graph): rows}
    assert grown(client, before, expected) == expected


def test_idle_service_shows_nothing_waiting(client: httpx.Client) -> None:
    """Gauges return to zero; others show the models and their execution providers."""
    client.get("/ntm/copy")

    idle: dict[tuple[str, Labels], float] = {
        (name, COPY): 0 for name in ("glimpse_queue_depth", "glimpse_slots_occupied")
    }
    assert grown(client, {}, idle) == idle
    now = samples(client)
    assert idle.keys() <= now.keys()
    assert now["glimpse_ready", ()] == 1
    assert now["glimpse_process_resident_memory_bytes", ()] > 10e6
    for name in MODELS:
        family = name.split("-")[0]
        assert now["glimpse_model_info", (("family", family), ("model", name), ("version", "1"))] == 1
    assert now["glimpse_provider_info", (*COPY[:2], ("provider", "CPUExecutionProvider"), COPY[2])] == 1


def test_bug_is_a_problem_wherever_it_is(serve: Serve, problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    """This includes FastAPI's own routes."""

    async def scenario() -> httpx.Response:
        async with serve() as (app, client):
            monkeypatch.setattr(app.metrics, "exposition", lambda: 1 // 0)
            return await client.get("/metrics")

    problem(asyncio.run(scenario()), 500, "internal-error")


def test_whatever_is_served_is_counted_under_its_path(client: httpx.Client) -> None:
    """This includes requests with a wrong method."""
    document = client.get("/openapi.json").json()
    before = samples(client)

    for path in document["paths"]:
        client.request("PATCH", path)

    expected: dict[tuple[str, Labels], float] = {
        ("glimpse_requests_total", (("code", "405"), ("model", ""), ("route", path))): 1 for path in document["paths"]
    }
    assert grown(client, before, expected) == expected


def test_unknown_paths_do_not_become_labels(client: httpx.Client) -> None:
    """A scanner that requests a thousand paths creates only one time series."""
    for path in ("/admin", "/wp-login.php", "/ntm/juggling"):
        client.get(path)

    routes = {value for (_, labels), _ in samples(client).items() for name, value in labels if name == "route"}
    assert "other" in routes
    assert not {route for route in routes if "admin" in route or "wp" in route or "juggling" in route}


# --- keys ---


def test_api_keys_are_asked_for_everywhere_but_of_probes(serve: Serve, problem: Problem) -> None:
    """Either header is accepted, a wrong key is not; probes, metrics and documentation need none."""
    right: tuple[dict[str, str], ...] = (
        {"x-api-key": "first"},
        {"authorization": "Bearer second"},
        {"authorization": "bearer  first"},
        {"x-api-key": "third", "authorization": "Bearer second"},
    )
    wrong: tuple[dict[str, str], ...] = (
        {},
        {"x-api-key": "third"},
        {"x-api-key": ""},
        {"authorization": "Bearer third"},
        {"authorization": "Basic first"},
        {"authorization": "first"},
    )

    async def scenario() -> Iterator[tuple[bool, httpx.Response]]:
        async with serve(api_keys=("first", "second")) as (_, client):
            for path in OPEN_PATHS:
                assert (await client.get(path)).status_code == 200
            document = (await client.get("/openapi.json")).json()
            assert document["components"]["securitySchemes"].keys() == {"key", "bearer"}
            assert document["security"] == [{"key": []}, {"bearer": []}]
            paths = document["paths"].items()
            is_open = {path for path, operations in paths if operations.get("get", {}).get("security") == []}
            assert is_open == {"/livez", "/readyz", "/metrics"}
            opened = [(True, await client.get("/ntm/copy?length=1", headers=headers)) for headers in right]
            paths = ("/ntm/copy?length=1", "/models", "/nowhere")
            closed = [(False, await client.get(path, headers=headers)) for headers in wrong for path in paths]
            return iter([*opened, *closed])

    for is_open, response in asyncio.run(scenario()):
        if is_open:
            assert response.status_code == 200
        else:
            problem(response, 401, "unauthorized")
            assert response.headers["www-authenticate"] == "Bearer"

"""The documentation: its page, its parameters and problems, and responses that are as it describes them."""

import re
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from service.api.gateway import OPEN_PATHS
from service.schemas.answers import OUTCOMES, Generated, Outcome, Reconstructed, Rectified

PNG = {"content-type": "image/png"}
BODIES: dict[str, Any] = {
    "copy": {"sequence": [[0, 1] * 4]},
    "repeat-copy": {"sequence": [[0, 1] * 4], "repeats": 2},
    "associative-recall": {"items": [[[0, 1, 0, 1, 0, 1]] * 3] * 2, "query": 0},
    "dynamic-ngrams": {"bits": [0, 1] * 4},
    "priority-sort": {"vectors": [[0, 1] * 4], "priorities": [0.5]},
}
PARAMETERS = {
    ("post", "/stn/rectify"): {"model", "version", "size", "view", "format"},
    ("get", "/draw/generate"): {
        "version", "steps", "count", "seed", "digit", "temperature", "format", "scale", "attention", "fps",
    },
    ("post", "/draw/reconstruct"): {"version", "steps", "seed", "format", "scale", "attention", "fps"},
    **{("post", f"/ntm/{task}"): {"version", "trace", "format"} for task in BODIES},
    ("get", "/ntm/copy"): {"version", "trace", "format", "seed", "length"},
    ("get", "/ntm/repeat-copy"): {"version", "trace", "format", "seed", "length", "repeats"},
    ("get", "/ntm/associative-recall"): {"version", "trace", "format", "seed", "items"},
    ("get", "/ntm/dynamic-ngrams"): {"version", "trace", "format", "seed", "length"},
    ("get", "/ntm/priority-sort"): {"version", "trace", "format", "seed", "length"},
    **{("get", path): set() for path in ("/livez", "/readyz", "/models", "/metrics")},
}  # fmt: skip


def test_openapi_lists_every_path_and_parameter(client: httpx.Client) -> None:
    """The document alone is enough to use all of the service."""
    paths = client.get("/openapi.json").json()["paths"]

    for (method, path), names in PARAMETERS.items():
        operation = paths[path][method]
        parameters = operation.get("parameters", [])
        assert {parameter["name"] for parameter in parameters if parameter["in"] == "query"} == names
        headers = {parameter["name"] for parameter in parameters if parameter["in"] == "header"}
        assert headers == ({"X-Request-Timeout-Ms"} if path.startswith(("/stn/", "/draw/", "/ntm/")) else set())
        assert operation["summary"]
    assert paths["/ntm/copy"]["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"]["sequence"]
    assert "multipart/form-data" in paths["/stn/rectify"]["post"]["requestBody"]["content"]


def test_openapi_tells_ranges_and_problems(client: httpx.Client) -> None:
    """It has the bounds of a parameter, and a problem document for exactly the statuses of the contract."""
    paths = client.get("/openapi.json").json()["paths"]

    operation = paths["/draw/reconstruct"]["post"]
    steps = next(parameter for parameter in operation["parameters"] if parameter["name"] == "steps")
    assert (steps["schema"]["minimum"], steps["schema"]["maximum"], steps["schema"]["default"]) == (1, 64, 32)
    always, with_a_body = (401, 404, 413, 422, 429, 503, 504), (400, 401, 404, 413, 415, 422, 429, 503, 504)
    for method, path in PARAMETERS:
        if path.startswith(("/stn/", "/draw/", "/ntm/")):
            responses = paths[path][method]["responses"]
            problems = {status for status in responses if status != "200"}
            assert problems == set(map(str, with_a_body if method == "post" else always)), path
            assert all("application/problem+json" in responses[status]["content"] for status in problems)
            assert all("Retry-After" in responses[status]["headers"] for status in ("429", "503"))
    for method, path in PARAMETERS:
        for response in paths[path][method]["responses"].values():
            assert {"X-Request-ID", "Server-Timing"} <= response["headers"].keys(), path
    assert paths["/metrics"]["get"]["responses"]["200"]["content"].keys() == {"text/plain"}


def test_documentation_is_a_page_without_anything_from_elsewhere(client: httpx.Client) -> None:
    """It works in a browser without access to the internet."""
    response = client.get("/docs")

    assert response.headers["content-type"].startswith("text/html")
    assert "'/openapi.json'" in response.text
    parts = re.findall(r"""(?:src|href)=["']([^"']*)["']""", response.text)
    assert len(parts) == 3
    for part in parts:
        assert part in OPEN_PATHS, part
        assert client.get(part).status_code == 200, part
    assert "://" not in response.text


def assert_described(answer: httpx.Response, model: type[BaseModel]) -> None:
    """Check that the response has the members of the model, and no others."""
    assert answer.status_code == 200, answer.text
    document = answer.json()
    assert model.model_validate(document).model_dump(mode="json", exclude_none=True) == document


@pytest.mark.parametrize("name", ["stn-affine", "stn-projective", "stn-tps"])
def test_rectified_digits_are_as_described(client: httpx.Client, digit_png: bytes, name: str) -> None:
    """Every model of the family conforms, with one result per file."""
    files = [("image", ("a.png", digit_png, "image/png")), ("image", ("b.png", digit_png, "image/png"))]

    assert_described(client.post(f"/stn/rectify?model={name}&format=json", files=files), Rectified)


def test_drawings_are_as_described(client: httpx.Client, digit_png: bytes) -> None:
    """Generated and reconstructed drawings conform."""
    assert_described(client.get("/draw/generate?format=json&steps=2&count=2"), Generated)
    redrawn = client.post("/draw/reconstruct?format=json&steps=2", content=digit_png, headers=PNG)
    assert_described(redrawn, Reconstructed)


@pytest.mark.parametrize(("task", "model"), OUTCOMES.items())
@pytest.mark.parametrize("query", ["", "?trace=true"])
def test_outcomes_of_memory_tasks_are_as_described(
    client: httpx.Client, task: str, model: type[Outcome], query: str
) -> None:
    """Outcomes of a client's episode and of a random one conform, with and without a trace."""
    assert_described(client.post(f"/ntm/{task}{query}", json=BODIES[task]), model)
    assert_described(client.get(f"/ntm/{task}{query}"), model)


def test_openapi_describes_every_json_answer(client: httpx.Client) -> None:
    """The models above describe them, and every reference resolves."""
    document = client.get("/openapi.json").json()

    described = set()
    for path, operations in document["paths"].items():
        if path.startswith(("/stn/", "/draw/", "/ntm/")):
            for operation in operations.values():
                content = operation["responses"]["200"]["content"]["application/json"]
                described.add(content["schema"]["$ref"].removeprefix("#/components/schemas/"))
    assert described == {"Rectified", "Generated", "Reconstructed", "Recalled", "Repeated", "Predicted"}
    there = document["components"]["schemas"]
    assert there.keys() >= described
    for name, schema in there.items():
        assert name in str(schema["title"])
        for referred in _references(schema):
            assert referred.removeprefix("#/components/schemas/") in there


def _references(schema: Any) -> list[str]:
    if isinstance(schema, dict):
        own = [schema["$ref"]] if "$ref" in schema else []
        return own + [reference for value in schema.values() for reference in _references(value)]
    return [reference for value in schema for reference in _references(value)] if isinstance(schema, list) else []

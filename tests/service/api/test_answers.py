"""JSON answers are what the OpenAPI document says of them."""

from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from service.schemas.answers import OUTCOMES, Generated, Outcome, Reconstructed, Rectified

PNG = {"content-type": "image/png"}
BODIES: dict[str, Any] = {
    "copy": {"sequence": [[0, 1] * 4]},
    "repeat-copy": {"sequence": [[0, 1] * 4], "repeats": 2},
    "associative-recall": {"items": [[[0, 1, 0, 1, 0, 1]] * 3] * 2, "query": 0},
    "dynamic-ngrams": {"bits": [0, 1] * 4},
    "priority-sort": {"vectors": [[0, 1] * 4], "priorities": [0.5]},
}


def assert_described(answer: httpx.Response, model: type[BaseModel]) -> None:
    """The answer has all that the model has, and no more."""
    assert answer.status_code == 200, answer.text
    document = answer.json()
    assert model.model_validate(document).model_dump(mode="json", exclude_none=True) == document


@pytest.mark.parametrize("name", ["stn-affine", "stn-projective", "stn-tps"])
def test_rectified_digits_are_as_described(client: httpx.Client, digit_png: bytes, name: str) -> None:
    """Of every family, and one for each file."""
    files = [("image", ("a.png", digit_png, "image/png")), ("image", ("b.png", digit_png, "image/png"))]

    assert_described(client.post(f"/stn/rectify?model={name}&format=json", files=files), Rectified)


def test_drawings_are_as_described(client: httpx.Client, digit_png: bytes) -> None:
    """Drawn from noise, and redrawn from a picture."""
    assert_described(client.get("/draw/generate?format=json&steps=2&count=2"), Generated)
    redrawn = client.post("/draw/reconstruct?format=json&steps=2", content=digit_png, headers=PNG)
    assert_described(redrawn, Reconstructed)


@pytest.mark.parametrize(("task", "model"), OUTCOMES.items())
@pytest.mark.parametrize("query", ["", "?trace=true"])
def test_outcomes_of_memory_tasks_are_as_described(
    client: httpx.Client, task: str, model: type[Outcome], query: str
) -> None:
    """Of a client's episode and of a random one, with its trace and without."""
    assert_described(client.post(f"/ntm/{task}{query}", json=BODIES[task]), model)
    assert_described(client.get(f"/ntm/{task}{query}"), model)


def test_openapi_describes_every_json_answer(client: httpx.Client) -> None:
    """By the models above; whatever they refer to is there."""
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

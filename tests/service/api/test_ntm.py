"""`/ntm/{task}`: each task's response, compared with the network itself and with the task's definition."""

import json
import math
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from export.package import network_of
from models.checkpoint import load
from models.ntm.network import NeuralTuringMachine

Decode = Callable[[bytes], NDArray[np.uint8]]
Problem = Callable[[httpx.Response, int, str], dict[str, Any]]

TASKS = ("copy", "repeat-copy", "associative-recall", "dynamic-ngrams", "priority-sort")
COMMON = {"task", "model", "version", "output", "probabilities", "expected", "bit_errors", "accuracy"}

rng = np.random.default_rng(20_141_020)
VECTORS = rng.integers(2, size=(20, 8)).tolist()
ITEMS = rng.integers(2, size=(4, 3, 6)).tolist()
BITS = rng.integers(2, size=60).tolist()
PRIORITIES = rng.uniform(-1, 1, 20).round(3).tolist()
EPISODES: dict[str, dict[str, Any]] = {
    "copy": {"sequence": VECTORS[:5]},
    "repeat-copy": {"sequence": VECTORS[:3], "repeats": 4},
    "associative-recall": {"items": ITEMS, "query": 1},
    "dynamic-ngrams": {"bits": BITS},
    "priority-sort": {"vectors": VECTORS, "priorities": PRIORITIES},
}
STEPS = {
    "copy": 11,
    "repeat-copy": 3 + 1 + 12 + 1,
    "associative-recall": 16 + 8,
    "dynamic-ngrams": 60,
    "priority-sort": 37,
}
BY_PRIORITY = [VECTORS[index] for index in sorted(range(20), key=lambda index: -PRIORITIES[index])]
EXPECTED: dict[str, list[Any]] = {
    "copy": VECTORS[:5],
    "repeat-copy": VECTORS[:3] * 4,
    "associative-recall": ITEMS[2],
    "dynamic-ngrams": BITS,
    "priority-sort": BY_PRIORITY[:16],
}


def events_of(response: httpx.Response) -> list[tuple[str, dict[str, Any]]]:
    events = []
    for block in response.text.split("\n\n")[:-1]:
        name, data = block.split("\n")
        events.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return events


# --- an episode of the client's ---


@pytest.mark.parametrize("task", TASKS)
def test_answer_has_the_contracts_shape_and_adds_up(client: httpx.Client, task: str) -> None:
    """Output is the rounded probabilities; errors and accuracy are counted from output and expectation."""
    response = client.post(f"/ntm/{task}", json=EPISODES[task])

    assert response.status_code == 200, response.text
    document = response.json()
    assert document.keys() >= COMMON
    assert (document["task"], document["model"], document["version"]) == (task, f"ntm-{task}", 1)
    assert document["expected"] == EXPECTED[task]
    probabilities, output = np.array(document["probabilities"]), np.array(document["output"])
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    np.testing.assert_array_equal(output, probabilities > 0.5)
    errors = int((output != np.array(EXPECTED[task])).sum())
    assert document["bit_errors"] == errors
    assert document["accuracy"] == pytest.approx(1 - errors / output.size)


@pytest.mark.parametrize("task", TASKS)
def test_probabilities_are_what_the_network_says_to_the_traced_inputs(
    client: httpx.Client, checkpoints: Path, task: str
) -> None:
    """The stream's inputs, run through the machine in eager PyTorch, give the answer's last probabilities."""
    steps = [
        data for name, data in events_of(client.post(f"/ntm/{task}?format=sse", json=EPISODES[task])) if name == "step"
    ]
    document = client.post(f"/ntm/{task}", json=EPISODES[task]).json()

    network = network_of(load(checkpoints / f"ntm-{task}.safetensors"), checkpoints)
    assert isinstance(network, NeuralTuringMachine)
    with torch.no_grad():
        expected = torch.sigmoid(network.unroll(torch.tensor([data["input"] for data in steps])[:, None]))[:, 0].numpy()
    np.testing.assert_allclose([data["probabilities"] for data in steps], expected, atol=1e-4)
    if task == "dynamic-ngrams":
        answer = expected[:, 0]
    elif task == "repeat-copy":
        answer = expected[-13:-1, :8]  # the last step and the last channel are the end marker's
    else:
        answer = expected[-len(document["probabilities"]) :]
    np.testing.assert_allclose(document["probabilities"], answer, atol=1e-4)


@pytest.mark.parametrize(
    ("task", "smallest", "largest"),
    [
        ("copy", {"sequence": VECTORS[:1]}, {"sequence": [VECTORS[0]] * 128}),
        ("repeat-copy", {"sequence": VECTORS[:1], "repeats": 1}, {"sequence": VECTORS[:1] * 16, "repeats": 32}),
        ("associative-recall", {"items": ITEMS[:2], "query": 0}, {"items": ITEMS * 8, "query": 30}),
        ("dynamic-ngrams", {"bits": BITS[:6]}, {"bits": (BITS * 18)[:1024]}),
        (
            "priority-sort",
            {"vectors": VECTORS[:1], "priorities": [-1]},
            {"vectors": (VECTORS * 2)[:32], "priorities": [1] * 32},
        ),
    ],
)
def test_smallest_and_largest_episode_are_run(
    client: httpx.Client, task: str, smallest: dict[str, Any], largest: dict[str, Any]
) -> None:
    """Both ends of every range are allowed."""
    for episode in (smallest, largest):
        response = client.post(f"/ntm/{task}", json=episode)
        assert response.status_code == 200, response.text
        assert np.shape(response.json()["output"]) == np.shape(response.json()["expected"])
    printed = json.dumps(largest, indent=8)  # a bit a line
    assert client.post(f"/ntm/{task}", content=printed).json() == response.json()
    with_floats = re.sub(r"\b\d+\b", r"\g<0>.0", json.dumps(largest))  # as NumPy writes an array of floats
    assert client.post(f"/ntm/{task}", content=with_floats).json() == response.json()


def test_nested_lists_without_end_are_a_422(client: httpx.Client, problem: Problem) -> None:
    """They are not followed to their end, whatever is in them."""
    response = client.post("/ntm/copy", content=b'{"sequence": ' + b"[" * 900 + b"1.0" + b"]" * 900 + b"}")

    problem(response, 422, "invalid-parameter")


def test_repeat_copy_says_whether_it_ended_in_time(client: httpx.Client) -> None:
    """The end marker must be absent in every step of the answer but the last, and present there."""
    response = client.post("/ntm/repeat-copy?format=sse", json=EPISODES["repeat-copy"])

    events = events_of(response)
    markers = [data["probabilities"][8] > 0.5 for name, data in events if name == "step"][-13:]
    assert events[-1][1]["ended"] is (markers == [False] * 12 + [True])
    assert len(events[-1][1]["output"]) == 12


def test_ngrams_cost_what_their_probabilities_say(client: httpx.Client) -> None:
    """Both costs are sums of -log2 P(bit) over t >= 5: that of the machine, and that of counting per context."""
    document = client.post("/ntm/dynamic-ngrams", json={"bits": BITS}).json()

    def spent(probability: float, bit: int) -> float:
        return -math.log2(probability if bit else 1 - probability)

    counts: dict[tuple[int, ...], list[int]] = defaultdict(lambda: [0, 0])
    cost = optimal = 0.0
    for t in range(5, len(BITS)):
        zeros, ones = counts[tuple(BITS[t - 5 : t])]
        optimal += spent((ones + 0.5) / (zeros + ones + 1), BITS[t])
        counts[tuple(BITS[t - 5 : t])][BITS[t]] += 1
        cost += spent(document["probabilities"][t], BITS[t])
    assert document["cost_bits"] == pytest.approx(cost, rel=1e-5)
    assert document["optimal_cost_bits"] == pytest.approx(optimal)
    assert len(document["probabilities"]) == len(BITS)


def test_priorities_of_whole_numbers_are_sorted_too(client: httpx.Client) -> None:
    """JSON writes 1.0 as 1; the order is that of the numbers."""
    document = client.post("/ntm/priority-sort", json={"vectors": VECTORS[:3], "priorities": [0, 1, -1]}).json()

    assert document["expected"] == [VECTORS[1], VECTORS[0], VECTORS[2]]


# --- what the machine did ---


@pytest.mark.parametrize("task", TASKS)
def test_trace_has_a_row_a_step(client: httpx.Client, task: str) -> None:
    """Weightings are distributions over the slots; reads and adds are as wide as a slot."""
    document = client.post(f"/ntm/{task}?trace=true", json=EPISODES[task]).json()
    plain = client.post(f"/ntm/{task}", json=EPISODES[task]).json()

    trace = {name: np.array(rows) for name, rows in document.pop("trace").items()}
    assert document == plain
    assert {name: rows.shape for name, rows in trace.items()} == {
        "read_weights": (STEPS[task], 16),
        "write_weights": (STEPS[task], 16),
        "reads": (STEPS[task], 8),
        "adds": (STEPS[task], 8),
    }
    for name in ("read_weights", "write_weights"):
        np.testing.assert_allclose(trace[name].sum(axis=1), 1, atol=1e-4)
        assert (trace[name] >= 0).all()


@pytest.mark.parametrize("task", TASKS)
def test_figure_is_a_picture_in_colour_that_is_always_the_same(
    client: httpx.Client, decoded: Decode, task: str
) -> None:
    """The figure of the paper, asked for by name or by Accept."""
    named = client.post(f"/ntm/{task}?format=png", json=EPISODES[task])
    preferred = client.post(f"/ntm/{task}", json=EPISODES[task], headers={"accept": "image/png"})

    assert named.headers["content-type"] == preferred.headers["content-type"] == "image/png"
    assert named.content == preferred.content
    figure = decoded(named.content)
    assert min(figure.shape[:2]) > 100
    assert figure.std() > 10


@pytest.mark.parametrize("task", TASKS)
def test_stream_has_an_event_a_step_then_the_whole_answer(client: httpx.Client, task: str) -> None:
    """Steps come in order; `done` is the JSON answer."""
    query = f"/ntm/{task}?format=sse&trace=true"

    events = events_of(client.post(query, json=EPISODES[task]))

    assert [name for name, _ in events] == ["step"] * STEPS[task] + ["done"]
    assert [data["step"] for _, data in events[:-1]] == list(range(STEPS[task]))
    done = events[-1][1]
    assert done == client.post(f"/ntm/{task}?trace=true", json=EPISODES[task]).json()
    for name, rows in done["trace"].items():
        np.testing.assert_allclose([data["trace"][name] for _, data in events[:-1]], rows, atol=1e-6)


def test_stream_has_no_trace_unless_it_is_asked_for(client: httpx.Client) -> None:
    """A row of 16 weights per step is too much for most clients."""
    events = events_of(client.post("/ntm/copy", json=EPISODES["copy"], headers={"accept": "text/event-stream"}))

    assert len(events) == 12
    assert all("trace" not in data for _, data in events)


# --- a random episode ---


@pytest.mark.parametrize("name", ["json", "png", "sse"])
@pytest.mark.parametrize("task", TASKS)
def test_same_seed_gives_the_same_bytes_and_another_seed_others(client: httpx.Client, task: str, name: str) -> None:
    """In every format; and the seed comes back in a header."""
    first, again, other = (client.get(f"/ntm/{task}?format={name}&seed={seed}") for seed in (7, 7, 8))

    assert first.status_code == 200, first.text
    assert first.headers["x-seed"] == "7"
    assert first.content == again.content
    assert first.content != other.content


@pytest.mark.parametrize(
    ("task", "query", "shape"),
    [
        ("copy", "length=17", (17, 8)),
        ("repeat-copy", "length=3&repeats=5", (15, 8)),
        ("associative-recall", "items=9", (3, 6)),
        ("dynamic-ngrams", "length=33", (33,)),
        ("priority-sort", "length=7", (7, 8)),
        ("priority-sort", "length=32", (16, 8)),
    ],
)
def test_sizes_of_a_random_episode_are_those_that_were_asked_for(
    client: httpx.Client, task: str, query: str, shape: tuple[int, ...]
) -> None:
    """Each task has parameters of its own for its sizes."""
    document = client.get(f"/ntm/{task}?{query}&seed=1").json()

    assert np.shape(document["expected"]) == np.shape(document["output"]) == shape


def test_random_query_is_always_of_an_item_that_another_follows(client: httpx.Client) -> None:
    """With two items it is the first, whatever the seed."""
    answers = [client.get(f"/ntm/associative-recall?items=2&seed={seed}") for seed in range(20)]

    assert [answer.status_code for answer in answers] == [200] * 20


@pytest.mark.parametrize("task", TASKS)
def test_random_episode_can_be_sent_back(client: httpx.Client, task: str) -> None:
    """The response has the episode in the form of a body: sent back, it gets the same response."""
    document = client.get(f"/ntm/{task}?seed=3").json()

    episode, seed = document.pop("episode"), document.pop("seed")
    answer = client.post(f"/ntm/{task}", json=episode).json()

    assert seed == 3
    np.testing.assert_allclose(answer.pop("probabilities"), document.pop("probabilities"), atol=1e-4)
    for name in ("cost_bits", "optimal_cost_bits"):
        assert answer.pop(name, 0) == pytest.approx(document.pop(name, 0), abs=1e-2)
    assert answer == document


def test_absent_seed_is_random_and_can_be_asked_for_again(client: httpx.Client) -> None:
    """A random episode can be repeated with the seed in its response."""
    first, other = (client.get("/ntm/copy") for _ in range(2))

    assert first.headers["x-seed"] != other.headers["x-seed"]
    assert client.get(f"/ntm/copy?seed={first.headers['x-seed']}").content == first.content

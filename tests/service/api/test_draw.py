"""`/draw`: every format, what the seed decides, and that pictures and windows are the network's own."""

import base64
import json
import math
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from export.package import network_of
from models.checkpoint import load
from models.draw.network import NO_CLASS, Draw, condition
from service.tasks.draw import drawn_digit, noise

PNG = {"content-type": "image/png"}
FORMATS = {
    "gif": "image/gif",
    "apng": "image/apng",
    "webp": "image/webp",
    "png": "image/png",
    "final": "image/png",
    "json": "application/json",
    "npz": "application/x-npz",
    "sse": "text/event-stream",
}
WINDOW = {"gx", "gy", "delta", "sigma", "gamma"}
Decode = Callable[[bytes], NDArray[np.uint8]]


def frames_of(response: httpx.Response) -> NDArray[np.uint8]:
    """Return the pictures of an NPZ response, [count steps 28 28]."""
    with np.load(BytesIO(response.content), allow_pickle=False) as arrays:
        return np.array(arrays["frames"])


def events_of(response: httpx.Response) -> list[tuple[str, dict[str, Any]]]:
    events = []
    for block in response.text.split("\n\n")[:-1]:
        name, data = block.split("\n")
        events.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return events


def drawn_by_the_network(checkpoints: Path, seed: int, labels: list[int], steps: int) -> NDArray[np.float32]:
    """Return what the network draws in eager PyTorch, one sample per label, [count steps 28 28] in 0..255."""
    network = network_of(load(checkpoints / "draw.safetensors"), checkpoints)
    assert isinstance(network, Draw)
    z = np.stack([noise(seed, sample, steps, network.config.latent_size) for sample in range(len(labels))], axis=1)
    with torch.no_grad():
        pictures = network.generate(condition(torch.tensor(labels), steps), torch.from_numpy(z))
    drawn: NDArray[np.float32] = 255 * pictures.transpose(0, 1).numpy()
    return drawn


def within_a_grey_level(found: NDArray[Any], expected: NDArray[Any]) -> None:
    np.testing.assert_allclose(found.astype(float), expected, atol=1.01)


# --- what is drawn ---


def test_pictures_are_what_the_network_draws(client: httpx.Client, checkpoints: Path) -> None:
    """The seed's noise, drawn step by step in eager PyTorch under that digit, gives the same pictures."""
    frames = frames_of(client.get("/draw/generate?format=npz&seed=11&count=3&steps=9&digit=4"))

    expected = drawn_by_the_network(checkpoints, 11, [4, 4, 4], 9)
    within_a_grey_level(frames, expected)
    assert np.abs(expected - drawn_by_the_network(checkpoints, 11, [5, 5, 5], 9)).max() > 2


def test_seed_decides_the_digit_of_every_sample_where_none_is_asked_for(
    client: httpx.Client, checkpoints: Path
) -> None:
    """Without a digit, each sample is of the class that the seed draws for it."""
    frames = frames_of(client.get("/draw/generate?format=npz&seed=11&count=4&steps=9"))

    labels = [drawn_digit(11, sample) for sample in range(4)]
    assert len(set(labels)) > 1
    within_a_grey_level(frames, drawn_by_the_network(checkpoints, 11, labels, 9))


def test_sample_does_not_depend_on_how_many_are_asked_for(client: httpx.Client) -> None:
    """The first of many samples are the same as those of few."""
    few, many = (frames_of(client.get(f"/draw/generate?format=npz&seed=5&steps=8&count={n}")) for n in (2, 64))

    within_a_grey_level(many[:2], few)
    assert len({sample.tobytes() for sample in many}) == 64


def test_temperature_scales_the_noise(client: httpx.Client) -> None:
    """Without noise the seed has no effect; with more noise, drawings differ more from that one."""

    def last(query: str) -> NDArray[np.float64]:
        return frames_of(client.get(f"/draw/generate?format=npz&steps=8&digit=3&{query}"))[:, -1].astype(float)

    mean = last("seed=1&temperature=0")
    np.testing.assert_array_equal(mean, last("seed=2&temperature=0"))
    distances = [np.abs(last(f"seed=1&temperature={t}") - mean).sum() for t in (0.3, 1, 2)]
    assert 0 < distances[0] < distances[1] < distances[2]


# --- the seed ---


@pytest.mark.parametrize("name", FORMATS)
def test_same_seed_gives_the_same_bytes_and_another_seed_others(client: httpx.Client, name: str) -> None:
    """In every format; and the seed comes back in a header."""
    query = f"/draw/generate?format={name}&steps=8&count=2"

    first, again, other = (client.get(f"{query}&seed={seed}") for seed in (42, 42, 43))

    assert first.headers["content-type"] == FORMATS[name]
    assert first.headers["x-seed"] == "42"
    assert first.content == again.content
    assert first.content != other.content


@pytest.mark.parametrize("seed", [0, 2**53 - 1])
def test_smallest_and_largest_seed_are_drawn(client: httpx.Client, seed: int) -> None:
    """Every whole number that JSON keeps exactly is a seed."""
    document = client.get(f"/draw/generate?format=json&steps=1&scale=1&seed={seed}").json()

    assert document["seed"] == seed


def test_absent_seed_is_random_and_can_be_asked_for_again(client: httpx.Client) -> None:
    """A drawing can be repeated with the seed in its header."""
    first, other = (client.get("/draw/generate?format=final") for _ in range(2))

    assert first.headers["x-seed"] != other.headers["x-seed"]
    assert client.get(f"/draw/generate?format=final&seed={first.headers['x-seed']}").content == first.content


# --- the formats ---


def test_default_is_a_gif_of_32_frames_at_four_times_the_size(client: httpx.Client) -> None:
    """A browser that follows a plain link shows it."""
    response = client.get("/draw/generate")

    image = Image.open(BytesIO(response.content))
    assert response.headers["content-type"] == "image/gif"
    assert (image.format, getattr(image, "n_frames", 1), image.size) == ("GIF", 32, (112, 112))


@pytest.mark.parametrize("name", ["gif", "apng", "webp"])
def test_animation_has_a_frame_a_step_and_a_cell_a_sample(client: httpx.Client, name: str) -> None:
    """Samples move together, in a sheet that is about as wide as it is high."""
    response = client.get(f"/draw/generate?format={name}&steps=10&count=4&scale=2&fps=20&seed=3&temperature=2")

    image = Image.open(BytesIO(response.content))
    image.load()
    assert image.format == {"gif": "GIF", "apng": "PNG", "webp": "WEBP"}[name]
    assert getattr(image, "n_frames", 1) == 10
    assert image.size == (2 * 56 + 1, 2 * 56 + 1)
    assert image.info["duration"] == pytest.approx(50)


def test_film_strip_has_a_row_a_sample_and_a_column_a_step(client: httpx.Client, decoded: Decode) -> None:
    """It has the layout of the paper's figure."""
    strip = decoded(client.get("/draw/generate?format=png&steps=6&count=3&scale=1&attention=false&seed=8").content)
    frames = frames_of(client.get("/draw/generate?format=npz&steps=6&count=3&seed=8"))

    assert strip.shape == (3 * 29 - 1, 6 * 29 - 1)
    for row in range(3):
        for column in range(6):
            cell = strip[row * 29 : row * 29 + 28, column * 29 : column * 29 + 28]
            within_a_grey_level(cell, frames[row, column])


def test_final_shows_the_finished_pictures_alone(client: httpx.Client, decoded: Decode) -> None:
    """It has the last step of every sample, without windows."""
    sheet = decoded(client.get("/draw/generate?format=final&steps=6&count=4&scale=1&seed=8").content)
    frames = frames_of(client.get("/draw/generate?format=npz&steps=6&count=4&seed=8"))

    assert sheet.shape == (57, 57)
    within_a_grey_level(sheet[29:, :28], frames[2, -1])


def test_attention_is_drawn_in_red_unless_it_is_refused(client: httpx.Client, decoded: Decode) -> None:
    """A strip with windows differs from one without only in red pixels."""
    query = "/draw/generate?format=png&steps=4&scale=4&seed=8"

    marked = decoded(client.get(query).content)
    plain = decoded(client.get(f"{query}&attention=false").content)

    is_red = (marked == (255, 0, 0)).all(axis=2)
    assert 0 < is_red.sum() < is_red.size / 2
    within_a_grey_level(marked[~is_red][:, 0], plain[~is_red])


def test_json_tells_the_digit_of_every_sample(client: httpx.Client) -> None:
    """It is the digit in the query, or one that the seed draws; requested explicitly, it gives the same picture."""
    drawn = client.get("/draw/generate?format=json&steps=4&count=5&seed=4").json()["samples"]

    for sample, digit in enumerate(each["digit"] for each in drawn):
        named = client.get(f"/draw/generate?format=json&steps=4&count=5&seed=4&digit={digit}").json()["samples"]
        assert {each["digit"] for each in named} == {digit}
        assert named[sample]["frames"] == drawn[sample]["frames"]


@pytest.mark.parametrize("scale", [1, 3, 16])
def test_json_has_the_contracts_shape(client: httpx.Client, decoded: Decode, scale: int) -> None:
    """A frame and a window for every sample and step."""
    response = client.get(f"/draw/generate?format=json&steps=5&count=2&seed=4&scale={scale}&attention=false")

    document = response.json()
    assert {"model", "version", "seed", "steps", "samples"} <= document.keys()
    assert (document["model"], document["version"], document["seed"], document["steps"]) == ("draw", 1, 4, 5)
    assert len(document["samples"]) == 2
    frames = frames_of(client.get("/draw/generate?format=npz&steps=5&count=2&seed=4"))
    for sample, expected in zip(document["samples"], frames, strict=True):
        assert len(sample["frames"]) == len(sample["attention"]) == 5
        for picture, window, frame in zip(sample["frames"], sample["attention"], expected, strict=True):
            within_a_grey_level(decoded(base64.b64decode(picture)), frame.repeat(scale, 0).repeat(scale, 1))
            assert window.keys() == WINDOW
            assert all(math.isfinite(value) for value in window.values())
            assert min(window["delta"], window["sigma"], window["gamma"]) > 0


def test_npz_holds_the_windows_of_the_json(client: httpx.Client) -> None:
    """The same numbers, as an array."""
    query = "/draw/generate?steps=5&count=2&seed=4"
    samples = client.get(f"{query}&format=json").json()["samples"]

    with np.load(BytesIO(client.get(f"{query}&format=npz").content), allow_pickle=False) as arrays:
        windows = [
            [[w[name] for name in ("gx", "gy", "delta", "sigma", "gamma")] for w in s["attention"]] for s in samples
        ]
        np.testing.assert_allclose(arrays["attention"], windows, atol=1e-4)
        assert arrays["seed"] == 4
        assert arrays["digits"].tolist() == [sample["digit"] for sample in samples]


def test_stream_has_an_event_for_every_sample_and_step_then_done(client: httpx.Client, decoded: Decode) -> None:
    """Steps are in order within a sample, with the pictures of the JSON response, and `done` comes once, at the end."""
    query = "/draw/generate?steps=20&count=3&seed=4&scale=2"
    document = client.get(f"{query}&format=json").json()

    events = events_of(client.get(f"{query}&format=sse"))

    assert [name for name, _ in events] == ["step"] * 60 + ["done"]
    for index, sample in enumerate(document["samples"]):
        mine = [data for name, data in events if name == "step" and data["sample"] == index]
        assert [data["step"] for data in mine] == list(range(20))
        for data, frame in zip(mine, sample["frames"], strict=True):
            within_a_grey_level(decoded(base64.b64decode(data["image"])), decoded(base64.b64decode(frame)))
        for data, window in zip(mine, sample["attention"], strict=True):
            assert data["attention"] == pytest.approx(window, abs=1e-4)
    assert events[-1][1] == {name: value for name, value in document.items() if name != "samples"}
    assert events[-1][1]["digits"] == [sample["digit"] for sample in document["samples"]]


def test_stream_begins_before_it_ends(client: httpx.Client) -> None:
    """Steps arrive in several parts, as they are computed."""
    with client.stream("GET", "/draw/generate?steps=64&format=sse") as response:
        parts = list(response.iter_raw())

    assert len(parts) > 1
    assert b"event: step" in parts[0]
    assert b"event: done" not in parts[0]
    assert b"event: done" in parts[-1]


def test_answer_without_a_format_goes_by_accept(client: httpx.Client) -> None:
    """Programs get events or JSON if they ask for them, all other clients a GIF."""
    for accept, expected in [
        ("*/*", "image/gif"),
        ("image/avif,image/webp,*/*;q=0.8", "image/gif"),
        ("image/gif;q=0, */*", "application/json"),
        ("text/event-stream", "text/event-stream"),
        ("application/json", "application/json"),
        ("application/json;q=0.1, text/event-stream;q=0.9", "text/event-stream"),
    ]:
        response = client.get("/draw/generate?steps=2", headers={"accept": accept})
        assert response.headers["content-type"] == expected, accept
    named = client.get("/draw/generate?steps=2&format=final", headers={"accept": "application/json"})
    assert named.headers["content-type"] == "image/png"


# --- reconstruction ---


@pytest.mark.parametrize("name", FORMATS)
def test_reconstruction_has_every_format_and_the_seed_decides(
    client: httpx.Client, digit_png: bytes, name: str
) -> None:
    """The same picture and seed give the same bytes."""
    query = f"/draw/reconstruct?format={name}&steps=8"

    first, again, other = (client.post(f"{query}&seed={s}", content=digit_png, headers=PNG) for s in (42, 42, 43))

    assert first.headers["content-type"] == FORMATS[name]
    assert first.headers["x-seed"] == "42"
    assert first.content == again.content
    assert first.content != other.content


def test_reconstruction_answers_windows_and_the_bound(
    client: httpx.Client, digit_png: bytes, checkpoints: Path, decoded: Decode
) -> None:
    """The bound is that of the eager network for the rectified, binarised picture; all windows are there."""
    query = "format=json&steps=9&seed=6&scale=1&attention=false"
    document = client.post(f"/draw/reconstruct?{query}", content=digit_png, headers=PNG).json()

    rectified = decoded(client.post("/stn/rectify", content=digit_png, headers=PNG).content)
    network = network_of(load(checkpoints / "draw.safetensors"), checkpoints)
    assert isinstance(network, Draw)
    x = torch.from_numpy((rectified > 127).astype(np.float32))[None]
    z = torch.from_numpy(noise(6, 0, 9, network.config.latent_size))[:, None]
    with torch.no_grad():
        seen = network.reconstruct(x, condition(torch.tensor([NO_CLASS]), 9), z)
    p = torch.sigmoid(seen.canvas).double()
    mean, sigma = seen.posterior.mean.double(), seen.posterior.log_sigma.double().exp()
    nats = -(x * p.log() + (1 - x) * (1 - p).log()).sum() + (mean**2 + sigma**2 - 1 - 2 * sigma.log()).sum() / 2
    assert document["bound_nats"] == pytest.approx(nats.item(), rel=1e-3)
    (sample,) = document["samples"]
    within_a_grey_level(decoded(base64.b64decode(sample["frames"][-1])), 255 * p[0].numpy())
    assert len(sample["attention"]) == len(sample["reading"]) == 9
    assert all(window.keys() == WINDOW for window in (*sample["attention"], *sample["reading"]))


def test_reconstruction_as_npz_holds_what_the_json_says(client: httpx.Client, digit_png: bytes) -> None:
    """It also has the read windows and the bound."""
    query = "/draw/reconstruct?steps=5&seed=6"
    document = client.post(f"{query}&format=json", content=digit_png, headers=PNG).json()
    (sample,) = document["samples"]

    response = client.post(f"{query}&format=npz", content=digit_png, headers=PNG)

    with np.load(BytesIO(response.content), allow_pickle=False) as arrays:
        for name in ("attention", "reading"):
            windows = [[window[each] for each in ("gx", "gy", "delta", "sigma", "gamma")] for window in sample[name]]
            np.testing.assert_allclose(arrays[name], [windows], atol=1e-4)
        assert arrays["bound_nats"] == pytest.approx(document["bound_nats"], abs=1e-3)


def test_reconstruction_streams_its_steps(client: httpx.Client, digit_png: bytes, decoded: Decode) -> None:
    """Events have both windows; the last one has the bound."""
    query = "steps=10&seed=6"
    document = client.post(f"/draw/reconstruct?{query}&format=json", content=digit_png, headers=PNG).json()

    response = client.post(
        f"/draw/reconstruct?{query}", content=digit_png, headers={**PNG, "accept": "text/event-stream"}
    )

    events = events_of(response)
    assert [name for name, _ in events] == ["step"] * 10 + ["done"]
    for (_, data), frame in zip(events[:-1], document["samples"][0]["frames"], strict=True):
        within_a_grey_level(decoded(base64.b64decode(data["image"])), decoded(base64.b64decode(frame)))
    assert all(data["reading"].keys() == WINDOW for _, data in events[:-1])
    assert events[-1][1]["bound_nats"] == pytest.approx(document["bound_nats"], abs=1e-3)


def test_reconstruction_draws_the_read_window_in_green(client: httpx.Client, digit_png: bytes, decoded: Decode) -> None:
    """Write windows are red, read windows green."""
    strip = decoded(client.post("/draw/reconstruct?format=png&steps=4", content=digit_png, headers=PNG).content)

    for colour in ((255, 0, 0), (0, 255, 0)):
        assert (strip == colour).all(axis=2).any()

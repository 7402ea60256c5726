"""Errors: every one is a problem document with the status and the code of the contract, and says what to do."""

import asyncio
import struct
import zlib
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from io import BytesIO
from typing import Any

import httpx
import pytest
from PIL import Image

from service import errors
from service.api.ntm import LARGEST_EPISODE_BYTES
from service.api.problems import STATUSES, status_of
from service.app import Glimpse
from service.engine.request import Request
from service.settings import Batching, Limits
from service.tasks import draw

Problem = Callable[[httpx.Response, int, str], dict[str, Any]]
Serve = Callable[..., AbstractAsyncContextManager[tuple[Glimpse, httpx.AsyncClient]]]

PNG = {"content-type": "image/png"}
BIT_VECTOR = [0, 1, 0, 1, 0, 1, 0, 1]


def form(*parts: bytes, boundary: bytes = b"frontier", end: bytes = b"--frontier--\r\n") -> bytes:
    return b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts) + end


FORM = {"content-type": "multipart/form-data; boundary=frontier"}
FILE = b'Content-Disposition: form-data; name="image"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'


SIZES = {"wide": (1000, 600), "high": (400, 1000), "dot": (1, 1)}


def blank(width: int, height: int) -> bytes:
    """A PNG of black pixels."""
    file = BytesIO()
    Image.new("L", (width, height)).save(file, "PNG")
    return file.getvalue()


def huge_png() -> bytes:
    """A PNG of a few bytes whose header claims 100 megapixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 10_000, 10_000, 8, 0, 0, 0, 0)
    rows = chunk(b"IDAT", zlib.compress(bytes(10_001)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + rows + chunk(b"IEND", b"")


# --- 400: what cannot be decoded ---


@pytest.mark.parametrize("path", ["/stn/rectify", "/draw/reconstruct"])
@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "empty"),
        (b"seven, drawn in words", "no picture"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"\xff\xd8\xff\xe0 no JPEG after all", "JPEG"),
    ],
)
def test_body_that_is_no_picture_is_a_400(
    client: httpx.Client, problem: Problem, path: str, body: bytes, says: str
) -> None:
    """Whatever the content type claims, a body that is no picture is undecodable."""
    assert says in problem(client.post(path, content=body, headers=PNG), 400, "undecodable")["detail"]


@pytest.mark.parametrize("file_format", ["png", "jpeg", "webp", "gif", "bmp", "tiff"])
def test_truncated_picture_is_a_400(
    client: httpx.Client, problem: Problem, digit: Image.Image, file_format: str
) -> None:
    """Half a file is never half an answer."""
    file = BytesIO()
    digit.save(file, file_format)
    half = file.getvalue()[: len(file.getvalue()) // 2]

    problem(
        client.post("/stn/rectify", content=half, headers={"content-type": f"image/{file_format}"}), 400, "undecodable"
    )


@pytest.mark.parametrize("cut", [1, 13, 40])
def test_png_that_lacks_its_last_bytes_is_a_400(
    client: httpx.Client, problem: Problem, digit_png: bytes, cut: int
) -> None:
    """Also a file that has all of its pixels, or nearly all, is damaged without its end."""
    problem(client.post("/stn/rectify", content=digit_png[:-cut], headers=PNG), 400, "undecodable")


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"content-type": "multipart/form-data"}, form(FILE)),
        (FORM, b""),
        (FORM, b"no form at all"),
        (FORM, form(FILE, boundary=b"elsewhere")),
        (FORM, form(b"no header\r\n\r\nno value")),
        (FORM, form(FILE, end=b"")),
        (FORM, form(FILE, end=b"--front")),
        (FORM, form(b'Content-Disposition: form-data; filename="a"\r\n\r\nnameless')),
    ],
    ids=["no boundary", "empty", "no form", "other boundary", "bad header", "no end", "half an end", "nameless part"],
)
def test_malformed_form_is_a_400(client: httpx.Client, problem: Problem, headers: dict[str, str], body: bytes) -> None:
    """A form that breaks the rules of forms, or ends before its end, is undecodable as a whole."""
    problem(client.post("/stn/rectify", content=body, headers=headers), 400, "undecodable")


def test_form_that_is_cut_off_after_a_whole_file_is_a_400(
    client: httpx.Client, problem: Problem, digit_png: bytes
) -> None:
    """The first of two files is not answered as if it had been the only one."""
    whole = form(FILE + digit_png, FILE + digit_png)

    document = problem(
        client.post("/stn/rectify", content=whole[: len(whole) * 2 // 3], headers=FORM), 400, "undecodable"
    )

    assert "cut off" in document["detail"]


@pytest.mark.parametrize(
    "body",
    [b"", b'{"sequence": [[0, 1', b"sequence=1", b'{"sequence": NaN}', b"\xff\xfe", b"[" * 10_000],
    ids=["empty", "cut off", "form", "NaN", "no UTF-8", "deep"],
)
def test_body_that_is_no_json_is_a_400(client: httpx.Client, problem: Problem, body: bytes) -> None:
    """An episode that cannot be parsed is undecodable."""
    response = client.post("/ntm/copy", content=body, headers={"content-type": "application/json"})

    problem(response, 400, "undecodable")


# --- 404 and 405: what is not there ---


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/nowhere", "not-found"),
        ("POST", "/stn", "not-found"),
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
    """Who asks for the wrong name learns the right ones."""
    assert "stn-projective" in problem(client.post("/stn/rectify?model=stn"), 404, "unknown-model")["detail"]
    assert "priority-sort" in problem(client.get("/ntm/sort"), 404, "unknown-task")["detail"]
    assert "it has 1" in problem(client.get("/draw/generate?version=2"), 404, "unknown-model")["detail"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/stn/rectify", "POST"),
        ("POST", "/draw/generate", "GET"),
        ("DELETE", "/draw/reconstruct", "POST"),
        ("PUT", "/ntm/juggling", "POST"),
        ("POST", "/livez", "GET"),
        ("POST", "/metrics", "GET"),
    ],
)
def test_wrong_method_is_a_405_that_names_the_right_one(
    client: httpx.Client, problem: Problem, method: str, path: str, allowed: str
) -> None:
    """The answer says in `Allow` what the path does take."""
    response = client.request(method, path)

    problem(response, 405, "method-not-allowed")
    assert allowed in response.headers["allow"].split(", ")


def test_wrong_method_is_answered_with_all_right_ones(client: httpx.Client) -> None:
    """A task takes an episode by POST and makes up one by GET."""
    allowed = client.delete("/ntm/copy").headers["allow"].split(", ")

    assert {"GET", "POST"} <= set(allowed)


# --- 413 and 415: what is too large, or of another kind ---


@pytest.mark.parametrize(
    ("path", "limit"), [("/stn/rectify", 2**20), ("/draw/reconstruct", 2**20), ("/ntm/copy", LARGEST_EPISODE_BYTES)]
)
@pytest.mark.parametrize("announced", [True, False])
def test_body_over_the_limit_is_a_413_announced_or_not(
    client: httpx.Client, problem: Problem, path: str, limit: int, *, announced: bool
) -> None:
    """A content length over the limit is refused at once, a body without end when it gets there."""
    size = 3 * limit
    body = bytes(size) if announced else (bytes(2**12) for _ in range(size >> 12))

    document = problem(client.post(path, content=body, headers=PNG), 413, "too-large")

    assert str(limit) in document["detail"]
    assert client.get("/livez").status_code == 200


@pytest.mark.parametrize("path", ["/stn/rectify", "/draw/reconstruct"])
def test_picture_of_too_many_pixels_is_a_413_by_its_header(client: httpx.Client, problem: Problem, path: str) -> None:
    """A hundred megapixels in a hundred bytes are not decoded."""
    document = problem(client.post(path, content=huge_png(), headers=PNG), 413, "too-large")

    assert "10000 x 10000" in document["detail"]
    assert "1000000" in document["detail"]


def test_pictures_of_a_request_share_one_allowance_of_pixels(client: httpx.Client, problem: Problem) -> None:
    """All files together are held to the limit, here a megapixel: two files reach it, and a third one passes it."""
    wide, high, dot = (("image", (name, blank(*size), "image/png")) for name, size in SIZES.items())

    assert len(client.post("/stn/rectify", files=[wide, high]).json()["results"]) == 2
    for files in ([wide, high, dot], [dot, high, wide]):
        detail = problem(client.post("/stn/rectify", files=files), 413, "too-large")["detail"]
        assert "1000000" in detail
    assert "1000 x 600" in detail
    assert "400001 of the 1000000" in detail


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/stn/rectify", "text/plain"),
        ("/stn/rectify", "application/json"),
        ("/stn/rectify", "image/svg+xml"),
        ("/draw/reconstruct", "application/pdf"),
        ("/ntm/copy", "text/csv"),
        ("/ntm/dynamic-ngrams", "application/x-www-form-urlencoded"),
    ],
)
def test_content_type_that_is_not_read_is_a_415(
    client: httpx.Client, problem: Problem, path: str, content_type: str
) -> None:
    """The type is named, and what is read instead."""
    response = client.post(path, content=b"{}", headers={"content-type": content_type})

    assert content_type in problem(response, 415, "unsupported-type")["detail"]


def test_file_of_another_type_in_a_form_is_a_415(client: httpx.Client, problem: Problem) -> None:
    """A form's files are held to the same types."""
    response = client.post("/stn/rectify", files={"image": ("a.txt", b"seven", "text/plain")})

    problem(response, 415, "unsupported-type")


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
    """Whoever reads the detail knows what to send instead."""
    document = problem(client.request(method, query), 422, "invalid-parameter")

    assert document["parameter"] == parameter
    assert parameter in document["detail"]
    assert value in document["detail"]
    assert allowed in document["detail"]


@pytest.mark.parametrize(
    ("task", "episode", "parameter", "value"),
    [
        ("copy", {"sequence": [BIT_VECTOR, [0, 1, 0, 2, 0, 1, 0, 1]]}, "sequence.1.3", "2"),
        ("copy", {"sequence": [[0, 1, 0.5, 1, 0, 1, 0, 1]]}, "sequence.0.2", "0.5"),
        ("copy", {"sequence": [["0", 1, 0, 1, 0, 1, 0, 1]]}, "sequence.0.0", "'0'"),
        ("copy", {"sequence": [BIT_VECTOR[:7]]}, "sequence.0", "[0, 1, 0, 1, 0, 1, 0]"),
        ("copy", {"sequence": [[*BIT_VECTOR, 0]]}, "sequence.0", "[0, 1, 0, 1, 0, 1, 0, 1, 0]"),
        ("copy", {"sequence": []}, "sequence", "[]"),
        ("copy", {"sequence": [BIT_VECTOR] * 129}, "sequence", "..."),
        ("copy", {"sequence": 7}, "sequence", "7"),
        ("copy", {}, "sequence", "missing"),
        ("copy", {"sequence": [BIT_VECTOR], "speed": 1}, "speed", "1"),
        ("copy", [BIT_VECTOR], "body", "list"),
        ("repeat-copy", {"sequence": [BIT_VECTOR], "repeats": 0}, "repeats", "0"),
        ("repeat-copy", {"sequence": [BIT_VECTOR], "repeats": 33}, "repeats", "33"),
        ("repeat-copy", {"sequence": [BIT_VECTOR]}, "repeats", "missing"),
        ("associative-recall", {"items": [[[0] * 6] * 3] * 3, "query": 2}, "query", "2"),
        ("associative-recall", {"items": [[[0] * 6] * 3] * 3, "query": -1}, "query", "-1"),
        ("associative-recall", {"items": [[[0] * 6] * 3], "query": 0}, "items", "[0, 0, 0, 0, 0, 0]"),
        ("associative-recall", {"items": [[[0] * 6] * 2] * 3, "query": 0}, "items.0", "[0, 0, 0, 0, 0, 0]"),
        ("associative-recall", {"items": [[[0] * 5] * 3] * 3, "query": 0}, "items.0.0", "[0, 0, 0, 0, 0]"),
        ("dynamic-ngrams", {"bits": [0, 1, 0, 1, 0]}, "bits", "[0, 1, 0, 1, 0]"),
        ("dynamic-ngrams", {"bits": [0, 1] * 513}, "bits", "..."),
        ("dynamic-ngrams", {"bits": [0, 1, 0, 1, 0, 3]}, "bits.5", "3"),
        ("priority-sort", {"vectors": [BIT_VECTOR], "priorities": [1.5]}, "priorities.0", "1.5"),
        ("priority-sort", {"vectors": [BIT_VECTOR] * 2, "priorities": [0.5]}, "priorities", "1"),
        ("priority-sort", {"vectors": [BIT_VECTOR] * 33, "priorities": [0.5] * 33}, "vectors", "..."),
    ],
)
def test_episode_out_of_range_is_a_422_with_place_and_value(
    client: httpx.Client, problem: Problem, task: str, episode: object, parameter: str, value: str
) -> None:
    """A wrong value in a body is found by its path, counted from 0."""
    document = problem(client.post(f"/ntm/{task}", json=episode), 422, "invalid-parameter")

    assert document["parameter"] == parameter
    assert parameter in document["detail"]
    assert value in document["detail"]


@pytest.mark.parametrize("asked", ["abc", "0", "-5", "1.5", "1e3", "\u00b2"])
def test_timeout_that_is_no_positive_whole_number_is_a_422(client: httpx.Client, problem: Problem, asked: str) -> None:
    """The header is a parameter like any other."""
    response = client.get("/ntm/copy", headers={b"x-request-timeout-ms": asked.encode("latin-1")})

    assert problem(response, 422, "invalid-parameter")["parameter"] == "X-Request-Timeout-Ms"


def test_more_files_than_allowed_are_a_422(client: httpx.Client, problem: Problem, digit_png: bytes) -> None:
    """The limit on files is a setting, here 8; one more, or many more, names the field and the limit."""
    for count in (9, 20):
        files = [("image", (f"{index}.png", digit_png, "image/png")) for index in range(count)]
        document = problem(client.post("/stn/rectify", files=files), 422, "invalid-parameter")
        assert document["parameter"] == "image"
        assert "at most 8" in document["detail"]


@pytest.mark.parametrize("asked", ["png", "webp"])
def test_picture_asked_for_several_files_is_a_422(
    client: httpx.Client, problem: Problem, digit_png: bytes, asked: str
) -> None:
    """Several files have no single picture for an answer."""
    files = [("image", (name, digit_png, "image/png")) for name in ("a.png", "b.png")]

    document = problem(client.post(f"/stn/rectify?format={asked}", files=files), 422, "invalid-parameter")

    assert document["parameter"] == "format"
    assert "json or npz" in document["detail"]


def test_form_without_a_file_is_a_422(client: httpx.Client, problem: Problem, digit_png: bytes) -> None:
    """A well-formed form that lacks the field `image`, or has text in it, says what is missing."""
    for body in (
        form(FILE.replace(b"image", b"photo", 1) + digit_png),
        form(b'Content-Disposition: form-data; name="image"\r\n\r\nseven'),
    ):
        response = client.post("/stn/rectify", content=body, headers=FORM)
        assert problem(response, 422, "invalid-parameter")["parameter"] == "image"


def test_reconstruction_of_two_files_is_a_422(client: httpx.Client, problem: Problem, digit_png: bytes) -> None:
    """DRAW redraws one picture a request."""
    files = [("image", (name, digit_png, "image/png")) for name in ("a.png", "b.png")]

    assert problem(client.post("/draw/reconstruct", files=files), 422, "invalid-parameter")["parameter"] == "image"


# --- 429, 503 and 504: not now ---


def test_more_requests_than_a_process_takes_are_a_429(serve: Serve, problem: Problem) -> None:
    """What is over the limit is refused before anything is spent on it; whoever asks how it fares is answered."""

    async def crowd() -> tuple[list[httpx.Response], httpx.Response]:
        async with serve(limits={"concurrent_requests": 2}) as (_, client):
            asked = [client.get("/draw/generate", params={"steps": 64, "count": 64}) for _ in range(8)]
            *answers, ready = await asyncio.gather(*asked, client.get("/readyz"))
            return answers, ready

    answers, ready = asyncio.run(crowd())

    assert [answer.status_code for answer in answers].count(200) == 2
    for answer in answers:
        if answer.status_code != 200:
            assert problem(answer, 429, "overloaded")["detail"].startswith("2 requests are in hand")
            assert int(answer.headers["retry-after"]) >= 1
    assert ready.status_code == 200


def test_full_queue_is_a_429_with_retry_after(serve: Serve, problem: Problem) -> None:
    """The queue has room for 64 samples, and one is computed at a time: some of four requests for 64 are refused."""

    async def scenario() -> list[httpx.Response]:
        async with serve(draw=Batching(slots=1, queue_rows=64, longest_segment=1)) as (_, client):
            query = "/draw/generate?count=64&steps=16&format=npz"
            return list(await asyncio.gather(*(client.get(query) for _ in range(4))))

    responses = asyncio.run(scenario())

    refused = [response for response in responses if response.status_code != 200]
    assert 0 < len(refused) < 4
    for response in refused:
        problem(response, 429, "overloaded")
        assert int(response.headers["retry-after"]) >= 1


def test_nothing_is_prepared_that_is_refused(serve: Serve, problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise is drawn for those drawings alone that the queue has room for, however many ask meanwhile."""
    prepared: list[int] = []
    generation = draw.generation

    def noted(*args: Any, **kwargs: Any) -> Request:
        prepared.append(kwargs["count"])
        return generation(*args, **kwargs)

    monkeypatch.setattr(draw, "generation", noted)

    async def scenario() -> list[httpx.Response]:
        async with serve(draw=Batching(slots=1, queue_rows=64, longest_segment=1)) as (_, client):
            queries = [f"/draw/generate?count=64&steps=16&format={kind}" for kind in ("npz", "sse") * 4]
            return list(await asyncio.gather(*map(client.get, queries)))

    responses = asyncio.run(scenario())

    answered = [response for response in responses if response.status_code == 200]
    assert prepared == [64] * len(answered)
    assert 0 < len(answered) < 8
    for response in responses:
        if response.status_code != 200:
            problem(response, 429, "overloaded")


def test_full_queue_refuses_before_the_body_and_a_form_before_it_is_decoded(serve: Serve, problem: Problem) -> None:
    """Two files do not fit where one does."""

    async def scenario() -> list[httpx.Response]:
        async with serve(stn=Batching(queue_rows=64)) as (app, client):
            engine = app.catalogue.find("stn-affine", None, "stn").engine("rectify")
            form = [("image", (name, b"never decoded", "image/png")) for name in "ab"]
            with engine.reserve(63):
                one_left = await client.post("/stn/rectify", files=form)
                with engine.reserve(1):
                    none_left = await client.post("/stn/rectify", content=b"never decoded")
            return [one_left, none_left]

    one_left, none_left = asyncio.run(scenario())

    assert problem(one_left, 429, "overloaded")["detail"].startswith("63 rows are waiting and 2 more")
    assert problem(none_left, 429, "overloaded")["detail"].startswith("64 rows are waiting and 1 more")


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


# --- the table ---


def test_every_error_has_a_status_of_its_own_or_its_parents() -> None:
    """No error class of the tree is without a status, and none of the client's faults is a 500."""

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
    """It is not let in by a side door."""
    problem(client.request(method, path), 404, "not-found")

"""Bodies that cannot be decoded, are too large, of another kind, or empty forms: 400, 413, 415 and 422."""

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

from service.api.ntm import MAX_EPISODE_BYTES
from service.app import Glimpse

Problem = Callable[[httpx.Response, int, str], dict[str, Any]]
Serve = Callable[..., AbstractAsyncContextManager[tuple[Glimpse, httpx.AsyncClient]]]


PNG = {"content-type": "image/png"}


def form(*parts: bytes, boundary: bytes = b"frontier", end: bytes = b"--frontier--\r\n") -> bytes:
    return b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts) + end


FORM = {"content-type": "multipart/form-data; boundary=frontier"}
FILE = b'Content-Disposition: form-data; name="image"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'


PNG_CHUNK = bytes(4) + b"junk" + zlib.crc32(b"junk").to_bytes(4)
JPEG_SEGMENT = b"\xff\xfe\3\xea" + bytes(1000)
"""Useless segment that can be put into a file any number of times."""
SIZES = {"wide": (1000, 600), "high": (400, 1000), "dot": (1, 1)}


def blank(width: int, height: int) -> bytes:
    """Return a PNG of black pixels."""
    file = BytesIO()
    Image.new("L", (width, height)).save(file, "PNG")
    return file.getvalue()


def padded(data: bytes, begin: int, filling: bytes) -> bytes:
    """Return a file whose header is behind more bytes than are searched for it."""
    return data[:begin] + filling * (80_000 // len(filling)) + data[begin:]


def huge_png() -> bytes:
    """Return a PNG of a few bytes whose header claims 100 megapixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 10_000, 10_000, 8, 0, 0, 0, 0)
    rows = chunk(b"IDAT", zlib.compress(bytes(10_001)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + rows + chunk(b"IEND", b"")


@pytest.mark.parametrize("path", ["/stn/rectify", "/draw/reconstruct"])
@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "empty"),
        (b"seven, drawn in words", "not a supported picture"),
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
    """Half a file does not give half a picture."""
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
    """A file without its end is damaged, even if all or nearly all of its pixels are there."""
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
        (FORM, form(*[b'Content-Disposition: form-data; name="a"\r\n\r\n'] * 17)),
    ],
    ids=[
        "no boundary",
        "empty",
        "no form",
        "other boundary",
        "bad header",
        "no end",
        "half an end",
        "nameless part",
        "many fields",
    ],
)
def test_malformed_form_is_a_400(client: httpx.Client, problem: Problem, headers: dict[str, str], body: bytes) -> None:
    """A form that is malformed or cut off is undecodable as a whole."""
    problem(client.post("/stn/rectify", content=body, headers=headers), 400, "undecodable")


@pytest.mark.parametrize("charset", ["undefined", "punycode", "cp500", "no-such-charset"])
def test_charset_of_a_form_is_not_asked_for(client: httpx.Client, digit_png: bytes, charset: str) -> None:
    """Names are ASCII, text fields are not used, and some charsets take minutes to decode a megabyte."""
    named = FILE.replace(b"a.png", b"\xffa..b.png")

    response = client.post(
        "/stn/rectify",
        content=form(named + digit_png),
        headers={"content-type": f"multipart/form-data; boundary=frontier; charset={charset}"},
    )

    assert response.status_code == 200, response.text


def test_file_may_come_without_its_name(client: httpx.Client, problem: Problem, digit_png: bytes) -> None:
    """Its type tells it from a text field of the same name."""
    nameless = b'Content-Disposition: form-data; name="image"\r\nContent-Type: image/png\r\n\r\n'
    text = b'Content-Disposition: form-data; name="image"\r\n\r\n'

    assert client.post("/stn/rectify", content=form(nameless + digit_png), headers=FORM).status_code == 200
    answer = client.post("/stn/rectify", content=form(text + b"a seven"), headers=FORM)
    assert problem(answer, 422, "invalid-parameter")["parameter"] == "image"


def test_endless_content_type_of_a_form_is_a_400(client: httpx.Client, problem: Problem) -> None:
    """It is not parsed."""
    headers = {"content-type": "multipart/form-data; boundary=frontier; a=" + ";" * 60_000}

    assert (
        "1024"
        in problem(client.post("/stn/rectify", content=form(FILE), headers=headers), 400, "undecodable")["detail"]
    )


@pytest.mark.parametrize("boundary", ['"fron\\"tier"', "", "f" * 71, '"fron\ttier"'])
def test_strange_boundary_is_a_400(client: httpx.Client, problem: Problem, boundary: str) -> None:
    """The problem names it."""
    headers = {"content-type": f"multipart/form-data; boundary={boundary}"}

    assert (
        "boundary"
        in problem(client.post("/stn/rectify", content=form(FILE), headers=headers), 400, "undecodable")["detail"]
    )


def test_type_that_merely_begins_like_a_forms_is_a_415(client: httpx.Client, problem: Problem) -> None:
    """It is another type."""
    headers = {"content-type": "multipart/form-dataX; boundary=frontier"}

    problem(client.post("/stn/rectify", content=form(FILE), headers=headers), 415, "unsupported-type")


def test_large_form_does_not_stop_the_event_loop(serve: Serve) -> None:
    """A form that is full of near-boundaries takes long to parse."""
    content = form(FILE + b"\r\n--BX" * 200_000, boundary=b"B", end=b"--B--\r\n")
    headers = {"content-type": "multipart/form-data; boundary=B"}

    async def scenario() -> int:
        async with serve() as (_, client):
            turns = 0

            async def turn() -> None:
                nonlocal turns
                while True:
                    await asyncio.sleep(0)
                    turns += 1

            turning = asyncio.create_task(turn())
            await client.post("/stn/rectify", content=b"", headers={"content-type": "image/png"})
            usual, turns = turns, 0
            response = await client.post("/stn/rectify", content=content, headers=headers)
            turning.cancel()
            assert response.status_code == 400
            return turns - usual

    assert asyncio.run(scenario()) > 100


def test_error_says_which_of_several_files_it_is_about(
    client: httpx.Client, problem: Problem, digit_png: bytes
) -> None:
    """Files are counted from one, in the order of the form."""
    files = [("image", (name, data, "image/png")) for name, data in (("a", digit_png), ("b", b"no picture"))]

    document = problem(client.post("/stn/rectify", files=files), 400, "undecodable")

    assert document["detail"].startswith("file 2 of 2: the body is not a supported picture")


def test_form_that_is_cut_off_after_a_whole_file_is_a_400(
    client: httpx.Client, problem: Problem, digit_png: bytes
) -> None:
    """The first of two files is not served as if it were the only one."""
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


@pytest.mark.parametrize(
    ("path", "limit"), [("/stn/rectify", 2**20), ("/draw/reconstruct", 2**20), ("/ntm/copy", MAX_EPISODE_BYTES)]
)
@pytest.mark.parametrize("announced", [True, False])
def test_body_over_the_limit_is_a_413_announced_or_not(
    client: httpx.Client, problem: Problem, path: str, limit: int, *, announced: bool
) -> None:
    """A content length over the limit is refused at once, a body without a length when it reaches the limit."""
    size = 3 * limit
    body = bytes(size) if announced else (bytes(2**12) for _ in range(size >> 12))

    headers = {"content-type": "application/json"} if path.startswith("/ntm") else PNG

    document = problem(client.post(path, content=body, headers=headers), 413, "too-large")

    assert str(limit) in document["detail"]
    assert client.get("/livez").status_code == 200


def test_episode_is_held_to_the_limit_of_every_body_where_that_is_smaller(serve: Serve, problem: Problem) -> None:
    """A body of just that size is read."""

    async def scenario() -> list[httpx.Response]:
        async with serve(limits={"body_bytes": 1024}) as (_, client):
            episode = b'{"sequence": [[1, 0, 1, 1, 0, 0, 1, 0]]}'
            headers = {"content-type": "application/json"}
            return [
                await client.post("/ntm/copy", content=episode.ljust(size), headers=headers) for size in (1024, 1025)
            ]

    fits, over = asyncio.run(scenario())

    assert fits.status_code == 200
    assert "1024" in problem(over, 413, "too-large")["detail"]


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
    """The problem names the type, and those that are supported."""
    response = client.post(path, content=b"{}", headers={"content-type": content_type})

    assert content_type in problem(response, 415, "unsupported-type")["detail"]


def test_file_of_another_type_in_a_form_is_a_415(client: httpx.Client, problem: Problem) -> None:
    """The files of a form must have the same types."""
    response = client.post("/stn/rectify", files={"image": ("a.txt", b"seven", "text/plain")})

    problem(response, 415, "unsupported-type")


def test_form_without_a_file_is_a_422(client: httpx.Client, problem: Problem, digit_png: bytes) -> None:
    """A well-formed form that lacks the field `image`, or has text in it, says what is missing."""
    for body in (
        form(FILE.replace(b"image", b"photo", 1) + digit_png),
        form(b'Content-Disposition: form-data; name="image"\r\n\r\nseven'),
    ):
        response = client.post("/stn/rectify", content=body, headers=FORM)
        assert problem(response, 422, "invalid-parameter")["parameter"] == "image"


@pytest.mark.parametrize(("file_format", "begin", "filling"), [("png", 33, PNG_CHUNK), ("jpeg", 2, JPEG_SEGMENT)])
def test_header_behind_much_else_is_found_by_the_codecs(
    client: httpx.Client, digit: Image.Image, file_format: str, begin: int, filling: bytes
) -> None:
    """The beginning of the file does not tell its size, but it is decoded."""
    file = BytesIO()
    digit.save(file, file_format)
    data = file.getvalue()

    answers = [
        client.post("/stn/rectify?format=json", content=each, headers={"content-type": f"image/{file_format}"})
        for each in (data, padded(data, begin, filling))
    ]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json()["results"][0]["label"] == answers[1].json()["results"][0]["label"]


def test_pictures_whose_headers_are_behind_much_else_share_the_allowance_of_pixels(
    client: httpx.Client, problem: Problem
) -> None:
    """They are counted when they are decoded."""
    file = BytesIO()
    Image.new("L", SIZES["wide"]).save(file, "JPEG")
    files = [("image", (name, padded(file.getvalue(), 2, JPEG_SEGMENT), "image/jpeg")) for name in "ab"]

    document = problem(client.post("/stn/rectify", files=files), 413, "too-large")

    assert "600000 of the 1000000" in document["detail"]

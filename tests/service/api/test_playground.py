"""The playground: it is served completely, needs no other host, and its requests match the endpoints."""

import asyncio
import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from fnmatch import fnmatch
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest

from service.api.playground import FILES, FOLDER
from service.app import Glimpse

Problem = Callable[[httpx.Response, int, str], dict[str, Any]]
Serve = Callable[..., AbstractAsyncContextManager[tuple[Glimpse, httpx.AsyncClient]]]
Attributes = dict[str, str | None]

TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
MAX_BYTES = 25_000
TEXTS = {path: (FOLDER / name).read_text() for path, name in FILES.items()}
SCRIPTS = {path: text for path, text in TEXTS.items() if path.endswith(".js")}


class Page(HTMLParser):
    """The elements of the page: all of them, and the fields of each section's form."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, Attributes]] = []
        self.fields: dict[str | None, list[Attributes]] = {}
        self._section: str | None = None
        self.feed(TEXTS["/"])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        if tag == "section":
            self._section = attributes["id"]
        if tag in {"input", "select"} and "name" in attributes:
            self.fields.setdefault(self._section, []).append(attributes)


@pytest.fixture(scope="module")
def operations(client: httpx.Client) -> dict[str, dict[str, Any]]:
    """Return the operations of the service by path and method."""
    paths: dict[str, dict[str, Any]] = client.get("/openapi.json").json()["paths"]
    return paths


# --- how it is served ---


@pytest.mark.parametrize("path", FILES)
def test_file_is_served_as_it_is_with_its_type(client: httpx.Client, path: str) -> None:
    """The response names its media type, and forbids sniffing."""
    response = client.get(path)

    assert response.status_code == 200
    assert response.text == TEXTS[path]
    assert response.headers["content-type"] == f"{TYPES[FILES[path].rpartition('.')[2]]}; charset=utf-8"
    assert response.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", FILES)
def test_policy_allows_nothing_from_elsewhere_and_nothing_inline(client: httpx.Client, path: str) -> None:
    """Scripts and styles are our own files; pictures may also come from memory."""
    directives = client.get(path).headers["content-security-policy"].split("; ")
    policy = {name: sources for name, _, sources in (directive.partition(" ") for directive in directives)}

    assert policy == {
        "default-src": "'self'",
        "img-src": "'self' data: blob:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }


@pytest.mark.parametrize("path", FILES)
def test_head_answers_the_same_without_a_body(client: httpx.Client, path: str) -> None:
    """Length, type and entity tag are those of the file."""
    got, asked = client.get(path), client.head(path)

    assert asked.status_code == 200
    assert asked.content == b""
    for name in ("content-length", "content-type", "etag", "cache-control"):
        assert asked.headers[name] == got.headers[name]


def test_browser_that_has_the_latest_is_told_so(client: httpx.Client) -> None:
    """The browser revalidates every time, and gets a body only if the file has changed."""
    response = client.get("/")
    tag = response.headers["etag"]
    others = {client.get(path).headers["etag"] for path in FILES if path != "/"}

    assert response.headers["cache-control"] == "no-cache"
    assert len(others) == len(FILES) - 1
    for known in (tag, f"W/{tag}", f'"older", {tag}'):
        again = client.get("/", headers={"if-none-match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert client.get("/", headers={"if-none-match": ", ".join(others)}).status_code == 200


def test_visits_are_counted_by_file(client: httpx.Client) -> None:
    """The page has a route of its own in the metrics."""
    client.get("/")

    assert 'glimpse_requests_total{code="200",model="",route="/"}' in client.get("/metrics").text


def test_page_needs_no_key_and_what_it_asks_for_does(serve: Serve, problem: Problem) -> None:
    """A key can be entered on the page."""

    async def scenario() -> tuple[list[httpx.Response], httpx.Response]:
        async with serve(api_keys=("first",)) as (_, client):
            return [await client.get(path) for path in FILES], await client.get("/models")

    opened, closed = asyncio.run(scenario())

    assert [response.status_code for response in opened] == [200] * len(FILES)
    problem(closed, 401, "unauthorized")


# --- what it is made of ---


def test_all_of_the_folder_is_served_and_ships() -> None:
    """No file is missing from the routes or the package."""
    project = tomllib.loads((FOLDER.parent.parent / "pyproject.toml").read_text())
    shipped = project["tool"]["setuptools"]["package-data"]["service.playground"]
    files = {file.name for file in FOLDER.iterdir() if file.is_file() and file.suffix != ".py"}

    assert files == set(FILES.values())
    assert all(any(fnmatch(name, pattern) for pattern in shipped) for name in files)


def test_all_of_it_is_small() -> None:
    """It loads quickly, even over a slow connection."""
    assert sum(len(text.encode()) for text in TEXTS.values()) < MAX_BYTES


def test_every_reference_leads_somewhere(client: httpx.Client) -> None:
    """Links, styles, scripts and imports resolve relative to the file that they are in."""
    links = {
        str(value) for _, attributes in Page().elements for name, value in attributes.items() if name in {"href", "src"}
    }
    references = {urljoin("/", link) for link in links if not link.startswith("data:")}
    for path, text in SCRIPTS.items():
        references |= {urljoin(path, name) for name in re.findall(r'from "([^"]+)"', text)}

    assert references >= {"/docs", "/metrics", "/models", *FILES} - {"/"}
    for reference in references:
        assert client.get(reference).status_code == 200, reference


@pytest.mark.parametrize("path", FILES)
def test_no_other_host_is_named(path: str) -> None:
    """The only URL is the name of SVG's namespace, which browsers do not fetch."""
    text = TEXTS[path].replace("xmlns='http://www.w3.org/2000/svg'", "")

    assert not re.search(r"//\w|@import|url\(", text)


def test_nothing_is_inline_that_the_policy_would_refuse() -> None:
    """No scripts, styles or handlers within the page."""
    for tag, attributes in Page().elements:
        assert tag != "style"
        assert tag != "script" or "src" in attributes
        assert not [name for name in attributes if name == "style" or name.startswith("on")]


def test_every_field_is_labelled_or_hidden() -> None:
    """Screen readers can say what each field is for."""
    labelled = re.findall(r"<label[^>]*>\s*\w[^<]*<(input|select|meter)\b", TEXTS["/"])
    fields = [
        tag for tag, given in Page().elements if tag in {"input", "select", "meter"} and given.get("type") != "hidden"
    ]

    assert labelled == fields


# --- what it asks for ---


def asked() -> set[str]:
    """Return the paths that the scripts request, as they are written."""
    calls = [call for text in SCRIPTS.values() for call in re.findall(r"\bask\(\s*[\"`]([^\"`?]+)", text)]
    return {urljoin("/", call) for call in calls}


def sizes() -> dict[str, dict[str, list[int]]]:
    """Return the tasks that the page knows, with the sizes of an episode: smallest, usual, largest."""
    found = re.search(r"const SIZES = (\{.*?\n\});", SCRIPTS["/playground/ntm.js"], re.DOTALL)
    assert found is not None
    table: dict[str, dict[str, list[int]]] = json.loads(found[1])
    return table


def test_scripts_ask_for_what_there_is(operations: dict[str, dict[str, Any]]) -> None:
    """Every path is that of an endpoint, for every task."""
    episodes = {"/ntm/${task.value}", "/ntm/${answer.task}"}
    assert asked() == {"/readyz", "/models", "/stn/rectify", "/draw/generate", *episodes}
    for path in asked():
        for task in sizes():
            assert (f"/ntm/{task}" if path in episodes else path) in operations


@pytest.mark.parametrize(
    ("section", "path", "method"), [("stn", "/stn/rectify", "post"), ("draw", "/draw/generate", "get")]
)
def test_fields_are_parameters_with_their_ranges(
    operations: dict[str, dict[str, Any]], section: str, path: str, method: str
) -> None:
    """A form sends names that the endpoint knows, and offers the values that it takes."""
    schemas = {each["name"]: each["schema"] for each in operations[path][method]["parameters"]}
    fields = Page().fields[section]

    assert len(fields) >= 3
    for field in fields:
        schema = schemas[str(field["name"])]
        if field.get("type") == "number":
            number: dict[str, Any] = next(option for option in schema.get("anyOf", [schema]) if "maximum" in option)
            assert (field["min"], field["max"]) == (str(number["minimum"]), str(number["maximum"]))
            assert field.get("value") == (None if schema["default"] is None else f"{schema['default']:g}")


def test_episodes_are_as_large_as_their_tasks_allow(operations: dict[str, dict[str, Any]]) -> None:
    """The page has all tasks with the sizes that they allow: smallest, usual, largest."""
    tasks = {
        path.removeprefix("/ntm/"): methods["get"] for path, methods in operations.items() if path.startswith("/ntm/")
    }
    expected = {
        task: {
            each["name"]: [each["schema"][bound] for bound in ("minimum", "default", "maximum")]
            for each in operation["parameters"]
            if each["in"] == "query" and each["name"] not in {"version", "trace", "format", "seed"}
        }
        for task, operation in tasks.items()
    }

    assert sizes() == expected


# --- what its scripts do ---


def under_node(script: str, given: object) -> Any:
    """Run a script in Node with `given` and all of client.js, and return the JSON that it prints."""
    client = SCRIPTS["/playground/client.js"].replace("export ", "")
    source = f"const given = {json.dumps(given)};\n{client}\n{script}"
    run = subprocess.run(
        ["node", "--input-type=module"], input=source, capture_output=True, text=True, check=True, timeout=60
    )
    return json.loads(run.stdout)


needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")


@needs_node
def test_events_are_read_however_the_stream_is_cut(client: httpx.Client) -> None:
    """Every step and the end are read, whatever the sizes of the stream's pieces."""
    stream = client.get("/draw/generate?steps=3&seed=1&scale=1&format=sse").text
    expected = [
        {"name": name, "data": json.loads(data)} for name, data in re.findall(r"event: (\w+)\ndata: (.+)\n\n", stream)
    ]

    read = under_node(
        """
        const told = [];
        for (const size of [1, 2, 100, given.length]) {
          const { readable, writable } = new TransformStream();
          const writer = writable.getWriter();
          const bytes = new TextEncoder().encode(given);
          for (let cut = 0; cut < bytes.length; cut += size) writer.write(bytes.slice(cut, cut + size));
          writer.close();
          const found = [];
          for await (const event of events(new Response(readable))) found.push(event);
          told.push(found);
        }
        console.log(JSON.stringify(told));
        """,
        stream,
    )

    assert [event["name"] for event in expected] == ["step", "step", "step", "done"]
    assert read == [expected] * 4


@needs_node
def test_problem_in_a_stream_and_problem_as_an_answer_are_told_by_their_detail() -> None:
    """The page shows the detail of the problem document, or the status of a response that is not Glimpse's."""
    told = under_node(
        """
        const messages = [];
        const note = (error) => messages.push(error.message);
        const proxy = { status: 502, statusText: "Bad Gateway" };
        const answers = [
          async () => Response.json({ detail: "no such task" }, { status: 404 }),
          async () => new Response("<p>", proxy),
          async () => { throw new TypeError(); },
        ];
        for (globalThis.fetch of answers) await ask("anything").catch(note);
        await events(new Response('event: error\\ndata: {"detail": "too slow"}\\n\\n')).next().catch(note);
        const cut = events(new Response('event: step\\ndata: {}\\n\\n'));
        for (let turn = 0; turn < 2; turn++) await cut.next().catch(note);
        console.log(JSON.stringify(messages));
        """,
        None,
    )

    assert told == [
        "no such task",
        "the response is 502 Bad Gateway",
        "the service cannot be reached",
        "too slow",
        "the stream broke off",
    ]


@needs_node
def test_form_becomes_a_query_of_what_was_filled_in() -> None:
    """Empty and disabled fields are left out; an unchecked box is sent as false."""
    fields = [
        {"name": "steps", "type": "number", "value": "8"},
        {"name": "seed", "type": "number", "value": ""},
        {"name": "items", "type": "number", "value": "6", "disabled": True},
        {"name": "attention", "type": "checkbox", "value": "on", "checked": False},
        {"name": "", "type": "file", "value": "photo"},
    ]

    told = under_node("console.log(JSON.stringify(String(query({ elements: given }))));", fields)

    assert told == "steps=8&attention=false"

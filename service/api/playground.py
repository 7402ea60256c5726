"""`/`: the playground, a web page to try the models on. Its files are read once, when the service is composed."""

import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

FOLDER = Path(__file__).parent.parent / "playground"
SCRIPTS = ("page.js", "client.js", "activity.js", "sheet.js", "stn.js", "draw.js", "ntm.js")
FILES = {"/": "index.html", **{f"/playground/{name}": name for name in ("style.css", *SCRIPTS)}}
"""What is served, and the file that it is."""
MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
HEADERS = {
    # A browser asks every time whether it has the latest: the page and its scripts always belong together.
    "cache-control": "no-cache",
    # Nothing from elsewhere, nothing inline; pictures also from memory, which is where answers are.
    "content-security-policy": "default-src 'self'; img-src 'self' data: blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


def router() -> APIRouter:
    """A route a file."""
    routes = APIRouter(include_in_schema=False)
    for path, name in FILES.items():
        routes.add_api_route(path, _endpoint(FOLDER / name))
    return routes


def _endpoint(file: Path) -> Callable[[Request], Awaitable[Response]]:
    body = file.read_bytes()
    etag = f'"{hashlib.sha256(body).hexdigest()}"'
    headers = {**HEADERS, "etag": etag}

    async def serve(request: Request) -> Response:
        # The header is a list of tags, each perhaps marked as weak; ours is in quotes, and no part of another.
        if etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(body, media_type=MEDIA_TYPES[file.suffix], headers=headers)

    return serve

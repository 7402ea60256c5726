"""`/`: the playground, a web page to try the models. Its files are read once, when the application is created."""

import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

FOLDER = Path(__file__).parent.parent / "playground"
SCRIPTS = ("page.js", "client.js", "activity.js", "sheet.js", "stn.js", "draw.js", "ntm.js")
FILES = {"/": "index.html", **{f"/playground/{name}": name for name in ("style.css", *SCRIPTS)}}
"""Names of the served files by their paths."""
MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
HEADERS = {
    # Browsers revalidate every time, so that the page and its scripts are always of the same version.
    "cache-control": "no-cache",
    # Nothing from other hosts, nothing inline; images also from data and blob URLs, which hold the responses.
    "content-security-policy": "default-src 'self'; img-src 'self' data: blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


def router() -> APIRouter:
    """Return a router with one route per file."""
    routes = APIRouter(include_in_schema=False)
    for path, name in FILES.items():
        routes.add_api_route(path, _endpoint(FOLDER / name))
    return routes


def _endpoint(file: Path) -> Callable[[Request], Awaitable[Response]]:
    body = file.read_bytes()
    etag = f'"{hashlib.sha256(body).hexdigest()}"'
    headers = {**HEADERS, "etag": etag}

    async def serve(request: Request) -> Response:
        # The header is a list of tags, possibly weak ones; ours is quoted, and so cannot be a part of another.
        if etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(body, media_type=MEDIA_TYPES[file.suffix], headers=headers)

    return serve

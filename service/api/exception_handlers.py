"""Problem documents for errors in FastAPI's own routes, which the gateway does not see."""

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from service.api import problems
from service.api.answer import Answer
from service.errors import GlimpseError

CODES = {404: "not-found", 405: "method-not-allowed"}
"""Error codes of the requests that the framework itself refuses, by status."""


def install_problems(app: FastAPI) -> None:
    """Make an application respond to errors with problem documents."""

    async def refused(_: Request, error: HTTPException) -> Response:
        code = CODES.get(error.status_code, "http-error")
        headers = dict(error.headers or {})
        if "Allow" in headers:  # the gateway serves HEAD wherever there is a GET
            methods = set(headers["Allow"].split(", "))
            headers["Allow"] = ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))
        return _response(problems.answer(problems.document(error.status_code, code, error.detail), headers))

    async def domain_error(_: Request, error: GlimpseError) -> Response:
        return _response(problems.problem(error))

    async def bug(_: Request, __: Exception) -> Response:
        return _response(problems.BUG)

    app.add_exception_handler(HTTPException, refused)  # type: ignore[arg-type]
    app.add_exception_handler(GlimpseError, domain_error)  # type: ignore[arg-type]
    app.add_exception_handler(Exception, bug)


def _response(answer: Answer) -> Response:
    return Response(answer.body, answer.status, answer.headers, answer.media_type)

"""The service itself: liveness, readiness, served models and metrics."""

import asyncio
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from service.api.context import Context
from service.api.problems import RESPONSES
from service.errors import NotReady
from service.metrics import Metrics


def router(context: Context, metrics: Metrics) -> APIRouter:
    """Return a router with the routes of the service itself."""
    routes = APIRouter(tags=["system"])

    @routes.get("/livez", summary="Is the process alive?")
    async def livez() -> dict[str, str]:
        return {"status": "alive"}

    @routes.get(
        "/readyz",
        summary="Is every model loaded, on its device, warmed up and verified?",
        responses={503: {"description": "Not ready; `detail` says why", "content": RESPONSES}},
    )
    async def readyz() -> dict[str, str]:
        if (reason := not_ready_because(context)) is not None:
            raise NotReady(reason)
        return {"status": "ready"}

    @routes.get(
        "/models", summary="Served models", responses={401: {"description": "No API key", "content": RESPONSES}}
    )
    async def models() -> dict[str, Any]:
        return {
            "models": [
                {
                    **model.manifest.model_dump(),
                    "providers": {name: engine.runtime.provider for name, engine in model.engines.items()},
                }
                for model in context.catalogue
            ]
        }

    @routes.get(
        "/metrics",
        summary="Metrics for Prometheus",
        response_class=Response,
        responses={200: {"description": "Prometheus' text format", "content": {"text/plain": {}}}},
    )
    async def exposition() -> Response:
        # Not on a codec thread: metrics must be available while the codecs are busy.
        text = await asyncio.to_thread(metrics.exposition)
        return Response(text, headers={"content-type": metrics.content_type})

    return routes


def not_ready_because(context: Context) -> str | None:
    """Return why the service is not ready, or None if it is."""
    if context.admission.is_draining:
        return "the service is shutting down"
    if context.catalogue.not_ready_because is not None:
        return context.catalogue.not_ready_because
    reasons = [reason for engine in context.catalogue.engines() if (reason := engine.unhealthy_because())]
    return "; ".join(reasons) or None

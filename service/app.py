"""The composition root: creates the application from its settings, and runs its startup and shutdown."""

import asyncio
import gc
import logging
import os
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import cv2
from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from service import exit_codes
from service.api import draw, ntm, openapi, playground, stn, system
from service.api.admission import Admission
from service.api.budget import MemoryBudget
from service.api.catalogue import Catalogue, ServedModel
from service.api.context import Context
from service.api.endpoint import Endpoint
from service.api.exception_handlers import install_problems
from service.api.gateway import DOCUMENTATION_FILES, OPEN_PATHS, Gateway
from service.api.threads import ThreadPool
from service.engine.engine import Engine
from service.errors import ArtifactRejected, GlimpseError, InferenceFailed, UnknownTask
from service.metrics import Metrics
from service.runtime.base import RuntimeOptions
from service.runtime.repository import LoadedModel, artifacts, device_of, load
from service.schemas.ntm import TASKS
from service.settings import Batching, Settings, granted_cpus, unknown_variables
from service.termination import Termination, force_exit_soon

logger = logging.getLogger("glimpse")

SUPERVISION_SECONDS = 0.5
GC_THRESHOLD = 10_000
"""Allocations that trigger a collection of the youngest generation: as many as a few hundred requests make."""


class Glimpse:
    """The application: an ASGI callable, with its startup and shutdown."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.catalogue = Catalogue()
        self._admission = Admission(settings.limits.concurrent_requests)
        self._termination = Termination(self.drain, settings.drain_notice_seconds)
        self._context = Context(
            settings,
            self.catalogue,
            self._admission,
            codecs=ThreadPool(max(2, granted_cpus()), "glimpse-codec"),
            header_reader=ThreadPool(1, "glimpse-header-reader"),
        )
        endpoints = [
            *stn.endpoints(self._context),
            *draw.endpoints(self._context),
            *ntm.endpoints(self._context),
        ]
        self._gateway = Gateway(
            self._fastapi(endpoints),
            {(endpoint.method, endpoint.path): endpoint for endpoint in endpoints},
            self.metrics,
            admission=self._admission,
            memory=MemoryBudget(settings.limits.memory_bytes),
            longest_seconds=settings.limits.timeout_seconds,
            api_keys=[key.get_secret_value() for key in settings.api_keys],
        )

    def _fastapi(self, endpoints: list[Endpoint[Any]]) -> FastAPI:
        app = FastAPIOffline(
            title="Glimpse",
            summary="STN, DRAW and the neural Turing machine, with step-level batching",
            redoc_url=None,
            static_url=DOCUMENTATION_FILES,
            redirect_slashes=False,
        )
        app.include_router(system.router(self._context, self.metrics))
        app.include_router(playground.router())
        # The gateway serves the endpoints itself. Their routes here are for the 405 of another method, and for the 404
        # of a path with a newline at its end, which Starlette's patterns match.
        for path in dict.fromkeys(endpoint.path for endpoint in endpoints):
            methods = [endpoint.method for endpoint in endpoints if endpoint.path == path]
            app.router.routes.append(Route(path, _not_found, methods=methods))
        app.router.routes.append(Route("/ntm/{task}", _unknown_task, methods=["GET", "POST"]))
        generated = app.openapi

        @cache
        def document() -> dict[str, Any]:
            needs_key = bool(self.settings.api_keys)
            return openapi.complete(generated(), endpoints, open_paths=OPEN_PATHS, needs_key=needs_key)

        app.openapi = document  # type: ignore[method-assign]
        install_problems(app)
        return app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle the lifespan, or one request."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await self._gateway(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        """Follow the server's lifespan events, from start to shutdown."""
        await receive()
        self._termination.take_over()
        async with self.running() as loading:
            if self.settings.workers > 1:  # a worker must not receive connections before it is ready
                await loading
            await send({"type": "lifespan.startup.complete"})  # the port opens now; `/readyz` reports readiness
            await receive()
        if self._termination.is_asked_for:  # a failed start has an exit code of its own
            force_exit_soon()
        await send({"type": "lifespan.shutdown.complete"})

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        """Run the application, and yield a task that is done once the models are loaded. On exit, drain and stop."""
        cv2.setNumThreads(1)
        loading = asyncio.create_task(_exit_on_failure(self._load(), "cannot start", exit_codes.START_FAILURE))
        supervising = asyncio.create_task(
            _exit_on_failure(self._supervise(), "supervision failed", exit_codes.BEYOND_REPAIR)
        )
        keeping_figures = asyncio.create_task(self._keep_figures())
        try:
            yield loading
        finally:
            for task in (loading, supervising, keeping_figures):
                task.cancel()
            await self.drain()
            for engine in self.catalogue.engines():
                await engine.stop()
            for threads in (self._context.codecs, self._context.header_reader):
                threads.close()

    async def _load(self) -> None:
        settings = self.settings
        options = RuntimeOptions(device_of(settings.runtime, settings.device), settings.graph_threads)
        rejected: dict[str, str] = {}
        for folder in artifacts(settings.models):
            try:
                self._serve(await asyncio.to_thread(_load_and_verify, folder, settings.runtime, options))
            except ArtifactRejected as error:
                # Not the error itself: its traceback would keep the loaded model in memory.
                rejected[folder.parent.name] = str(error)
                logger.error("artifact rejected: %s", error)  # noqa: TRY400 - the message is enough
        for name, why in rejected.items():
            if name not in self.catalogue.models:  # no other version of it can be served instead
                raise ArtifactRejected(why)
        for engine in self.catalogue.engines():
            engine.start()
        # The models stay loaded, so the garbage collector need not traverse them every few hundred requests.
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD)
        self.catalogue.not_ready_because = None
        self._tell_readiness()
        names = ", ".join(f"{m.manifest.name}/{m.manifest.version}" for m in self.catalogue)
        logger.info("ready: %s on %s (%s)", names, options.device, settings.runtime)

    def _serve(self, loaded: LoadedModel) -> None:
        manifest = loaded.manifest
        batching: Batching = getattr(self.settings, manifest.family)
        engines = {}
        for graph, part in loaded.graphs.items():
            engines[graph] = Engine(
                f"{manifest.name}/{manifest.version}/{graph}",
                part.runtime,
                part.initial,
                batching.policy(),
                self.metrics.listener(manifest.name, manifest.version, graph, part.runtime.provider),
                verify=part.verify,
                stall_seconds=self.settings.stall_seconds,
            )
        self.metrics.observe_model(manifest.name, manifest.version, manifest.family)
        self.catalogue.add(ServedModel(manifest, engines))

    async def _supervise(self) -> None:
        """Replace dead workers; exit if a runtime hangs, so that another process can take over.

        Two checks in a row must find that it hangs: one alone would take a suspended process for a hanging one.
        """
        suspects: set[Engine] = set()
        while True:
            await asyncio.sleep(SUPERVISION_SECONDS)
            self._tell_readiness()
            for engine in self.catalogue.engines():
                engine.recover()
            beyond_repair = {engine for engine in self.catalogue.engines() if engine.is_beyond_repair()}
            for engine in beyond_repair & suspects:
                logger.critical("%s; ending the process", engine.unhealthy_because())
                os._exit(exit_codes.BEYOND_REPAIR)
            suspects = beyond_repair

    async def _keep_figures(self) -> None:
        """Update the metrics of the process, off the event loop: reading those of a broken GPU may block."""
        has_failed = False
        while True:
            try:
                await asyncio.to_thread(self.metrics.observe_process)
                has_failed = False
            except Exception:
                if not has_failed:  # log only the first of several failures in a row
                    logger.exception("cannot read the metrics of the process")
                has_failed = True
            await asyncio.sleep(SUPERVISION_SECONDS)

    def _tell_readiness(self) -> None:
        self.metrics.observe_readiness(is_ready=system.not_ready_because(self._context) is None)

    async def drain(self) -> None:
        """Refuse new requests, and wait for the admitted ones, up to the limit in the settings."""
        self.metrics.observe_readiness(is_ready=False)
        if not await self._admission.drain(self.settings.drain_seconds):
            logger.warning("requests are still in progress after draining for %g s", self.settings.drain_seconds)


def create() -> Glimpse:
    """Create the application with the settings from the environment; uvicorn calls this."""
    settings = Settings()
    for name in unknown_variables(os.environ):
        logger.warning("ignoring %s: there is no such setting", name)
    return Glimpse(settings)


async def _exit_on_failure(work: Coroutine[Any, Any, None], failure: str, exit_code: int) -> None:
    """Await essential work; if it fails, log why and exit."""
    try:
        await work
    except GlimpseError as error:
        logger.critical("%s: %s", failure, error)
        os._exit(exit_code)
    except Exception:
        logger.critical(failure, exc_info=True)
        os._exit(exit_code)


def _load_and_verify(folder: Path, runtime: str, options: RuntimeOptions) -> LoadedModel:
    loaded = load(folder, runtime, options)
    for name, graph in loaded.graphs.items():
        try:
            graph.verify()
        except InferenceFailed as error:
            raise ArtifactRejected(f"{folder}, graph {name}: {error}") from error
    return loaded


async def _not_found(_: Request) -> Response:
    raise HTTPException(404)


async def _unknown_task(request: Request) -> Response:
    raise UnknownTask(f"there is no task {request.path_params['task']!r}; tasks: {', '.join(TASKS)}")

"""`/ntm/{task}`: memory tasks, with episodes of the client's or random ones."""

from functools import partial
from typing import Any

import numpy as np
import orjson
from pydantic import ValidationError
from starlette.types import Send

from service.api.answer import Answer
from service.api.catalogue import ServedModel
from service.api.context import Context, json_answer
from service.api.endpoint import Documentation, Endpoint, invalid
from service.api.events import MEDIA_TYPE as EVENTS
from service.api.events import Event, stream
from service.api.exchange import Exchange
from service.api.negotiation import chosen
from service.engine.engine import Progress
from service.engine.request import Request
from service.errors import InvalidParameter, UndecodableInput, UnsupportedType
from service.media.encoding import PictureFormat, encode
from service.media.figures import memory_figure
from service.schemas.ntm import TASKS, EpisodeBody, NtmQuery, RandomQuery
from service.tasks import ntm
from service.tasks.seed import seed_or_random

GRAPH = "step"
JSON = "application/json"
FORMATS = {JSON: "json", "image/png": "png", EVENTS: "sse"}
QUICK_STEPS = 64
"""An answer of so few steps is encoded within about 100 microseconds."""


def endpoints(context: Context) -> list[Endpoint[Any]]:
    """Two endpoints a task."""
    found: list[Endpoint[Any]] = []
    for task, (body_model, random_query) in TASKS.items():
        found += [_given(context, task, body_model), _random(context, task, random_query)]
    return found


def _given(context: Context, task: str, body_model: type[EpisodeBody]) -> Endpoint[NtmQuery]:
    async def run(exchange: Exchange, query: NtmQuery, send: Send) -> Answer | None:
        model = _model(context, exchange, task, query)
        data = await exchange.body(context.settings.limits.body_bytes)
        with exchange.timed("decode"):
            content_type = exchange.header(b"content-type").partition(";")[0].strip().lower()
            if content_type not in {JSON, ""}:
                raise UnsupportedType(f"the body must be {JSON}, not {content_type}")
            episode = parsed(body_model, data).episode()
        return await _answer(context, exchange, query, send, model, episode, {})

    return Endpoint(
        "POST",
        f"/ntm/{task}",
        NtmQuery,
        run,
        Documentation(
            summary=f"Run {task} on an episode",
            description=body_model.__doc__ or "",
            tag="ntm",
            media_types=tuple(FORMATS),
            request_body={JSON: {"schema": body_model.model_json_schema()}},
            errors=(400, 404, 413, 415, 422, 429, 503, 504),
        ),
    )


def _random(context: Context, task: str, random_query: type[RandomQuery]) -> Endpoint[RandomQuery]:
    async def run(exchange: Exchange, query: RandomQuery, send: Send) -> Answer | None:
        model = _model(context, exchange, task, query)
        seed = seed_or_random(query.seed)
        with exchange.timed("decode"):
            episode = query.body(np.random.Generator(np.random.Philox(key=seed))).episode()
        extra = {"seed": seed, "episode": episode.given}
        return await _answer(context, exchange, query, send, model, episode, extra)

    return Endpoint(
        "GET",
        f"/ntm/{task}",
        random_query,
        run,
        Documentation(
            summary=f"Run {task} on a random episode",
            description="The same seed gives the same episode.",
            tag="ntm",
            media_types=tuple(FORMATS),
            errors=(404, 422, 429, 503, 504),
        ),
    )


def parsed(model: type[EpisodeBody], data: bytes) -> EpisodeBody:
    """A body as an episode.

    Raises:
        UndecodableInput: the body is no JSON.
        InvalidParameter: a value in it is wrong.
    """
    try:
        values = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise UndecodableInput(f"the body is not JSON: {error}" if data else "the body is empty") from error
    if not isinstance(values, dict):
        raise InvalidParameter("body", f"must be a JSON object, not {type(values).__name__}")
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise invalid(model, error) from error


def _model(context: Context, exchange: Exchange, task: str, query: NtmQuery) -> ServedModel:
    model = context.catalogue.find(f"ntm-{task}", query.version, "ntm")
    exchange.model = model.manifest.name
    model.engine(GRAPH).check_room(1)
    return model


async def _answer(
    context: Context,
    exchange: Exchange,
    query: NtmQuery,
    send: Send,
    model: ServedModel,
    episode: ntm.Episode,
    extra: dict[str, Any],
) -> Answer | None:
    answer_format = chosen(query.format, exchange.header(b"accept"), FORMATS, "json")
    request = episode.request(exchange.deadline, with_trace=query.trace or answer_format == "png")
    headers = {"x-seed": str(extra["seed"])} if "seed" in extra else {}
    if answer_format == "sse":
        await stream(
            context,
            exchange,
            send,
            model.engine(GRAPH),
            request,
            told=partial(_step_events, query, episode, request),
            done=partial(_document, query, model, episode, request, extra),
            headers=headers,
        )
        return None
    await exchange.compute(model.engine(GRAPH), request)
    with exchange.timed("encode"):
        if answer_format == "png":
            return await context.off_loop(_figure, episode, request, headers)
        if episode.steps <= QUICK_STEPS and not query.trace:
            return json_answer(_document(query, model, episode, request, extra), headers)
        return await context.off_loop(lambda: json_answer(_document(query, model, episode, request, extra), headers))


def _step_events(query: NtmQuery, episode: ntm.Episode, request: Request, news: list[Progress]) -> list[Event]:
    return [
        ("step", _step(episode, request, step, with_trace=query.trace))
        for progress in news
        for step in range(progress.begin, progress.end)
    ]


def _step(episode: ntm.Episode, request: Request, step: int, *, with_trace: bool) -> dict[str, Any]:
    data = {
        "step": step,
        "input": episode.inputs[step],
        "probabilities": request.outputs["probabilities"][step, 0],
    }
    if with_trace:
        data["trace"] = {
            name: request.outputs[name][step, 0].ravel() for name in ("read_weights", "write_weights", "reads", "adds")
        }
    return data


def _document(
    query: NtmQuery, model: ServedModel, episode: ntm.Episode, request: Request, extra: dict[str, Any]
) -> dict[str, Any]:
    document = {
        "task": episode.task,
        "model": model.manifest.name,
        "version": model.manifest.version,
        **ntm.report(episode, request),
        **extra,
    }
    if query.trace:
        trace = ntm.trace(request)
        document["trace"] = {name: np.ascontiguousarray(getattr(trace, name)) for name in trace.__dataclass_fields__}
    return document


def _figure(episode: ntm.Episode, request: Request, headers: dict[str, str]) -> Answer:
    trace = ntm.trace(request)
    figure = memory_figure(
        inputs=episode.inputs,
        outputs=request.outputs["probabilities"][:, 0],
        adds=trace.adds,
        reads=trace.reads,
        write_weights=trace.write_weights,
        read_weights=trace.read_weights,
    )
    return Answer(encode(figure), PictureFormat.PNG.content_type, headers=headers)

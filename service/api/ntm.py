"""`/ntm/{task}`: memory tasks, with episodes of the client's or random ones."""

from dataclasses import dataclass
from typing import Any

import orjson
from pydantic import ValidationError
from starlette.types import Send

from service.api.answer import Answer, json_answer, picture_answer
from service.api.catalogue import ServedModel
from service.api.context import Context
from service.api.endpoint import Documentation, Endpoint
from service.api.events import MEDIA_TYPE as EVENTS
from service.api.exchange import Exchange
from service.api.negotiation import chosen
from service.api.recurrent import respond
from service.api.validation import invalid
from service.engine.request import Request
from service.errors import InvalidParameter, UndecodableInput, UnsupportedType
from service.media.figures import memory_figure
from service.media.picture import Pixels
from service.schemas.answers import OUTCOMES
from service.schemas.ntm import TASKS, EpisodeBody, NtmQuery, RandomQuery
from service.tasks import ntm
from service.tasks.seed import seed_or_random

GRAPH = "step"
JSON = "application/json"
FORMATS = {JSON: "json", "image/png": "png", EVENTS: "sse"}
MAX_EPISODE_BYTES = 2**16
"""Twice the largest episode of any task when it is printed a bit a line and indented by 8, 20 times the same when it is
not. A larger one is a mistake, and need not be read to its end."""
QUICK_BYTES = 4096
"""A body of this size is an episode within about 100 microseconds, nearly always."""
JSON_TYPES = {
    list: "an array",
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "a truth value",
    type(None): "null",
}
STREAM = (
    "`format=sse` sends an event `step` for each step once it is computed, `{step, input, probabilities}` and its row "
    "of the trace if that is asked for, and then `done`, the document; or `error`, a problem document."
)
MAX_LIST_DEPTH = 3
"""Levels of lists in an episode: items of vectors of bits."""
BYTES_PER_STEP, BYTES_PER_TRACED_STEP = 2**10, 2**13
"""Most memory that a step takes in a response, without and with what the machine did: its numbers as text."""
QUICK_STEPS = 64
"""So few steps are encoded within about 100 microseconds."""


def endpoints(context: Context) -> list[Endpoint[Any]]:
    """Two endpoints a task."""
    found: list[Endpoint[Any]] = []
    for task, (body_model, random_query) in TASKS.items():
        found += [_given(context, task, body_model), _random(context, task, random_query)]
    return found


def _given(context: Context, task: str, body_model: type[EpisodeBody]) -> Endpoint[NtmQuery]:
    async def run(exchange: Exchange, query: NtmQuery, send: Send) -> Answer | None:
        model = _model(context, exchange, task, query)
        engine = model.engine(GRAPH)
        engine.check_room(1)
        content_type = exchange.header(b"content-type").partition(";")[0].strip().lower()
        if content_type not in {JSON, ""}:
            raise UnsupportedType(f"the body must be {JSON}, not {content_type}")
        with context.admission.receiving_body():
            data = await exchange.body(min(MAX_EPISODE_BYTES, context.settings.limits.body_bytes))
        with engine.reserve(1, exchange.deadline) as room:
            with exchange.timed("decode"):
                is_quick = len(data) <= QUICK_BYTES
                episode = parsed(body_model, data) if is_quick else await context.codecs.run(parsed, body_model, data)
            return await respond(context, exchange, send, room, EpisodeWork.of(exchange, query, model, episode))

    return Endpoint(
        "POST",
        f"/ntm/{task}",
        NtmQuery,
        run,
        Documentation(
            summary=f"Run {task} on an episode",
            description=f"{body_model.__doc__} {STREAM}",
            tag="ntm",
            media_types=tuple(FORMATS),
            answer=OUTCOMES[task],
            request_body={JSON: {"schema": body_model.model_json_schema()}},
        ),
    )


def _random(context: Context, task: str, random_query: type[RandomQuery]) -> Endpoint[RandomQuery]:
    async def run(exchange: Exchange, query: RandomQuery, send: Send) -> Answer | None:
        model = _model(context, exchange, task, query)
        seed = seed_or_random(query.seed)
        with model.engine(GRAPH).reserve(1, exchange.deadline) as room:
            with exchange.timed("decode"):
                episode = query.episode(seed) if query.is_quick else await context.codecs.run(query.episode, seed)
            return await respond(context, exchange, send, room, EpisodeWork.of(exchange, query, model, episode, seed))

    return Endpoint(
        "GET",
        f"/ntm/{task}",
        random_query,
        run,
        Documentation(
            summary=f"Run {task} on a random episode",
            description=f"The same seed gives the same episode. {STREAM}",
            tag="ntm",
            media_types=tuple(FORMATS),
            answer=OUTCOMES[task],
            headers={"X-Seed": "Asked for again, it gives the same episode"},
        ),
    )


def parsed(model: type[EpisodeBody], data: bytes) -> ntm.Episode:
    """The episode that a body describes.

    Raises:
        UndecodableInput: the body is no JSON.
        InvalidParameter: a value in it is wrong.
    """
    try:
        values = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise UndecodableInput(f"the body is not JSON: {error}" if data else "the body is empty") from error
    if not isinstance(values, dict):
        raise InvalidParameter("body", f"must be a JSON object, not {JSON_TYPES[type(values)]}")
    try:
        if b"." in data:
            values = {name: _whole(value) for name, value in values.items()}
        return model.model_validate(values).episode()
    except ValidationError as error:
        raise invalid(model, error) from error


def _whole(value: Any, depth: int = MAX_LIST_DEPTH) -> Any:
    """Return a value whose whole numbers are integers: to JSON 1.0 is one, and NumPy writes a float's bits so."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return [_whole(item, depth - 1) for item in value] if isinstance(value, list) and depth else value


def _model(context: Context, exchange: Exchange, task: str, query: NtmQuery) -> ServedModel:
    model = context.catalogue.find(f"ntm-{task}", query.version, "ntm")
    exchange.model = model.manifest.name
    return model


@dataclass(frozen=True, slots=True)
class EpisodeWork:
    """An episode on its way through a machine, and what is answered of it."""

    query: NtmQuery
    model: ServedModel
    episode: ntm.Episode
    seed: int | None
    """Seed of a random episode; None for a client's."""
    answer_format: str
    request: Request

    @classmethod
    def of(
        cls, exchange: Exchange, query: NtmQuery, model: ServedModel, episode: ntm.Episode, seed: int | None = None
    ) -> "EpisodeWork":
        """An episode, to be answered by its exchange's deadline in the format that its client prefers."""
        answer_format = chosen(query.format, exchange.header(b"accept"), FORMATS, "json")
        request = episode.request(exchange.deadline, with_trace=query.trace or answer_format == "png")
        return cls(query, model, episode, seed, answer_format, request)

    @property
    def headers(self) -> dict[str, str]:
        """Of every answer."""
        return {} if self.seed is None else {"x-seed": str(self.seed)}

    @property
    def answer_bytes(self) -> int:
        """Most memory that the whole response takes while it is made."""
        is_traced = self.query.trace or self.answer_format == "png"
        return self.episode.steps * (BYTES_PER_TRACED_STEP if is_traced else BYTES_PER_STEP)

    @property
    def is_quick(self) -> bool:
        """Whether the answer is made within about 100 microseconds."""
        return self.answer_format == "json" and self.episode.steps <= QUICK_STEPS and not self.query.trace

    def step(self, step: int, row: int) -> dict[str, Any]:
        """What the machine saw and answered in a step, and what it did."""
        outputs = self.request.outputs
        data = {
            "step": step,
            "input": self.episode.inputs[step],
            "probabilities": outputs["probabilities"][step, row],
        }
        if self.query.trace:
            data["trace"] = {name: outputs[name][step, row].ravel() for name in ntm.TRACED}
        return data

    def summary(self) -> dict[str, Any]:
        """What the machine answered, and how right it was."""
        document = {
            "task": self.episode.task,
            "model": self.model.manifest.name,
            "version": self.model.manifest.version,
            **ntm.report(self.episode, self.request),
        }
        if self.seed is not None:
            document |= {"seed": self.seed, "episode": self.episode.given}
        if self.query.trace:
            document["trace"] = ntm.trace(self.request)
        return document

    def answer(self) -> Answer:
        """The whole answer, once every step is there."""
        if self.answer_format == "png":
            return picture_answer(self._figure(), headers=self.headers)
        return json_answer(self.summary(), self.headers)

    def _figure(self) -> Pixels:
        probabilities = self.request.outputs["probabilities"][:, 0]
        return memory_figure(inputs=self.episode.inputs, outputs=probabilities, **ntm.trace(self.request))

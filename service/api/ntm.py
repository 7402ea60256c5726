"""`/ntm/{task}`: memory tasks, with the client's episodes or random ones."""

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
"""Maximum size of a body: twice the largest episode of any task with one bit per line, indented by 8 spaces, and 20
times the same without whitespace. A larger body is a mistake, and is not read to its end."""
QUICK_BYTES = 4096
"""Largest body that is parsed on the event loop: it nearly always takes less than about 100 microseconds."""
JSON_TYPES = {
    list: "an array",
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "a boolean",
    type(None): "null",
}
STREAM = (
    "`format=sse` sends an event `step` for each step as soon as it is computed, `{step, input, probabilities}` and "
    "its row of the trace if that was requested, and finally `done`, the document, or `error`, a problem document."
)
MAX_LIST_DEPTH = 3
"""Maximum nesting of lists in an episode: items of vectors of bits."""
BYTES_PER_STEP, BYTES_PER_TRACED_STEP = 2**10, 2**13
"""Maximum memory that a step needs in a response, without and with its trace: the numbers as text."""
QUICK_STEPS = 64
"""Maximum number of steps that are encoded on the event loop: it takes less than about 100 microseconds."""


def endpoints(context: Context) -> list[Endpoint[Any]]:
    """Return two endpoints per task: for the client's episodes, and for random ones."""
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
            headers={"X-Seed": "The seed; the same one gives the same episode"},
        ),
    )


def parsed(model: type[EpisodeBody], data: bytes) -> ntm.Episode:
    """Return the episode that a body describes.

    Raises:
        UndecodableInput: the body is not JSON.
        InvalidParameter: a value in it is invalid.
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
    """Return a value with whole floats as integers: to JSON, 1.0 is an integer, and NumPy writes float arrays so."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return [_whole(item, depth - 1) for item in value] if isinstance(value, list) and depth else value


def _model(context: Context, exchange: Exchange, task: str, query: NtmQuery) -> ServedModel:
    model = context.catalogue.find(f"ntm-{task}", query.version, "ntm")
    exchange.model = model.manifest.name
    return model


@dataclass(frozen=True, slots=True)
class EpisodeWork:
    """An episode for a machine to run, and how its response is made."""

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
        """Return the work for an episode, with its exchange's deadline, and the format that the client prefers."""
        answer_format = chosen(query.format, exchange.header(b"accept"), FORMATS, "json")
        request = episode.request(exchange.deadline, with_trace=query.trace or answer_format == "png")
        return cls(query, model, episode, seed, answer_format, request)

    @property
    def headers(self) -> dict[str, str]:
        """Headers that the response carries in every format."""
        return {} if self.seed is None else {"x-seed": str(self.seed)}

    @property
    def answer_bytes(self) -> int:
        """Maximum memory that the complete response needs while it is encoded."""
        is_traced = self.query.trace or self.answer_format == "png"
        return self.episode.steps * (BYTES_PER_TRACED_STEP if is_traced else BYTES_PER_STEP)

    @property
    def is_quick(self) -> bool:
        """Whether encoding the response takes less than about 100 microseconds."""
        return self.answer_format == "json" and self.episode.steps <= QUICK_STEPS and not self.query.trace

    def step(self, step: int, row: int) -> dict[str, Any]:
        """Return the machine's input and output at a step, and its trace if that was requested."""
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
        """Return the machine's outputs, and their errors."""
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
        """Return the complete response, once all steps are computed."""
        if self.answer_format == "png":
            return picture_answer(self._figure(), headers=self.headers)
        return json_answer(self.summary(), self.headers)

    def _figure(self) -> Pixels:
        probabilities = self.request.outputs["probabilities"][:, 0]
        return memory_figure(inputs=self.episode.inputs, outputs=probabilities, **ntm.trace(self.request))

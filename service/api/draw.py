"""`/draw`: drawings of digits, generated or reconstructed step by step."""

import math
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
from starlette.types import Send

from export.manifest import Array
from service.api.answer import Answer, base64_png, json_answer, npz_answer, picture_answer
from service.api.catalogue import ServedModel
from service.api.context import Context
from service.api.endpoint import Documentation, Endpoint
from service.api.events import MEDIA_TYPE as EVENTS
from service.api.exchange import Exchange
from service.api.negotiation import NPZ, chosen
from service.api.rectification import rectify_all
from service.api.recurrent import respond
from service.api.threads import raise_if_abandoned
from service.api.uploads import REQUEST_BODY, read_uploads
from service.engine.request import Request
from service.errors import InvalidParameter
from service.media.animation import AnimationFormat, animate
from service.media.montage import grid, sheet
from service.media.picture import Pixels
from service.schemas.answers import Generated, Reconstructed
from service.schemas.draw import DrawingQuery, GenerateQuery, ReconstructQuery
from service.tasks import draw
from service.tasks.seed import seed_or_random

MODEL = "draw"
RECTIFIER = "stn-affine"
SIDE = 28
"""Side of the canvas, in pixels."""
FORMATS = {"image/gif": "gif", "application/json": "json", NPZ: "npz", EVENTS: "sse"}
MEDIA_TYPES = ("image/gif", "image/apng", "image/webp", "image/png", "application/json", NPZ, EVENTS)
MAX_ANSWER_PIXELS = 64_000_000
BYTES_PER_PIXEL = {"gif": 1, "apng": 1, "json": 2, "png": 6, "webp": 6, "final": 6, "npz": 8}
"""Memory that a response needs per pixel while it is encoded, by format. The first three are encoded frame by frame,
so that only the result counts. A film strip, a WebP and a grid hold all pixels at once, and the encoder as much again.
"""
SEED = {"X-Seed": "The seed; the same one gives the same drawings"}
STREAM = (
    "`format=sse` sends an event `step` for each sample and step as soon as it is computed, `{sample, step, image, "
    "attention}`, and finally `done`, the document without its samples, or `error`, a problem document."
)
WINDOWS = (
    "Attention windows are in pixels of the 28 x 28 canvas; the centre of the first pixel is at 1, as in the paper."
)


def endpoints(context: Context) -> list[Endpoint[Any]]:
    """Return the endpoints of `/draw`."""

    async def generate(exchange: Exchange, query: GenerateQuery, send: Send) -> Answer | None:
        model = context.catalogue.find(MODEL, query.version, "draw")
        exchange.model = model.manifest.name
        answer_format = chosen(query.format, exchange.header(b"accept"), FORMATS, "gif")
        _check_size(query, answer_format)
        seed = seed_or_random(query.seed)
        generation = partial(
            draw.generation,
            model.manifest,
            seed=seed,
            count=query.count,
            steps=query.steps,
            digit=query.digit,
            temperature=query.temperature,
            deadline=exchange.deadline,
        )
        with model.engine("generate").reserve(query.count, exchange.deadline) as room:
            with exchange.timed("decode"):
                # Drawing the noise of one sample takes less than about 100 microseconds.
                request = generation() if query.count == 1 else await context.codecs.run(generation)
            work = Generation(query, model, request, seed, answer_format, query.digit)
            return await respond(context, exchange, send, room, work)

    async def reconstruct(exchange: Exchange, query: ReconstructQuery, send: Send) -> Answer | None:
        model = context.catalogue.find(MODEL, query.version, "draw")
        exchange.model = model.manifest.name
        answer_format = chosen(query.format, exchange.header(b"accept"), FORMATS, "gif")
        deadline = exchange.deadline
        # DRAW was trained on upright, centred digits in white ink; the rectifier makes one from any picture.
        rectifier = context.catalogue.find(RECTIFIER, None, "stn")
        engine, rectify = model.engine("reconstruct"), rectifier.engine("rectify")
        engine.check_room(1)
        uploads = await read_uploads(exchange, context)
        if len(uploads) != 1:
            raise InvalidParameter("image", f"must be one file, not {len(uploads)}")
        with engine.reserve(1, deadline) as room:
            with rectify.reserve(1, deadline) as rectifier_room:
                (reading,) = await rectify_all(exchange, context, uploads, rectifier, rectifier_room)
            picture = reading.rectified
            del uploads, reading  # a stream gives back their share of the memory budget when it begins
            seed = seed_or_random(query.seed)
            request = draw.reconstruction(
                model.manifest, picture=picture, seed=seed, steps=query.steps, deadline=deadline
            )
            work = Reconstruction(query, model, request, seed, answer_format)
            return await respond(context, exchange, send, room, work)

    return [
        Endpoint(
            "GET",
            "/draw/generate",
            GenerateQuery,
            generate,
            Documentation(
                summary="Draw digits step by step",
                description=f"DRAW draws from noise; the seed determines the drawings. {STREAM} {WINDOWS}",
                tag="draw",
                media_types=MEDIA_TYPES,
                answer=Generated,
                headers=SEED,
            ),
        ),
        Endpoint(
            "POST",
            "/draw/reconstruct",
            ReconstructQuery,
            reconstruct,
            Documentation(
                summary="Look at a digit through DRAW's windows and redraw it",
                description=(
                    "The picture is first rectified and binarised. Read windows are green, write windows red. "
                    "`bound_nats` is the upper bound on -log p of the binarised picture. "
                    f"{STREAM} Its `step` events also have the read window, `reading`. {WINDOWS}"
                ),
                tag="draw",
                media_types=MEDIA_TYPES,
                answer=Reconstructed,
                headers=SEED,
                request_body=REQUEST_BODY,
            ),
        ),
    ]


def _pixels(query: DrawingQuery, samples: int, answer_format: str) -> int:
    """Return how many pixels a complete response has."""
    frames = samples * (1 if answer_format == "final" else query.steps)
    side = SIDE * (1 if answer_format == "npz" else query.scale)
    return frames * side**2


def _check_size(query: GenerateQuery, answer_format: str) -> None:
    """Refuse a response that is too large; that of a single sample never is.

    Raises:
        InvalidParameter: the response would have too many pixels.
    """
    if answer_format != "sse" and _pixels(query, query.count, answer_format) > MAX_ANSWER_PIXELS:
        largest = int((MAX_ANSWER_PIXELS / (query.steps * query.count)) ** 0.5 / SIDE)
        raise InvalidParameter(
            "scale",
            f"must be a whole number in 1..{largest} for {query.count} samples of {query.steps} steps "
            f"as {answer_format}, not {query.scale}",
        )


@dataclass(frozen=True)
class DrawingWork:
    """A request to draw, and how its response is made; the base of generation and reconstruction."""

    query: DrawingQuery
    model: ServedModel
    request: Request
    seed: int
    answer_format: str

    def __post_init__(self) -> None:
        """Have the engine keep no more than the response shows."""
        self.request.keeps_last_step = self.answer_format == "final"

    @property
    def headers(self) -> dict[str, str]:
        """Headers that the response carries in every format."""
        return {"x-seed": str(self.seed)}

    @property
    def answer_bytes(self) -> int:
        """Maximum memory that a complete response needs while it is encoded."""
        return BYTES_PER_PIXEL[self.answer_format] * _pixels(self.query, self.request.rows, self.answer_format)

    @property
    def is_quick(self) -> bool:
        """Whether encoding the response takes less than about 100 microseconds."""
        return self.answer_format == "final" and self.request.rows * self.query.scale**2 <= 4

    def step(self, step: int, row: int) -> dict[str, Any]:
        """Return a sample at a step, and its attention windows."""
        drawing = draw.drawing(self.request, row, self.model.manifest)
        image = base64_png(self._enlarged(drawing.only(step))[0])
        return {"sample": row, "step": step, "image": image, **self._windows(drawing, step)}

    def summary(self) -> dict[str, Any]:
        """Return the document without the drawings."""
        return {
            "model": self.model.manifest.name,
            "version": self.model.manifest.version,
            "seed": self.seed,
            "steps": self.query.steps,
            "count": self.request.rows,
            **self._facts(),
        }

    def answer(self) -> Answer:
        """Return the complete response, once all steps are computed."""
        match self.answer_format:
            case "json":
                return json_answer({**self.summary(), "samples": self._samples()}, self.headers)
            case "npz":
                return npz_answer(self._arrays(), self.headers)
            case "final":
                return picture_answer(self._sheet(-1, with_attention=False), headers=self.headers)
            case "png":
                return picture_answer(self._film_strip(), headers=self.headers)
        animation_format = AnimationFormat(self.answer_format)
        sheets = (self._sheet(step, with_attention=self.query.attention) for step in range(self.query.steps))
        return Answer(
            animate(sheets, self.query.fps, animation_format), animation_format.content_type, headers=self.headers
        )

    def _drawings(self) -> list[draw.Drawing]:
        return draw.drawings(self.request, self.model.manifest)

    def _enlarged(self, drawing: draw.Drawing) -> Pixels:
        raise_if_abandoned()
        return drawing.enlarged(self.query.scale, with_attention=self.query.attention)

    def _sheet(self, step: int, *, with_attention: bool) -> Pixels:
        """Return all samples at a step, in a roughly square grid."""
        raise_if_abandoned()
        samples = draw.moment(self.request, step, self.model.manifest)
        columns = max(1, round(math.sqrt(self.request.rows)))
        return grid(samples.enlarged(self.query.scale, with_attention=with_attention), columns)

    def _film_strip(self) -> Pixels:
        """Return a sheet with one row per sample and one column per step, as in the paper."""
        frames = chain.from_iterable(map(self._enlarged, self._drawings()))
        return sheet(frames, rows=self.request.rows, columns=self.query.steps)

    def _facts(self) -> dict[str, Any]:
        """Return the members of the document that describe all samples, beyond those of the query."""
        raise NotImplementedError

    def _windows(self, drawing: draw.Drawing, step: int) -> dict[str, Any]:
        """Return the attention windows of a step."""
        return {"attention": drawing.write_window(step)}

    def _samples(self) -> list[dict[str, Any]]:
        """Return the samples of the document."""
        samples = []
        for drawing in self._drawings():
            frames = [base64_png(frame) for frame in self._enlarged(drawing)]
            windows = [self._windows(drawing, step) for step in range(self.query.steps)]
            samples.append({"frames": frames, **{name: [window[name] for window in windows] for name in windows[0]}})
        return samples

    def _arrays(self) -> dict[str, Array]:
        outputs = self.request.outputs
        return {
            "frames": outputs["pictures"].swapaxes(0, 1),
            "attention": outputs["write_windows"].swapaxes(0, 1),
            "seed": np.array(self.seed),
            **{name: np.array(fact) for name, fact in self._facts().items()},
        }


@dataclass(frozen=True)
class Generation(DrawingWork):
    """Digits drawn from noise."""

    digit: int | None
    """Digit that the client asked for, if any."""

    def _digits(self) -> list[int]:
        return [draw.digit_to_draw(self.digit, self.seed, row) for row in range(self.request.rows)]

    def _facts(self) -> dict[str, Any]:
        return {"digits": self._digits()}

    def _samples(self) -> list[dict[str, Any]]:
        samples = zip(self._digits(), super()._samples(), strict=True)
        return [{"digit": digit, **sample} for digit, sample in samples]


@dataclass(frozen=True)
class Reconstruction(DrawingWork):
    """A picture that the network looks at and redraws."""

    def _facts(self) -> dict[str, Any]:
        return {"bound_nats": draw.bound_nats(self.request)}

    def _windows(self, drawing: draw.Drawing, step: int) -> dict[str, Any]:
        return {"attention": drawing.write_window(step), "reading": drawing.read_window(step)}

    def _arrays(self) -> dict[str, Array]:
        return {**super()._arrays(), "reading": self.request.outputs["read_windows"].swapaxes(0, 1)}

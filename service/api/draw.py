"""`/draw`: pictures drawn step by step."""

import base64
import io
import math
from functools import partial
from typing import Any

import numpy as np
from starlette.types import Send

from export.manifest import Array
from service.api.answer import Answer
from service.api.catalogue import ServedModel
from service.api.context import Context, json_answer
from service.api.endpoint import Documentation, Endpoint
from service.api.events import MEDIA_TYPE as EVENTS
from service.api.events import Event, stream
from service.api.exchange import Exchange
from service.api.negotiation import NPZ, chosen
from service.api.uploads import REQUEST_BODY, pictures
from service.engine.engine import Progress
from service.engine.request import Request
from service.errors import InvalidParameter
from service.media.animation import AnimationFormat, animate
from service.media.encoding import PictureFormat, encode
from service.media.montage import film_strip, grid
from service.media.picture import Pixels
from service.schemas.draw import DrawingQuery, GenerateQuery, ReconstructQuery
from service.tasks import draw, stn
from service.tasks.seed import seed_or_random

MODEL = "draw"
RECTIFIER = "stn-affine"
FORMATS = {EVENTS: "sse", "application/json": "json", "image/gif": "gif", NPZ: "npz"}
MEDIA_TYPES = ("image/gif", "image/apng", "image/webp", "image/png", "application/json", NPZ, EVENTS)
LARGEST_STRIP_PIXELS = 64_000_000
QUICK_STEPS = 64
"""The noise of so many steps is drawn within about 100 microseconds."""


def endpoints(context: Context) -> list[Endpoint[Any]]:
    """The endpoints of this subject."""

    async def generate(exchange: Exchange, query: GenerateQuery, send: Send) -> Answer | None:
        model = context.catalogue.find(MODEL, query.version, "draw")
        exchange.model = model.manifest.name
        answer_format = chosen(query.format, exchange.header(b"accept"), FORMATS, "gif")
        _check_size(query, answer_format, query.count)
        model.engine("generate").check_room(query.count)
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
        with exchange.timed("decode"):
            is_quick = query.count * query.steps <= QUICK_STEPS
            request = generation() if is_quick else await context.off_loop(generation)
        return await _answer(exchange, query, send, model, "generate", request, seed, answer_format)

    async def reconstruct(exchange: Exchange, query: ReconstructQuery, send: Send) -> Answer | None:
        model = context.catalogue.find(MODEL, query.version, "draw")
        exchange.model = model.manifest.name
        answer_format = chosen(query.format, exchange.header(b"accept"), FORMATS, "gif")
        deadline = exchange.deadline
        model.engine("reconstruct").check_room(1)
        uploads = await pictures(exchange, context)
        if len(uploads) != 1:
            raise InvalidParameter("image", f"must be one file, not {len(uploads)}")
        # DRAW was trained to see upright, centred digits in white ink: what the rectifier makes of any picture.
        rectifier = context.catalogue.find(RECTIFIER, None, "stn")
        rectification = stn.request([stn.network_input(uploads[0], rectifier.manifest)], deadline)
        await exchange.compute(rectifier.engine("rectify"), rectification)
        seed = seed_or_random(query.seed)
        request = draw.reconstruction(
            model.manifest,
            picture=rectification.outputs["rectified"][0],
            seed=seed,
            steps=query.steps,
            deadline=deadline,
        )
        return await _answer(exchange, query, send, model, "reconstruct", request, seed, answer_format)

    async def _answer(
        exchange: Exchange,
        query: DrawingQuery,
        send: Send,
        model: ServedModel,
        graph: str,
        request: Request,
        seed: int,
        answer_format: str,
    ) -> Answer | None:
        headers = {"x-seed": str(seed)}
        engine = model.engine(graph)
        if answer_format == "sse":
            await stream(
                context,
                exchange,
                send,
                engine,
                request,
                told=partial(_step_events, query, model, request),
                done=lambda: {**_head(model, query, request, seed), **_bound(request)},
                headers=headers,
            )
            return None
        await exchange.compute(engine, request)
        with exchange.timed("encode"):
            if answer_format == "final" and request.rows * query.scale**2 <= 4:
                return _encoded(query, model, request, seed, answer_format, headers)
            return await context.off_loop(_encoded, query, model, request, seed, answer_format, headers)

    return [
        Endpoint(
            "GET",
            "/draw/generate",
            GenerateQuery,
            generate,
            Documentation(
                summary="Draw digits step by step",
                description="DRAW draws from noise that the seed decides: the same seed gives the same bytes.",
                tag="draw",
                media_types=MEDIA_TYPES,
            ),
        ),
        Endpoint(
            "POST",
            "/draw/reconstruct",
            ReconstructQuery,
            reconstruct,
            Documentation(
                summary="Look at a digit through DRAW's windows and redraw it",
                description="The picture is rectified first. Read windows are green, write windows red.",
                tag="draw",
                media_types=MEDIA_TYPES,
                request_body=REQUEST_BODY,
                errors=(400, 404, 413, 415, 422, 429, 503, 504),
            ),
        ),
    ]


def _check_size(query: DrawingQuery, answer_format: str, count: int) -> None:
    pixels = query.steps * count * (28 * query.scale) ** 2
    if answer_format not in {"final", "npz", "sse"} and pixels > LARGEST_STRIP_PIXELS:
        largest = int((LARGEST_STRIP_PIXELS / (query.steps * count)) ** 0.5 / 28)
        raise InvalidParameter(
            "scale",
            f"must be a whole number in 1..{largest} for {count} samples of {query.steps} steps as {answer_format}, "
            f"not {query.scale}",
        )


def _encoded(
    query: DrawingQuery,
    model: ServedModel,
    request: Request,
    seed: int,
    answer_format: str,
    headers: dict[str, str],
) -> Answer:
    drawings = draw.drawings(request, model.manifest)
    if answer_format == "json":
        return _json(query, model, request, drawings, seed, headers)
    if answer_format == "npz":
        return _npz(request, drawings, seed, headers)
    if answer_format == "final":
        finished = [
            drawing.step(query.steps - 1).enlarged(query.scale, with_attention=False)[0] for drawing in drawings
        ]
        return _png(grid(np.stack(finished), columns=_columns(len(finished))), headers)
    frames = [drawing.enlarged(query.scale, with_attention=query.attention) for drawing in drawings]
    if answer_format == "png":
        return _png(film_strip(np.stack(frames)), headers)
    animation_format = AnimationFormat(answer_format)
    together = [grid(np.stack(step), columns=_columns(len(frames))) for step in zip(*frames, strict=True)]
    return Answer(
        animate(np.stack(together), query.fps, animation_format),
        animation_format.content_type,
        headers=headers,
    )


def _columns(count: int) -> int:
    """Of a contact sheet that is about as wide as it is high."""
    return max(1, round(math.sqrt(count)))


def _png(image: Pixels, headers: dict[str, str]) -> Answer:
    return Answer(encode(image), PictureFormat.PNG.content_type, headers=headers)


def _base64(image: Pixels) -> str:
    return base64.b64encode(encode(image)).decode()


def _head(model: ServedModel, query: DrawingQuery, request: Request, seed: int) -> dict[str, Any]:
    return {
        "model": model.manifest.name,
        "version": model.manifest.version,
        "seed": seed,
        "steps": query.steps,
        "count": request.rows,
    }


def _bound(request: Request) -> dict[str, float]:
    return {"bound_nats": draw.bound_nats(request)} if "losses" in request.outputs else {}


def _step_events(query: DrawingQuery, model: ServedModel, request: Request, news: list[Progress]) -> list[Event]:
    """The events of new steps, step by step and in each step sample by sample."""
    events: list[Event] = []
    for step, row in sorted((step, progress.row) for progress in news for step in range(progress.begin, progress.end)):
        drawing = draw.drawing(request, row, model.manifest)
        image = drawing.step(step).enlarged(query.scale, with_attention=query.attention)[0]
        data: dict[str, Any] = {
            "sample": row,
            "step": step,
            "image": _base64(image),
            "attention": drawing.attention(step),
        }
        if (reading := drawing.reading(step)) is not None:
            data["reading"] = reading
        events.append(("step", data))
    return events


def _json(
    query: DrawingQuery,
    model: ServedModel,
    request: Request,
    drawings: list[draw.Drawing],
    seed: int,
    headers: dict[str, str],
) -> Answer:
    samples = []
    for drawing in drawings:
        frames = drawing.enlarged(query.scale, with_attention=query.attention)
        sample: dict[str, Any] = {
            "frames": [_base64(frame) for frame in frames],
            "attention": [drawing.attention(step) for step in range(query.steps)],
        }
        if drawing.read_windows is not None:
            sample["reading"] = [drawing.reading(step) for step in range(query.steps)]
        samples.append(sample)
    document = {**_head(model, query, request, seed), "samples": samples, **_bound(request)}
    return json_answer(document, headers)


def _npz(request: Request, drawings: list[draw.Drawing], seed: int, headers: dict[str, str]) -> Answer:
    arrays: dict[str, Array] = {
        "frames": np.stack([drawing.frames for drawing in drawings]),
        "attention": np.stack([drawing.write_windows for drawing in drawings]),
        "seed": np.array(seed),
        **{name: np.array(nats) for name, nats in _bound(request).items()},
    }
    reading = [drawing.read_windows for drawing in drawings if drawing.read_windows is not None]
    if reading:
        arrays["reading"] = np.stack(reading)
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return Answer(file.getvalue(), NPZ, headers=headers)

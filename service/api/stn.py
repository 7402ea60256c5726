"""`/stn`: rectification of pictures of digits."""

from typing import Any

import numpy as np
from starlette.types import Send

from export.manifest import Manifest
from service.api.answer import Answer, base64_png, json_answer, npz_answer, picture_answer
from service.api.context import Context
from service.api.endpoint import Documentation, Endpoint
from service.api.exchange import Exchange
from service.api.negotiation import NPZ, chosen
from service.api.rectification import rectify_all
from service.api.threads import raise_if_abandoned
from service.api.uploads import REQUEST_BODY, read_uploads
from service.errors import InvalidParameter
from service.media.encoding import PictureFormat
from service.media.picture import Pixels
from service.schemas.answers import Rectified
from service.schemas.stn import RectifyQuery
from service.tasks import stn

FORMATS = {"image/png": "png", "application/json": "json", "image/webp": "webp", NPZ: "npz"}
BYTES_PER_PIXEL = 3
"""Memory that a rectified picture needs per pixel while it is encoded. JSON needs most: it holds the picture twice, as
text."""


def endpoints(context: Context) -> list[Endpoint[Any]]:
    """Return the endpoints of `/stn`."""

    async def rectify(exchange: Exchange, query: RectifyQuery, _: Send) -> Answer:
        model = context.catalogue.find(query.model, query.version, "stn")
        exchange.model = model.manifest.name
        answer_format = chosen(query.format, exchange.header(b"accept"), FORMATS, "png")
        if answer_format == "npz" and query.view != "rectified":
            raise InvalidParameter("view", f"must be rectified if format is npz, not {query.view!r}")
        engine = model.engine("rectify")
        engine.check_room(1)
        files = await read_uploads(exchange, context)
        if len(files) > 1 and answer_format not in {"json", "npz"}:
            if query.format is not None:
                raise InvalidParameter("format", f"must be json or npz for {len(files)} files, not {query.format!r}")
            answer_format = "json"
        exchange.memory.take(BYTES_PER_PIXEL * len(files) * query.size**2)
        with engine.reserve(len(files), exchange.deadline) as room:
            readings = await rectify_all(exchange, context, files, model, room)
            with exchange.timed("encode"):
                if answer_format == "png" and query.view == "rectified" and query.size == stn.NATIVE_SIDE:
                    # The network's own output is encoded within about 100 microseconds.
                    return _picture(readings[0], query, PictureFormat.PNG)
                if answer_format == "json":
                    return await context.codecs.run(_json, readings, query, model.manifest)
                if answer_format == "npz":
                    return await context.codecs.run(_npz, readings, query)
                return await context.codecs.run(_picture, readings[0], query, PictureFormat(answer_format))

    return [
        Endpoint(
            "POST",
            "/stn/rectify",
            RectifyQuery,
            rectify,
            Documentation(
                summary="Find a digit in a picture and rectify it",
                description="Send one picture as the raw body, or one or more files named `image` as a form. "
                "The response is the digit, upright and centred, in white ink on black. As JSON, it also has the "
                "digit's class, the transformation, and where the output's corners lie in the upload.",
                tag="stn",
                media_types=tuple(FORMATS),
                answer=Rectified,
                headers={
                    "X-Label": "The digit, if the response is a picture",
                    "X-Confidence": "The digit's probability, if the response is a picture",
                },
                request_body=REQUEST_BODY,
            ),
        )
    ]


def _view(reading: stn.Reading, query: RectifyQuery) -> Pixels:
    if query.view == "overlay":
        return reading.overlay()
    if query.view == "strip":
        return reading.side_by_side(query.size)
    return reading.sampled(query.size)


def _picture(reading: stn.Reading, query: RectifyQuery, picture_format: PictureFormat) -> Answer:
    headers = {"x-label": str(reading.label), "x-confidence": f"{reading.confidence:.4f}"}
    return picture_answer(_view(reading, query), picture_format, headers)


def _json(readings: list[stn.Reading], query: RectifyQuery, manifest: Manifest) -> Answer:
    results = []
    for reading in readings:
        raise_if_abandoned()
        image = _view(reading, query)
        results.append(
            {
                "label": reading.label,
                # A float32, not `reading.confidence`, to have the same digits as in `probabilities`.
                "confidence": reading.probabilities[reading.label],
                "probabilities": reading.probabilities,
                "transform": {"type": reading.kind.value, "theta": reading.theta_in_picture()},
                "corners": reading.corners(),
                "image": {
                    "content_type": PictureFormat.PNG.content_type,
                    "width": image.shape[1],
                    "height": image.shape[0],
                    "data": base64_png(image),
                },
            }
        )
    return json_answer({"model": manifest.name, "version": manifest.version, "results": results})


def _npz(readings: list[stn.Reading], query: RectifyQuery) -> Answer:
    images = np.empty((len(readings), query.size, query.size), np.uint8)
    for image, reading in zip(images, readings, strict=True):
        raise_if_abandoned()
        image[:] = reading.sampled(query.size)
    return npz_answer(
        {
            "images": images,
            "labels": np.array([reading.label for reading in readings]),
            "probabilities": np.stack([reading.probabilities for reading in readings]),
            "theta": np.stack([reading.theta_in_picture() for reading in readings]),
            "corners": np.stack([reading.corners() for reading in readings]),
        }
    )

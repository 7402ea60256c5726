"""Rectification of digits in uploaded pictures, for `/stn/rectify` and as the first stage of `/draw/reconstruct`."""

from collections.abc import Sequence

from export.manifest import Manifest
from service.api.catalogue import ServedModel
from service.api.context import Context
from service.api.exchange import Exchange
from service.api.forms import Upload
from service.api.threads import raise_if_abandoned
from service.api.uploads import decode_uploads
from service.engine.engine import Reservation
from service.media.picture import Picture, Pixels
from service.tasks import stn

QUICK_SIDE = 32
"""Longest side of a picture that is framed on the event loop: it takes less than about 100 microseconds."""


async def rectify_all(
    exchange: Exchange, context: Context, files: Sequence[Upload], model: ServedModel, room: Reservation
) -> list[stn.Reading]:
    """Decode the pictures of a request, compute them in their reservation, and return the readings in their order.

    Raises:
        GlimpseError: as `decode_uploads` and `Exchange.compute` do.
    """
    pictures = await decode_uploads(exchange, context, files)
    with exchange.timed("decode"):
        if len(pictures) == 1 and max(pictures[0].width, pictures[0].height) <= QUICK_SIDE:
            squares = _framed(pictures, model.manifest)
        else:
            squares = await context.codecs.run(_framed, pictures, model.manifest)
    request = stn.request(squares, exchange.deadline)
    await exchange.compute(request, room)
    return stn.readings(pictures, request, model.manifest)


def _framed(pictures: Sequence[Picture], manifest: Manifest) -> list[Pixels]:
    squares = []
    for picture in pictures:
        raise_if_abandoned()
        squares.append(stn.network_input(picture, manifest))
    return squares

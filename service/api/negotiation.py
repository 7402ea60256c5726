"""Content negotiation: the format that the query names, else the one that `Accept` prefers, else the default."""

from collections.abc import Mapping

NPZ = "application/x-npz"
MAX_ACCEPT_CHARACTERS = 1024
"""Longest `Accept` header that is parsed; a longer one takes too long, and is ignored."""


def chosen(named: str | None, accept: str, formats: Mapping[str, str], default: str) -> str:
    """Return the name of the response's format.

    Args:
        named: the query's `format`, which takes precedence.
        accept: the `Accept` header.
        formats: the formats that `Accept` can ask for, by media type.
        default: the format if neither decides.
    """
    if named is not None:
        return named
    if not accept or accept == "*/*" or len(accept) > MAX_ACCEPT_CHARACTERS:
        return default
    ranges = [_weighted(part) for part in accept.split(",")]
    # The default comes first, so that it wins a tie.
    offered = sorted(formats, key=lambda media: formats[media] != default)
    best = max(offered, key=lambda media: _preference(media, ranges))
    weight, _ = _preference(best, ranges)
    return formats[best] if weight > 0 else default


def _preference(media: str, ranges: list[tuple[str, float]]) -> tuple[float, int]:
    """Return a sort key: the weight of the most specific range that matches (RFC 9110, 12.5.1), then its position."""
    for wildcard in (media, f"{media.partition('/')[0]}/*", "*/*"):
        for place, (media_range, weight) in enumerate(ranges):
            if media_range == wildcard:
                return weight, -place
    return 0.0, -len(ranges)


def _weighted(media_range: str) -> tuple[str, float]:
    media, *parameters = (part.strip().lower() for part in media_range.split(";"))
    weight = next((parameter[2:] for parameter in parameters if parameter.startswith("q=")), "1")
    try:
        return media, float(weight)
    except ValueError:
        return media, 0.0

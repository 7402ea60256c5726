"""Which format an answer has: what the query names, else what `Accept` prefers, else the endpoint's default."""

from collections.abc import Mapping

NPZ = "application/x-npz"


def chosen(named: str | None, accept: str, formats: Mapping[str, str], default: str) -> str:
    """A format's name.

    Args:
        named: the query's `format`, which wins.
        accept: the `Accept` header.
        formats: by media type, the formats that `Accept` can ask for.
        default: for everything else.
    """
    if named is not None:
        return named
    if not accept or accept == "*/*":
        return default
    ranges = [_weighted(part) for part in accept.split(",")]
    ranges.sort(key=lambda weighted: -weighted[0])
    return next((formats[media] for weight, media in ranges if weight > 0 and media in formats), default)


def _weighted(media_range: str) -> tuple[float, str]:
    media, *parameters = media_range.split(";")
    weight = next((p.strip()[2:] for p in parameters if p.strip().startswith("q=")), "1")
    try:
        return float(weight), media.strip().lower()
    except ValueError:
        return 0.0, media.strip().lower()

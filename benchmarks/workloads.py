"""The requests of each workload, evenly mixed and always in the same order.

A *length* is a number of steps. DRAW and NTM get four lengths equally often, in a fixed, shuffled order.
"""

import math
from itertools import cycle

import numpy as np
import orjson

from benchmarks.client import Call
from service.media.encoding import encode
from service.media.picture import Pixels

FORMATS = ("gif", "apng", "webp", "png", "json", "npz", "sse")
"""Formats of a drawing, other than the finished picture alone."""
LENGTHS = (8, 16, 32, 64)
BITS = 8
REPEATED_AFTER = 4096
"""Number of distinct requests in a workload: the service caches the last 1024 parsed queries, and must not benefit."""
SIDE = 28
SEGMENTS = {
    "a": ((0, 0), (1, 0)), "b": ((1, 0), (1, 1)), "c": ((1, 1), (1, 2)), "d": ((1, 2), (0, 2)),
    "e": ((0, 2), (0, 1)), "f": ((0, 1), (0, 0)), "g": ((0, 1), (1, 1)),
}  # fmt: skip
"""End points (x, y) of the segments of a seven-segment display."""
DIGITS = ("abcdef", "bc", "abged", "abgcd", "fgbc", "afgcd", "afgedc", "abc", "abcdefg", "abcdfg")
"""Segments of the digits 0 to 9."""


def stn(count: int = 256) -> list[Call]:
    """Return requests with one picture of a digit each, 28 x 28 grey, as a raw PNG body."""
    generator = np.random.default_rng(1)
    pictures = [encode(digit(index % 10, generator)) for index in range(count)]
    return [Call("stn", "POST", "/stn/rectify", picture, "image/png") for picture in pictures]


def draw(count: int = REPEATED_AFTER) -> list[Call]:
    """Return requests for one drawing each, of one of four lengths; the response is the finished picture as a PNG."""
    return [
        Call(str(steps), "GET", f"/draw/generate?steps={steps}&seed={seed}&format=final&scale=1")
        for seed, steps in enumerate(mixed_lengths(count))
    ]


def sheets(count: int = REPEATED_AFTER) -> list[Call]:
    """Return requests for 16 drawings of the longest length: slow enough to be offered at ten times the throughput."""
    query = f"/draw/generate?steps={max(LENGTHS)}&count=16&format=final&scale=1"
    return [Call("sheets", "GET", f"{query}&seed={seed}") for seed in range(count)]


def ntm(count: int = REPEATED_AFTER) -> list[Call]:
    """Return requests to copy one sequence each; episodes (input, delimiter, output) have about one of the lengths."""
    generator = np.random.default_rng(1)
    return [
        Call(str(length), "POST", "/ntm/copy", sequence(length, generator), "application/json")
        for length in mixed_lengths(count)
    ]


def mixed(count: int = REPEATED_AFTER) -> list[Call]:
    """Return requests for all three models in turn."""
    kinds = {"stn": stn(), "draw": draw(count), "ntm": ntm(count)}
    return [
        Call(name, call.method, call.target, call.body, call.content_type)
        for index in range(count)
        for name, calls in kinds.items()
        for call in [calls[index % len(calls)]]
    ]


def everything() -> list[Call]:
    """Return requests for all models and every kind of response: large picture, animation, JSON, stream, error."""
    generator = np.random.default_rng(1)
    photograph = encode(digit(7, generator).repeat(20, 0).repeat(20, 1))
    rare = [
        Call("photograph", "POST", "/stn/rectify?size=256&view=strip", photograph, "image/png"),
        Call("damaged", "POST", "/stn/rectify", photograph[:1000], "image/png", status=400),
        Call("redrawn", "POST", "/draw/reconstruct?steps=16", stn(1)[0].body, "image/png"),
        *(Call(kind, "GET", f"/draw/generate?steps=16&count=4&seed=1&format={kind}") for kind in FORMATS),
        Call("figure", "GET", "/ntm/copy?length=20&seed=1&format=png"),
        Call("trace", "GET", "/ntm/copy?length=20&seed=1&trace=true"),
        Call("steps", "GET", "/ntm/copy?length=20&seed=1&format=sse"),
        Call("nowhere", "GET", "/ntm/unlearning", status=404),
    ]
    return [call for one, *three in zip(cycle(rare), *[iter(mixed(512))] * 3, strict=False) for call in (one, *three)]


WORKLOADS = {"stn": stn, "draw": draw, "ntm": ntm, "mixed": mixed}
OVERLOADS = {"sheets": sheets, "draw": draw}
"""Workloads offered at ten times the throughput: expensive requests, and requests that cost little more than HTTP."""


def mixed_lengths(count: int) -> list[int]:
    """Return `count` lengths; each group of four contains all of them, in random but fixed order."""
    generator = np.random.default_rng(1)
    fours = [generator.permutation(LENGTHS) for _ in range(math.ceil(count / len(LENGTHS)))]
    return [int(length) for length in np.concatenate(fours)[:count]]


def copied_vectors(length: int) -> int:
    """Return the most vectors whose episode, of twice as many steps plus one, fits in a length."""
    return (length - 1) // 2


def sequence(length: int, generator: np.random.Generator) -> bytes:
    """Return a random body for `/ntm/copy`."""
    return orjson.dumps({"sequence": generator.integers(2, size=(copied_vectors(length), BITS)).tolist()})


def digit(value: int, generator: np.random.Generator) -> Pixels:
    """Draw a seven-segment digit with random position, slant, size and thickness, 28 x 28, white on black."""
    left, top = generator.uniform(7, 11), generator.uniform(4, 7)
    width, height = generator.uniform(7, 10), generator.uniform(7, 9)
    slant, thickness = generator.uniform(-0.3, 0.3), generator.uniform(1.0, 2.0)
    y, x = np.mgrid[:SIDE, :SIDE]
    distance = np.full((SIDE, SIDE), np.inf)
    for segment in DIGITS[value]:
        (x0, y0), (x1, y1) = (
            (left + width * u - slant * height * (v - 1), top + height * v) for u, v in SEGMENTS[segment]
        )
        along = np.clip(((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / ((x1 - x0) ** 2 + (y1 - y0) ** 2), 0, 1)
        distance = np.minimum(distance, np.hypot(x - x0 - along * (x1 - x0), y - y0 - along * (y1 - y0)))
    return np.asarray(np.rint(255 * np.clip(thickness + 0.5 - distance, 0, 1)), np.uint8)

"""What is asked: requests of each kind, mixed evenly, always in the same order.

A *length* is a number of steps; DRAW and NTM are asked for four of them equally often, in an order that is shuffled
once for all.
"""

import math
from itertools import cycle

import numpy as np
import orjson

from benchmarks.client import Call
from service.media.encoding import encode
from service.media.picture import Pixels

ANSWERS = ("gif", "apng", "webp", "png", "json", "npz", "sse")
"""The formats of a drawing, beside the finished picture."""
LENGTHS = (8, 16, 32, 64)
BITS = 8
REPEATED_AFTER = 4096
"""So many requests differ: the service remembers the last 1024 queries that it parsed, and must not gain by it."""
SIDE = 28
SEGMENTS = {
    "a": ((0, 0), (1, 0)), "b": ((1, 0), (1, 1)), "c": ((1, 1), (1, 2)), "d": ((1, 2), (0, 2)),
    "e": ((0, 2), (0, 1)), "f": ((0, 1), (0, 0)), "g": ((0, 1), (1, 1)),
}  # fmt: skip
"""Ends (x, y) of a seven-segment display's segments."""
DIGITS = ("abcdef", "bc", "abged", "abgcd", "fgbc", "afgcd", "afgedc", "abc", "abcdefg", "abcdfg")


def stn(count: int = 256) -> list[Call]:
    """One picture of a digit a request, 28 x 28 grey, as a raw PNG body."""
    generator = np.random.default_rng(1)
    pictures = [encode(digit(index % 10, generator)) for index in range(count)]
    return [Call("stn", "POST", "/stn/rectify", picture, "image/png") for picture in pictures]


def draw(count: int = REPEATED_AFTER) -> list[Call]:
    """One drawing a request, of one of four lengths; the finished picture as a PNG."""
    return [
        Call(str(steps), "GET", f"/draw/generate?steps={steps}&seed={seed}&format=final&scale=1")
        for seed, steps in enumerate(mixed_lengths(count))
    ]


def sheets(count: int = REPEATED_AFTER) -> list[Call]:
    """Sixteen drawings of the longest kind a request: work for a while, so that ten times too much can be asked for."""
    query = f"/draw/generate?steps={max(LENGTHS)}&count=16&format=final&scale=1"
    return [Call("sheets", "GET", f"{query}&seed={seed}") for seed in range(count)]


def ntm(count: int = REPEATED_AFTER) -> list[Call]:
    """One sequence to copy a request; reading it, a mark and writing it make an episode of about one of the lengths."""
    generator = np.random.default_rng(1)
    return [
        Call(str(length), "POST", "/ntm/copy", sequence(length, generator), "application/json")
        for length in mixed_lengths(count)
    ]


def mixed(count: int = REPEATED_AFTER) -> list[Call]:
    """All three in turn."""
    kinds = {"stn": stn(), "draw": draw(count), "ntm": ntm(count)}
    return [
        Call(name, call.method, call.target, call.body, call.content_type)
        for index in range(count)
        for name, calls in kinds.items()
        for call in [calls[index % len(calls)]]
    ]


def everything() -> list[Call]:
    """All three in turn, and every kind of answer: a large picture, animations, documents, streams, refusals."""
    generator = np.random.default_rng(1)
    photograph = encode(digit(7, generator).repeat(20, 0).repeat(20, 1))
    rare = [
        Call("photograph", "POST", "/stn/rectify?size=256&view=strip", photograph, "image/png"),
        Call("damaged", "POST", "/stn/rectify", photograph[:1000], "image/png", status=400),
        Call("redrawn", "POST", "/draw/reconstruct?steps=16", stn(1)[0].body, "image/png"),
        *(Call(kind, "GET", f"/draw/generate?steps=16&count=4&seed=1&format={kind}") for kind in ANSWERS),
        Call("figure", "GET", "/ntm/copy?length=20&seed=1&format=png"),
        Call("trace", "GET", "/ntm/copy?length=20&seed=1&trace=true"),
        Call("steps", "GET", "/ntm/copy?length=20&seed=1&format=sse"),
        Call("nowhere", "GET", "/ntm/unlearning", status=404),
    ]
    return [call for one, *three in zip(cycle(rare), *[iter(mixed(512))] * 3, strict=False) for call in (one, *three)]


WORKLOADS = {"stn": stn, "draw": draw, "ntm": ntm, "mixed": mixed}
OVERLOADS = {"sheets": sheets, "draw": draw}
"""Asked ten times too often: work that takes a while, and work that is hardly more than asking for it."""


def mixed_lengths(count: int) -> list[int]:
    """Lengths, each equally often in any four that begin at a multiple of four."""
    generator = np.random.default_rng(1)
    fours = [generator.permutation(LENGTHS) for _ in range(math.ceil(count / len(LENGTHS)))]
    return [int(length) for length in np.concatenate(fours)[:count]]


def copied_vectors(length: int) -> int:
    """The longest sequence whose episode, twice as long and one step more, is within a length."""
    return (length - 1) // 2


def sequence(length: int, generator: np.random.Generator) -> bytes:
    """A body for `/ntm/copy`."""
    return orjson.dumps({"sequence": generator.integers(2, size=(copied_vectors(length), BITS)).tolist()})


def digit(value: int, generator: np.random.Generator) -> Pixels:
    """A digit as a seven-segment display shows it, at a random place, slant, size and thickness: white on black."""
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

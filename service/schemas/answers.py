"""What is answered as JSON: for the OpenAPI document, and for clients that are generated from it.

Answers are not made of these models, since their arrays are written as they are; a test holds the two together.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from service.schemas.ntm import Bit

Base64Png = Annotated[str, Field(description="A PNG file in base64", json_schema_extra={"contentEncoding": "base64"})]
Row = list[float]


class Document(BaseModel):
    """The model that made a response, which every response names."""

    model: str
    version: int


class Transform(BaseModel):
    """Where in the upload each point of the output was sampled, in coordinates that are -1 and 1 at the outer edges."""

    type: Literal["affine", "projective", "tps"]
    theta: list[float] = Field(
        description="affine: the rows of a 2 x 3 matrix; projective: of a 3 x 3 matrix, without the last number, which "
        "is 1; tps: x and y of where each of 4 x 4 control points, row by row between -0.75 and 0.75, was sampled",
        min_length=6,
        max_length=32,
    )


class Image(BaseModel):
    """A picture within a document."""

    content_type: Literal["image/png"]
    width: int
    height: int
    data: Base64Png


class Reading(BaseModel):
    """What was found in one picture."""

    label: int = Field(ge=0, le=9, description="The likeliest digit")
    confidence: float = Field(ge=0, le=1, description="Its probability")
    probabilities: list[float] = Field(min_length=10, max_length=10, description="Of the digits 0 to 9")
    transform: Transform
    corners: list[tuple[float, float]] = Field(
        min_length=4,
        max_length=4,
        description="[x, y] in pixels of the upload: the output's top left, top right, bottom right and bottom left",
    )
    image: Image = Field(description="The view that was asked for")


class Rectified(Document):
    """Answer of `POST /stn/rectify`."""

    results: list[Reading] = Field(min_length=1, description="One per file, in their order")


class Window(BaseModel):
    """An attention window, in pixels of the 28 x 28 canvas, whose first pixel has its centre at 1."""

    gx: float = Field(description="x of its centre")
    gy: float = Field(description="y of its centre")
    delta: float = Field(gt=0, description="Distance of its filters")
    sigma: float = Field(gt=0, description="Standard deviation of a filter")
    gamma: float = Field(description="Intensity")


class Sample(BaseModel):
    """One drawing, step by step."""

    frames: list[Base64Png] = Field(description="The picture after each step")
    attention: list[Window] = Field(description="The window that each step wrote through")


class GeneratedSample(Sample):
    """A drawing of a digit."""

    digit: int = Field(ge=0, le=9, description="What was to be drawn: the digit asked for, or a random one")


class ReconstructedSample(Sample):
    """A drawing of what was looked at."""

    reading: list[Window] = Field(description="The window that each step read through")


class Drawn(Document):
    """What both endpoints of `/draw` answer."""

    seed: int = Field(description="Asked for again, it gives the same drawings")
    steps: int
    count: int = Field(description="Number of samples")


class Generated(Drawn):
    """Answer of `GET /draw/generate`."""

    digits: list[int] = Field(description="What was to be drawn, sample by sample")
    samples: list[GeneratedSample]


class Reconstructed(Drawn):
    """Answer of `POST /draw/reconstruct`."""

    samples: list[ReconstructedSample]
    bound_nats: float = Field(description="Upper bound on -log p of the black and white picture, in nats")


class Trace(BaseModel):
    """What a machine did: one row per step, several heads side by side."""

    read_weights: list[Row] = Field(description="Where it read: a weight for each of 128 slots, head by head")
    write_weights: list[Row] = Field(description="Where it wrote")
    reads: list[Row] = Field(description="What it read: 20 numbers from each head")
    adds: list[Row] = Field(description="What it added")


class Outcome(Document):
    """What every endpoint of `/ntm` answers."""

    task: str
    bit_errors: int = Field(ge=0, description="Bits of the output that are not the expected ones")
    accuracy: float = Field(ge=0, le=1, description="Share of the bits that are")
    seed: int | None = Field(None, description="Of a random episode: asked for again, it gives the same")
    episode: dict[str, Any] | None = Field(None, description="The random episode, as it would be sent")
    trace: Trace | None = Field(None, description="With `trace=true`")


class Recalled(Outcome):
    """Answer of most tasks."""

    output: list[list[Bit]] = Field(description="The probabilities, rounded")
    probabilities: list[Row] = Field(description="That a bit is 1")
    expected: list[list[Bit]] = Field(description="The right answer")


class Repeated(Recalled):
    """Answer of `/ntm/repeat-copy`."""

    ended: bool = Field(description="Whether the end was marked at the right step, and nowhere else")


class Predicted(Outcome):
    """Answer of `/ntm/dynamic-ngrams`."""

    output: list[Bit] = Field(description="The probabilities, rounded")
    probabilities: list[float] = Field(description="That a bit is 1, given the bits before it")
    expected: list[Bit] = Field(description="The bits themselves")
    cost_bits: float = Field(description="What a code by these probabilities spends on the bits from the sixth on")
    optimal_cost_bits: float = Field(description="What one by the Bayes-optimal estimator spends")


OUTCOMES: dict[str, type[Outcome]] = {
    "copy": Recalled,
    "repeat-copy": Repeated,
    "associative-recall": Recalled,
    "dynamic-ngrams": Predicted,
    "priority-sort": Recalled,
}
"""By task."""

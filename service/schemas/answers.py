"""JSON responses, for the OpenAPI document and for clients generated from it.

The service does not build responses from these models, because it serialises arrays directly; a test compares the two.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from service.schemas.ntm import Bit

Base64Png = Annotated[str, Field(description="PNG file in base64", json_schema_extra={"contentEncoding": "base64"})]
Row = list[float]


class Document(BaseModel):
    """Fields that all responses share: the model and the version that computed them."""

    model: str = Field(description="Name of the model")
    version: int = Field(description="Version of the model")


class Transform(BaseModel):
    """The mapping from points of the output to points of the upload, in coordinates that are -1 and 1 at the edges."""

    type: Literal["affine", "projective", "tps"]
    theta: list[float] = Field(
        description="affine: a 2 x 3 matrix, row by row; projective: a 3 x 3 matrix, row by row, without the last "
        "element, which is 1; tps: x and y in the upload for each of 4 x 4 control points, which are evenly spaced "
        "from -0.75 to 0.75 in the output, row by row",
        min_length=6,
        max_length=32,
    )


class Image(BaseModel):
    """A picture within a JSON response."""

    content_type: Literal["image/png"]
    width: int = Field(description="Width in pixels")
    height: int = Field(description="Height in pixels")
    data: Base64Png


class Reading(BaseModel):
    """The result for one picture."""

    label: int = Field(ge=0, le=9, description="Most likely digit")
    confidence: float = Field(ge=0, le=1, description="Probability of `label`")
    probabilities: list[float] = Field(min_length=10, max_length=10, description="Probabilities of the digits 0 to 9")
    transform: Transform
    corners: list[tuple[float, float]] = Field(
        min_length=4,
        max_length=4,
        description="[x, y] of the output's top left, top right, bottom right and bottom left corners in the upload, "
        "in pixels from its top left",
    )
    image: Image = Field(description="Picture that `view` selects")


class Rectified(Document):
    """Response of `POST /stn/rectify`."""

    results: list[Reading] = Field(min_length=1, description="One result per uploaded file, in the same order")


class Window(BaseModel):
    """An attention window, in pixels of the 28 x 28 canvas; the first pixel's centre is at 1."""

    gx: float = Field(description="x of the centre")
    gy: float = Field(description="y of the centre")
    delta: float = Field(gt=0, description="Distance between neighbouring filters")
    sigma: float = Field(gt=0, description="Standard deviation of each filter")
    gamma: float = Field(description="Intensity, without a unit")


class Sample(BaseModel):
    """One drawing, step by step."""

    frames: list[Base64Png] = Field(description="Picture after each step")
    attention: list[Window] = Field(description="Write window of each step")


class GeneratedSample(Sample):
    """A generated drawing of a digit."""

    digit: int = Field(ge=0, le=9, description="Digit that the network was asked to draw, from the query or random")


class ReconstructedSample(Sample):
    """A reconstruction of the upload."""

    reading: list[Window] = Field(description="Read window of each step")


class Drawn(Document):
    """Fields that the responses of both `/draw` endpoints share."""

    seed: int = Field(description="Seed of the noise; send it to get the same drawings again")
    steps: int = Field(description="Number of steps of each drawing")
    count: int = Field(description="Number of samples")


class Generated(Drawn):
    """Response of `GET /draw/generate`."""

    digits: list[int] = Field(description="Digit that the network was asked to draw, per sample")
    samples: list[GeneratedSample]


class Reconstructed(Drawn):
    """Response of `POST /draw/reconstruct`."""

    samples: list[ReconstructedSample]
    bound_nats: float = Field(
        description="Variational upper bound on the negative log-likelihood of the black and white picture, in nats"
    )


class Trace(BaseModel):
    """Activity of the machine's heads: one row per step, with the values of all heads side by side."""

    read_weights: list[Row] = Field(
        description="Read weightings: 128 weights per read head, one for each memory location. Priority sort has 2 "
        "read heads and 2 write heads, the other tasks have 1 of each"
    )
    write_weights: list[Row] = Field(description="Write weightings: 128 weights per write head")
    reads: list[Row] = Field(description="Vectors read from memory: 20 numbers per read head")
    adds: list[Row] = Field(description="Vectors added to memory: 20 numbers per write head")


class Outcome(Document):
    """Fields that the responses of all `/ntm` endpoints share."""

    task: str = Field(description="Name of the task")
    bit_errors: int = Field(ge=0, description="Number of output bits that differ from the expected ones")
    accuracy: float = Field(ge=0, le=1, description="Share of output bits that equal the expected ones")
    seed: int | None = Field(None, description="Seed of a random episode; send it to get the same episode again")
    episode: dict[str, Any] | None = Field(None, description="Random episode, in the format of a request's body")
    trace: Trace | None = Field(None, description="Present if `trace=true`")


class Recalled(Outcome):
    """Response of `/ntm/copy`, `/ntm/associative-recall` and `/ntm/priority-sort`."""

    output: list[list[Bit]] = Field(description="Probabilities rounded to bits, one vector per step")
    probabilities: list[Row] = Field(description="Probability that each bit is 1, one vector per step")
    expected: list[list[Bit]] = Field(description="Correct output")


class Repeated(Recalled):
    """Response of `/ntm/repeat-copy`."""

    ended: bool = Field(description="Whether the machine marked the end at the right step, and at no other")


class Predicted(Outcome):
    """Response of `/ntm/dynamic-ngrams`."""

    output: list[Bit] = Field(description="Probabilities rounded to bits")
    probabilities: list[float] = Field(description="Probability that each bit is 1, given the bits before it")
    expected: list[Bit] = Field(description="Bits of the sequence")
    cost_bits: float = Field(
        description="Cost in bits of encoding the sequence from its sixth bit on with these probabilities"
    )
    optimal_cost_bits: float = Field(description="The same cost with the Bayes-optimal estimator")


OUTCOMES: dict[str, type[Outcome]] = {
    "copy": Recalled,
    "repeat-copy": Repeated,
    "associative-recall": Recalled,
    "dynamic-ngrams": Predicted,
    "priority-sort": Recalled,
}
"""Response models by task."""

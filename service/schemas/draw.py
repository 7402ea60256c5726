"""What `/draw` is asked."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from service.tasks.seed import MAX_SEED

DrawFormat = Literal["gif", "apng", "webp", "png", "final", "json", "npz", "sse"]


class DrawingQuery(BaseModel):
    """What generation and reconstruction share."""

    model_config = ConfigDict(frozen=True)

    version: int | None = Field(None, ge=1, le=1_000_000, description="Version of the model; the latest when absent")
    steps: int = Field(32, ge=1, le=64, description="Steps of the drawing; trained for 8 to 64")
    seed: int | None = Field(None, ge=0, le=MAX_SEED, description="Random when absent; always returned")
    format: DrawFormat | None = Field(
        None,
        description="When absent, `Accept` decides: events, JSON, otherwise a GIF. WebP merges equal frames",
    )
    scale: int = Field(
        4,
        ge=1,
        le=16,
        description="Output pixels per canvas pixel; an animation, strip or document has 64 megapixels at most",
    )
    attention: bool = Field(default=True, description="Draw the attention windows")
    fps: int = Field(
        12,
        ge=1,
        le=60,
        description="Frames per second of an animation, whose last one is held a second longer; a GIF has at most 50",
    )


class GenerateQuery(DrawingQuery):
    """Query of `GET /draw/generate`."""

    count: int = Field(1, ge=1, le=64, description="Number of samples")
    digit: int | None = Field(
        None, ge=0, le=9, description="The digit to draw; when absent, a random one for each sample"
    )
    temperature: float = Field(
        1.0, ge=0, le=2, allow_inf_nan=False, description="Scale of the noise: lower is more typical"
    )


class ReconstructQuery(DrawingQuery):
    """Query of `POST /draw/reconstruct`."""

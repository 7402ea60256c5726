"""Queries of `/draw`."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from service.tasks.seed import MAX_SEED

DrawFormat = Literal["gif", "apng", "webp", "png", "final", "json", "npz", "sse"]


class DrawingQuery(BaseModel):
    """Parameters that generation and reconstruction share."""

    model_config = ConfigDict(frozen=True)

    version: int | None = Field(None, ge=1, le=1_000_000, description="Version of the model; the latest by default")
    steps: int = Field(32, ge=1, le=64, description="Number of steps; the model was trained with 8 to 64")
    seed: int | None = Field(
        None, ge=0, le=MAX_SEED, description="Seed of the noise; random by default. The response names it"
    )
    format: DrawFormat | None = Field(
        None,
        description="Format of the response. By default, `Accept` selects events or JSON; otherwise it is a GIF. WebP "
        "merges consecutive frames that are equal",
    )
    scale: int = Field(
        4,
        ge=1,
        le=16,
        description="Output pixels per canvas pixel. A response has at most 64 megapixels, all frames together, except "
        "as `sse`",
    )
    attention: bool = Field(default=True, description="Whether to draw the attention windows")
    fps: int = Field(
        12,
        ge=1,
        le=60,
        description="Frames per second of an animation; at most 50 in a GIF. The last frame is held one second longer",
    )


class GenerateQuery(DrawingQuery):
    """Query of `GET /draw/generate`."""

    count: int = Field(1, ge=1, le=64, description="Number of samples")
    digit: int | None = Field(None, ge=0, le=9, description="Digit to draw; by default, a random one for each sample")
    temperature: float = Field(
        1.0, ge=0, le=2, allow_inf_nan=False, description="Scale of the noise; lower gives more typical drawings"
    )


class ReconstructQuery(DrawingQuery):
    """Query of `POST /draw/reconstruct`."""

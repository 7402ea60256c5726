"""What `/stn/rectify` is asked."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class RectifyQuery(BaseModel):
    """Query of `POST /stn/rectify`."""

    model_config = ConfigDict(frozen=True)

    model: str = Field("stn-affine", description="Model by name; see /models")
    version: int | None = Field(None, ge=1, le=1_000_000, description="Version of the model; the latest when absent")
    size: int = Field(
        28,
        ge=28,
        le=1024,
        description="Side of the rectified picture; more than 28 is sampled from the upload itself",
    )
    view: Literal["rectified", "overlay", "strip"] = Field(
        "rectified",
        description="The digit; the upload with the sampled area outlined; or upload, outline and digit side by side. "
        "As npz, only the first",
    )
    format: Literal["png", "webp", "json", "npz"] | None = Field(None, description="When absent, `Accept` decides")

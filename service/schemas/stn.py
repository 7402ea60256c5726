"""Query of `/stn/rectify`."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class RectifyQuery(BaseModel):
    """Query of `POST /stn/rectify`."""

    model_config = ConfigDict(frozen=True)

    model: str = Field("stn-affine", description="Name of the model; see `/models`")
    version: int | None = Field(None, ge=1, le=1_000_000, description="Version of the model; the latest by default")
    size: int = Field(
        28,
        ge=28,
        le=1024,
        description="Side of the rectified picture in pixels; more than 28 is sampled from the upload at full detail",
    )
    view: Literal["rectified", "overlay", "strip"] = Field(
        "rectified",
        description="Picture to return. `rectified`: the digit; `overlay`: the upload with the sampled area outlined; "
        "`strip`: upload, overlay and digit side by side. `npz` allows only `rectified`",
    )
    format: Literal["png", "webp", "json", "npz"] | None = Field(
        None,
        description="Format of the response. By default, `Accept` selects it; otherwise it is PNG. Several files give "
        "JSON by default, or NPZ",
    )

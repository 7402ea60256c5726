"""`POST /stn/rectify`: all formats of requests and responses, and numbers that agree with each other."""

import base64
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from export.package import network_of
from models.checkpoint import load
from models.stn.network import Rectification
from models.stn.transformer import grid_generator

PNG = {"content-type": "image/png"}
MODELS = ["stn-affine", "stn-projective", "stn-tps"]
Pixels = NDArray[np.uint8]
Decode = Callable[[bytes], Pixels]


def stored(image: Image.Image, file_format: str = "png", **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def sixteen_bit(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image, np.uint16) * 257)


def transparent(image: Image.Image) -> Image.Image:
    return Image.merge("RGBA", [Image.new("L", image.size, 255)] * 3 + [image])


UPLOADS: dict[str, tuple[str, Callable[[Image.Image], Image.Image], dict[str, Any]]] = {
    "png grey": ("png", lambda image: image, {}),
    "png one bit": ("png", lambda image: image.convert("1"), {}),
    "png 16 bit": ("png", sixteen_bit, {}),
    "png colour": ("png", lambda image: image.convert("RGB"), {}),
    "png palette": ("png", lambda image: image.convert("P"), {}),
    "png alpha": ("png", transparent, {}),
    "png grey with alpha": ("png", lambda image: image.convert("LA"), {}),
    "png palette with transparency": ("png", lambda image: image.convert("P"), {"transparency": 0}),
    "jpeg grey": ("jpeg", lambda image: image, {}),
    "jpeg colour": ("jpeg", lambda image: image.convert("RGB"), {"progressive": True}),
    "jpeg CMYK": ("jpeg", lambda image: image.convert("CMYK"), {}),
    "webp": ("webp", lambda image: image.convert("RGB"), {}),
    "webp lossless with alpha": ("webp", transparent, {"lossless": True}),
    "gif": ("gif", lambda image: image, {}),
    "bmp": ("bmp", lambda image: image.convert("RGB"), {}),
    "bmp one bit": ("bmp", lambda image: image.convert("1"), {}),
    "tiff": ("tiff", lambda image: image.convert("RGB"), {"compression": "tiff_lzw"}),
    "tiff 16 bit": ("tiff", sixteen_bit, {}),
}


def rectified_by_the_network(checkpoints: Path, name: str, picture: Image.Image) -> Rectification:
    """Return the outputs of the network itself, in eager PyTorch."""
    path = checkpoints / f"{name}.safetensors"
    network = network_of(load(path), path)
    with torch.no_grad():
        answer: Rectification = network(torch.from_numpy(np.array(picture))[None, None] / 255)
    return answer


# --- what comes in ---


@pytest.mark.parametrize("name", UPLOADS)
def test_every_kind_of_file_is_read(client: httpx.Client, digit: Image.Image, name: str) -> None:
    """Grey, colour, palette, 16 bit and alpha, in all six formats."""
    file_format, convert, options = UPLOADS[name]
    upload = stored(convert(digit), file_format, **options)

    response = client.post("/stn/rectify", content=upload, headers={"content-type": f"image/{file_format}"})

    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "image/png"


@pytest.mark.parametrize("size", [(1, 1), (28, 28), (1, 300), (640, 480), (999, 1000)])
def test_every_size_is_read(client: httpx.Client, decoded: Decode, size: tuple[int, int]) -> None:
    """From one pixel to nearly the limit, square or not."""
    upload = stored(Image.new("L", size, 128))

    response = client.post("/stn/rectify", content=upload, headers=PNG)

    assert decoded(response.content).shape == (28, 28)


def test_exif_orientation_is_honoured(client: httpx.Client, digit: Image.Image) -> None:
    """A picture that is stored rotated, with its orientation in EXIF, gives the same response as the upright one."""
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    lying = stored(digit.transpose(Image.Transpose.ROTATE_90), exif=exif)

    upright, turned = (client.post("/stn/rectify", content=data, headers=PNG) for data in (stored(digit), lying))

    assert turned.content == upright.content


def test_first_frame_of_an_animation_counts(client: httpx.Client, digit: Image.Image) -> None:
    """What follows the first frame of a GIF is ignored."""
    alone = stored(digit, "gif")
    followed = stored(digit, "gif", save_all=True, append_images=[Image.new("L", digit.size, 77)])

    first, second = (
        client.post("/stn/rectify", content=data, headers={"content-type": "image/gif"}) for data in (alone, followed)
    )

    assert first.content == second.content


def test_form_of_one_file_is_answered_as_the_raw_body(client: httpx.Client, digit_png: bytes) -> None:
    """Both ways of sending a picture give the same bytes."""
    raw = client.post("/stn/rectify", content=digit_png, headers=PNG)
    form = client.post("/stn/rectify", files={"image": ("seven.png", digit_png, "image/png")})

    assert form.content == raw.content


def test_several_files_are_answered_as_json_in_their_order(client: httpx.Client, digit: Image.Image) -> None:
    """Each result is the same as for its file alone; a picture that `Accept` prefers is not possible."""
    turned = [stored(digit.rotate(angle)) for angle in (0, 90, 180, 270)]
    files = [("image", ("same name", data, "image/png")) for data in turned]

    together = client.post("/stn/rectify", files=files, headers={"accept": "image/png"})
    alone = [client.post("/stn/rectify?format=json", content=data, headers=PNG).json() for data in turned]

    assert together.headers["content-type"] == "application/json"
    results = together.json()["results"]
    assert len(results) == 4
    for result, single in zip(results, alone, strict=True):
        expected = single["results"][0]
        np.testing.assert_allclose(result["probabilities"], expected["probabilities"], atol=1e-4)
        np.testing.assert_allclose(result["transform"]["theta"], expected["transform"]["theta"], atol=1e-4)
    assert len({tuple(result["transform"]["theta"]) for result in results}) == 4


# --- what goes out ---


@pytest.mark.parametrize("name", MODELS)
def test_answer_is_what_the_network_says(
    client: httpx.Client, checkpoints: Path, digit: Image.Image, digit_png: bytes, decoded: Decode, name: str
) -> None:
    """A picture of the network's input size is not resampled, and neither is its output."""
    expected = rectified_by_the_network(checkpoints, name, digit)

    result = client.post(f"/stn/rectify?model={name}&format=json", content=digit_png, headers=PNG).json()["results"][0]

    np.testing.assert_allclose(result["probabilities"], torch.softmax(expected.logits[0], -1).numpy(), atol=1e-4)
    np.testing.assert_allclose(result["transform"]["theta"], expected.theta[0].numpy(), atol=1e-4)
    image = decoded(base64.b64decode(result["image"]["data"]))
    np.testing.assert_allclose(image, 255 * expected.rectified[0, 0].numpy(), atol=1.01)


@pytest.mark.parametrize("name", MODELS)
def test_json_has_the_contracts_shape(client: httpx.Client, digit_png: bytes, decoded: Decode, name: str) -> None:
    """Every member of the contract is there, and the members agree."""
    document = client.post(f"/stn/rectify?model={name}&format=json&size=40", content=digit_png, headers=PNG).json()

    assert document.keys() == {"model", "version", "results"}
    assert (document["model"], document["version"]) == (name, 1)
    (result,) = document["results"]
    assert result.keys() == {"label", "confidence", "probabilities", "transform", "corners", "image"}
    probabilities = result["probabilities"]
    assert len(probabilities) == 10
    assert sum(probabilities) == pytest.approx(1, abs=1e-5)
    assert result["label"] == int(np.argmax(probabilities))
    assert result["confidence"] == max(probabilities)
    kind = name.removeprefix("stn-")
    assert result["transform"].keys() == {"type", "theta"}
    assert result["transform"]["type"] == kind
    assert len(result["transform"]["theta"]) == {"affine": 6, "projective": 8, "tps": 32}[kind]
    assert np.shape(result["corners"]) == (4, 2)
    assert result["image"].keys() == {"content_type", "width", "height", "data"}
    assert (result["image"]["content_type"], result["image"]["width"], result["image"]["height"]) == (
        "image/png", 40, 40,
    )  # fmt: skip
    assert decoded(base64.b64decode(result["image"]["data"])).shape == (40, 40)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("size", [(64, 64), (90, 40), (50, 200)])
def test_theta_takes_the_outputs_corners_to_the_corners_in_the_upload(
    client: httpx.Client, digit: Image.Image, name: str, size: tuple[int, int]
) -> None:
    """Theta is normalised to the upload as it was sent; corners are its pixels, clockwise from the top left."""
    width, height = size
    upload = stored(digit.resize(size))

    result = client.post(f"/stn/rectify?model={name}&format=json", content=upload, headers=PNG).json()["results"][0]

    theta = np.array(result["transform"]["theta"])
    target = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
    if name == "stn-affine":
        source = target @ theta.reshape(2, 3)[:, :2].T + theta.reshape(2, 3)[:, 2]
    elif name == "stn-projective":
        x, y, w = np.append(theta, 1).reshape(3, 3) @ np.append(target, np.ones((4, 1)), axis=1).T
        source = np.stack([x / w, y / w], axis=1)
    else:
        source = grid_generator("tps")(torch.tensor(theta)[None].float(), torch.tensor(target).float())[0].numpy()
    pixels = (source + 1) / 2 * (width, height)
    np.testing.assert_allclose(result["corners"], pixels, atol=1e-3 * max(size))
    assert np.abs(source - target * (max(size) / np.array(size))).max() > 1e-3  # the transformation does something


def test_larger_answer_shows_what_the_small_one_shows(client: httpx.Client, decoded: Decode) -> None:
    """56 x 56, sampled from the upload itself and then halved, is close to the network's own 28 x 28."""
    page = Image.new("L", (448, 448))
    ImageDraw.Draw(page).line([(112, 112), (322, 140), (182, 364)], fill=230, width=60, joint="curve")
    upload = stored(page.filter(ImageFilter.GaussianBlur(16)))

    small, large = (
        decoded(client.post(f"/stn/rectify?size={size}", content=upload, headers=PNG).content).astype(float)
        for size in (28, 56)
    )

    halved = large.reshape(28, 2, 28, 2).mean(axis=(1, 3))
    assert np.abs(halved - small).mean() < 4
    assert small.std() > 20


def test_larger_answer_has_the_uploads_own_detail(client: httpx.Client, decoded: Decode) -> None:
    """Stripes as wide as a pixel of what the network sees are an even grey at 28 x 28, and stripes at 448 x 448."""
    striped = np.tile(np.array([0, 0, 0, 255, 255, 255, 255], np.uint8), (448, 64))
    striped[:35, :35], striped[-35:, -35:] = 0, 255  # black and white, so that contrast is not stretched
    upload = stored(Image.fromarray(striped))

    small, large = (
        decoded(client.post(f"/stn/rectify?size={size}", content=upload, headers=PNG).content).astype(float)
        for size in (28, 448)
    )

    assert small[10:18, 10:18].std() < 2
    assert large[160:288, 160:288].std() > 80


def test_answer_without_a_format_goes_by_accept(client: httpx.Client, digit_png: bytes) -> None:
    """`Accept` decides, or PNG is the default; the query takes precedence over both."""
    for accept, query, expected in [
        (None, "", "image/png"),
        ("*/*", "", "image/png"),
        ("text/html", "", "image/png"),
        ("application/json", "", "application/json"),
        ("image/webp", "", "image/webp"),
        ("application/json;q=0.5, image/webp;q=0.9", "", "image/webp"),
        ("application/json;q=0, image/png;q=0.1", "", "image/png"),
        ("application/x-npz", "", "application/x-npz"),
        ("application/json", "?format=png", "image/png"),
    ]:
        headers = {**PNG, **({"accept": accept} if accept else {})}
        response = client.post(f"/stn/rectify{query}", content=digit_png, headers=headers)
        assert response.headers["content-type"] == expected, accept


def test_picture_carries_label_and_confidence(client: httpx.Client, digit_png: bytes) -> None:
    """The headers of a picture say what the JSON says."""
    result = client.post("/stn/rectify?format=json", content=digit_png, headers=PNG).json()["results"][0]

    for asked in ("format=png", "format=webp", "view=strip", "view=overlay", "size=100"):
        response = client.post(f"/stn/rectify?{asked}", content=digit_png, headers=PNG)
        assert response.headers["x-label"] == str(result["label"])
        assert float(response.headers["x-confidence"]) == pytest.approx(result["confidence"], abs=1e-4)


@pytest.mark.parametrize("view", ["rectified", "overlay", "strip"])
def test_webp_shows_the_same_pixels_as_png(client: httpx.Client, digit_png: bytes, decoded: Decode, view: str) -> None:
    """WebP is sent without loss."""
    png, webp = (
        Image.open(
            BytesIO(client.post(f"/stn/rectify?view={view}&format={name}", content=digit_png, headers=PNG).content)
        )
        for name in ("png", "webp")
    )

    assert (png.format, webp.format) == ("PNG", "WEBP")
    np.testing.assert_array_equal(np.asarray(webp.convert("RGB")), np.asarray(png.convert("RGB")))


def test_overlay_is_the_upload_with_the_outline_in_red(client: httpx.Client, decoded: Decode) -> None:
    """A colour picture is unchanged, except for a red line."""
    upload = np.zeros((120, 80, 3), np.uint8)
    upload[..., 2] = 200

    response = client.post("/stn/rectify?view=overlay", content=stored(Image.fromarray(upload)), headers=PNG)

    seen = decoded(response.content)
    assert seen.shape == upload.shape
    is_marked = (seen != upload).any(axis=2)
    assert 0.001 < is_marked.mean() < 0.2
    assert (seen[..., 0][is_marked] > 0).all()
    assert (seen[..., 1] == 0).all()


def test_strip_shows_upload_overlay_and_answer_side_by_side(
    client: httpx.Client, digit_png: bytes, decoded: Decode
) -> None:
    """Three panels are in a row, as high as the response's size, but at least 256 pixels."""
    usual, large = (
        decoded(client.post(f"/stn/rectify?view=strip&size={size}", content=digit_png, headers=PNG).content)
        for size in (28, 400)
    )

    assert usual.ndim == 3
    assert 3 * 256 < usual.shape[1] < 3.3 * 256 < 3 * 400 < large.shape[1] < 3.3 * 400
    assert (large.shape[0] - usual.shape[0]) == 400 - 256


def test_npz_holds_what_the_json_says(client: httpx.Client, digit: Image.Image) -> None:
    """The arrays have one row per file."""
    files = [("image", ("a", stored(digit.rotate(angle)), "image/png")) for angle in (0, 120)]

    results = client.post("/stn/rectify?size=32", files=files).json()["results"]
    response = client.post("/stn/rectify?size=32&format=npz", files=files)

    assert response.headers["content-type"] == "application/x-npz"
    with np.load(BytesIO(response.content), allow_pickle=False) as arrays:
        assert arrays["images"].shape == (2, 32, 32)
        assert arrays["labels"].tolist() == [result["label"] for result in results]
        theta = [result["transform"]["theta"] for result in results]
        np.testing.assert_allclose(arrays["theta"], theta, atol=1e-3)
        for name in ("probabilities", "corners"):
            np.testing.assert_allclose(arrays[name], [result[name] for result in results], atol=1e-3)


@pytest.mark.parametrize("asked", ["format=png", "format=webp", "format=json", "format=npz", "view=strip", "size=200"])
def test_same_upload_gives_the_same_bytes(client: httpx.Client, digit_png: bytes, asked: str) -> None:
    """Nothing in the response depends on when it was requested."""
    first, second = (client.post(f"/stn/rectify?{asked}", content=digit_png, headers=PNG).content for _ in range(2))

    assert first == second

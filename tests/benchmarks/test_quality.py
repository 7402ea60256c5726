"""Measures of an artifact are those of its network, on pictures and episodes as the service makes them."""

import io
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import quality
from benchmarks.served import BATCH
from export.package import network_of
from models.checkpoint import load
from models.classifier import READERS, CleanClassifier
from models.draw.evaluate import BOUND_STEPS, STEPS
from models.draw.network import NO_CLASS, Draw, condition
from models.draw.objective import binarise, bound
from models.mnist import Digits
from models.ntm.network import NeuralTuringMachine
from models.ntm.tasks import TASKS
from models.stn.evaluate import UPLOADS, Batch, Score
from models.stn.network import StnNetwork
from models.stn.transformer import ProjectiveGrid
from service.engine.request import Request
from service.errors import ArtifactRejected
from service.tasks import draw
from tests.conftest import KINDS

MORE_THAN_A_BATCH = BATCH + 6


def digits(size: int) -> Digits:
    """White boxes on black, with unrelated labels."""
    random = np.random.default_rng(0)
    images = np.zeros((size, 28, 28), np.uint8)
    images[:, 6:22, 8:20] = random.integers(100, 256, (size, 16, 12))
    return Digits(images, (np.arange(size) % 10).astype(np.uint8))


def reader() -> CleanClassifier:
    torch.manual_seed(0)
    return CleanClassifier().eval()


def network_at(checkpoint: Path) -> nn.Module:
    """What the artifact of the same name was exported from."""
    return network_of(load(checkpoint), checkpoint)


def smooth_pictures(size: int, height: int, width: int) -> torch.Tensor:
    """Blurred noise with 8-bit greys, in 0..1."""
    noise = torch.rand(size, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    return (F.interpolate(noise, (height, width), mode="bicubic").clamp(0, 1) * 255).round() / 255


def shown(pictures: Tensor) -> Batch:
    """A batch with these pictures; the other fields are placeholders that a rectifier ignores."""
    size = len(pictures)
    digits, labels = torch.zeros(size, 1, 28, 28, dtype=torch.uint8), torch.zeros(size, dtype=torch.long)
    return Batch((pictures * 255).round().byte(), digits, labels, torch.zeros(size, 16, 2), torch.zeros(size, 2))


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_served_graph_and_network_agree_where_framing_is_the_identity(
    repository: Path, checkpoints: Path, kind: str
) -> None:
    """Pictures of the network's own size: equal probabilities, and the nearest whole grey levels."""
    network = network_at(checkpoints / f"stn-{kind}.safetensors")
    assert isinstance(network, StnNetwork)
    pictures = smooth_pictures(MORE_THAN_A_BATCH, network.config.side, network.config.side)

    found = quality.rectifier(quality.served(repository / f"stn-{kind}" / "1", "stn"), quality.PNG)(shown(pictures))

    expected = network(pictures)
    assert found.logits is not None
    torch.testing.assert_close(found.logits.exp(), torch.softmax(expected.logits, dim=1), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.rectified, expected.rectified, atol=0.51 / 255, rtol=0)


def test_photographs_are_seen_as_a_jpeg_leaves_them(repository: Path) -> None:
    """In any shape, and nearly as a PNG would leave them."""
    model = quality.served(repository / "stn-affine" / "1", "stn")
    pictures = smooth_pictures(3, 120, 160)

    exact, lossy = (quality.rectifier(model, file_type)(shown(pictures)) for file_type in (quality.PNG, quality.JPEG))

    assert not exact.rectified.equal(lossy.rectified)
    torch.testing.assert_close(exact.rectified, lossy.rectified, atol=0.1, rtol=0)


def test_stn_table_has_every_distortion_beside_the_papers_errors(repository: Path) -> None:
    """The same for the same seed; all of this model's values are shares in percent."""
    model = quality.served(repository / "stn-affine" / "1", "stn")

    readers = {"plain": reader(), "lenet": CleanClassifier(READERS["lenet"]).eval()}
    table, again = (quality.stn_table(model, digits(8), readers, seed=1, draws=1) for _ in range(2))

    assert table == again
    for row in (
        "stn-affine",
        *("readers of clean digits", "readers of clean digits, plain", "readers of clean digits, lenet"),
        *("the same, by the best fit", "the same, by the best fit, plain", "the same, by the best fit, lenet"),
        "pixels, root mean square",
    ):
        assert list(table[row]) == list(UPLOADS)
        assert all(0 <= value <= 100 for value in table[row].values())
    mean, *each = (table[f"readers of clean digits{which}"]["P"] for which in ("", ", plain", ", lenet"))
    assert mean == pytest.approx(sum(each) / 2)
    assert table["the paper's ST-CNN TPS"] == {"R": 0.7, "RTS": 0.5, "P": 0.8, "E": 1.1}
    assert all(set(row) <= set(UPLOADS) for row in table.values())


def test_stn_table_has_every_score_in_its_row(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Photographs alone are stored as JPEG, and the best fit is one of the model's own family."""
    model = quality.served(repository / "stn-projective" / "1", "stn")
    types: list[str] = []
    grids: list[object] = []
    monkeypatch.setattr(quality, "rectifier", lambda _, content_type: types.append(content_type))
    monkeypatch.setattr(quality, "best_fit", grids.append)
    monkeypatch.setattr(quality, "score", lambda *_: [Score(12.0, 0.04, (3.0, 5.0)), Score(math.nan, 0.01, (1.0, 2.0))])

    table = quality.stn_table(model, digits(2), {"plain": reader(), "lenet": reader()}, seed=1, draws=1)

    assert types == [quality.JPEG if name == "photograph" else quality.PNG for name in UPLOADS]
    assert [type(grid) for grid in grids] == [ProjectiveGrid]
    assert {name: row["P"] for name, row in table.items() if not name.startswith("the paper's")} == pytest.approx(
        {
            "stn-projective": 12.0,
            "readers of clean digits": 4.0,
            "readers of clean digits, plain": 3.0,
            "readers of clean digits, lenet": 5.0,
            "the same, by the best fit": 1.5,
            "the same, by the best fit, plain": 1.0,
            "the same, by the best fit, lenet": 2.0,
            "pixels, root mean square": 20.0,
        }
    )


def test_stn_table_of_several_draws_is_their_mean(repository: Path) -> None:
    """The first has the given seed, and the others have the following ones."""
    model, readers = quality.served(repository / "stn-affine" / "1", "stn"), {"plain": reader()}

    def pixels(*, seed: int, draws: int) -> float:
        table = quality.stn_table(model, digits(8), readers, seed=seed, draws=draws)
        return table["pixels, root mean square"]["P"] ** 2

    first, second, both = pixels(seed=1, draws=1), pixels(seed=2, draws=1), pixels(seed=1, draws=2)
    assert first != second
    assert both == pytest.approx((first + second) / 2)


def test_model_of_another_family_is_refused(repository: Path) -> None:
    """Before anything is computed, and by name."""
    with pytest.raises(ArtifactRejected, match="of the family draw, not stn"):
        quality.served(repository / "draw" / "1", "stn")


def test_row_does_not_depend_on_the_batches_that_a_request_is_cut_into(repository: Path) -> None:
    """The last row of a request that takes two batches is drawn as it is alone, from its own first step."""
    model = quality.served(repository / "draw" / "1", "draw")
    inputs = quality.drawing_inputs(model, [3] * MORE_THAN_A_BATCH, 5, seed=1)
    alone = {name: np.ascontiguousarray(array[:, -1:]) for name, array in inputs.items()}

    def drawn(given: dict[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
        return quality.answered(model.graphs["generate"], Request(given, rows, 5, math.inf)).outputs

    together, single = drawn(inputs, MORE_THAN_A_BATCH), drawn(alone, 1)
    np.testing.assert_allclose(together["write_windows"][:, -1:], single["write_windows"], atol=1e-4)
    np.testing.assert_allclose(together["pictures"][:, -1:].astype(int), single["pictures"], atol=1)


def test_samples_as_served_are_the_services_own(repository: Path) -> None:
    """The noise and the digits are those of a request that asks for no digit."""
    model = quality.served(repository / "draw" / "1", "draw")
    told = [quality.DIGITS_TOLD["as served"](7, sample) for sample in range(12)]

    found = quality.drawing_inputs(model, told, 8, seed=7)

    expected = draw.generation(
        model.manifest, seed=7, count=12, steps=8, digit=None, temperature=1.0, deadline=math.inf
    ).inputs
    assert set(found) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)


@torch.no_grad()
def test_served_bound_is_the_networks(repository: Path, checkpoints: Path) -> None:
    """It is the mean of equation 12 over all digits, with binarisation and noise decided by the seed."""
    network = network_at(checkpoints / "draw.safetensors")
    assert isinstance(network, Draw)
    model = quality.served(repository / "draw" / "1", "draw")
    given, steps, size = digits(MORE_THAN_A_BATCH), 3, network.config.latent_size

    found = quality.bound_nats(model, given, steps, seed=5)

    binary = binarise(torch.tensor(given.images) / 255, torch.Generator().manual_seed(5))
    noises = [draw.noise(5 + row // BATCH * BATCH, row % BATCH, steps, size) for row in range(MORE_THAN_A_BATCH)]
    told = condition(torch.full((MORE_THAN_A_BATCH,), NO_CLASS), steps)
    seen = network.reconstruct(binary, told, torch.from_numpy(np.stack(noises, axis=1)))
    assert found == pytest.approx(bound(binary, seen).nats.mean().item(), rel=1e-5)


def test_draw_table_tells_what_is_served_from_what_is_not(repository: Path, tmp_path: Path) -> None:
    """One row per condition, one column per number of steps, and a film strip (sample x step) for each."""
    model = quality.served(repository / "draw" / "1", "draw")

    table = quality.draw_table(model, digits(3), reader(), samples=12, seed=1, out=tmp_path / "sheets")

    assert set(table) == {
        *(f"recognisable %, {name}" for name in quality.DIGITS_TOLD),
        "right digit %, as served",
        "right digit %, digit asked for",
        "bound in nats, class withheld",
        "the paper's bound in nats",
    }
    assert list(table["recognisable %, class withheld"]) == [str(steps) for steps in STEPS]
    assert list(table["bound in nats, class withheld"]) == [str(steps) for steps in BOUND_STEPS]
    assert len(list((tmp_path / "sheets").iterdir())) == len(STEPS) * len(quality.DIGITS_TOLD)
    sheet = np.asarray(Image.open(tmp_path / "sheets" / "draw-digit-asked-for-8-steps.png"))
    side = 28 * quality.SHEET_SCALE + 1
    assert sheet.shape == (10 * side - 1, 8 * side - 1, 3)
    assert (sheet == (255, 0, 0)).all(axis=2).any()
    assert not np.array_equal(sheet[: side - 1], sheet[side : 2 * side - 1])


def test_draw_table_counts_what_is_read_of_the_last_pictures(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shares are in percent: here every digit is classified correctly, and all but the zeros with certainty."""
    model = quality.served(repository / "draw" / "1", "draw")

    def drawn(_: object, request: Request) -> Request:
        """Return black pictures, except for the last, whose grey level encodes the digit."""
        digits_told = request.inputs["condition"][0, :, : draw.CLASSES].argmax(axis=1)
        pictures = np.zeros((request.steps, request.rows, 28, 28), np.uint8)
        pictures[-1] = digits_told[:, None, None]
        request.outputs["pictures"] = pictures
        return request

    def read(pictures: Tensor, _: object) -> Tensor:
        labels = (255 * pictures[:, 0, 0]).round().long()
        surety = torch.where(labels == 0, 0.5, 1.0).unsqueeze(1)
        return surety * F.one_hot(labels, 10)

    monkeypatch.setattr(quality, "answered", drawn)
    monkeypatch.setattr(quality, "read", read)
    monkeypatch.setattr(quality, "bound_nats", lambda _model, _digits, steps, *, seed: 100.0 * seed + steps)

    table = quality.draw_table(model, digits(3), reader(), samples=20, seed=7, out=None)

    zeros = [draw.drawn_digit(7, sample) for sample in range(20)].count(0)
    assert table["recognisable %, as served"]["16"] == pytest.approx(100 - 5 * zeros)
    assert table["recognisable %, digit asked for"]["16"] == pytest.approx(90)
    assert table["right digit %, as served"]["16"] == table["right digit %, digit asked for"]["16"] == 100
    assert table["bound in nats, class withheld"] == {str(steps): 700.0 + steps for steps in BOUND_STEPS}
    assert [quality.DIGITS_TOLD["digit asked for"](7, sample) for sample in (0, 9, 13)] == [0, 9, 3]


@pytest.mark.parametrize("task", TASKS)
@torch.no_grad()
def test_ntm_table_is_what_the_network_does_on_the_services_episodes(
    repository: Path, checkpoints: Path, task: str
) -> None:
    """At all of the trainer's sizes: wrong bits, or what n-grams cost."""
    network = network_at(checkpoints / f"ntm-{task}.safetensors")
    assert isinstance(network, NeuralTuringMachine)
    model = quality.served(repository / f"ntm-{task}" / "1", "ntm")

    table = quality.ntm_table(model, sequences=5, seed=2)

    all_sizes = TASKS[task].evaluation
    assert len(table) == len(all_sizes) * len(quality.NTM_MEASURES.get(task, ("bit_errors",)))
    sizes = "_".join(f"{name}_{size}" for name, size in all_sizes[0].items())
    episodes = quality.random_episodes(model, all_sizes[0], 5, seed=2)
    logits = network.unroll(torch.from_numpy(np.stack([episode.inputs for episode in episodes], axis=1)))
    logits = logits[episodes[0].answer_begins :]
    expected = torch.from_numpy(np.stack([episode.expected for episode in episodes], axis=1))
    if task == "dynamic-ngrams":
        nats = F.binary_cross_entropy_with_logits(logits[5:], expected[5:].float(), reduction="sum").item()
        assert table[f"cost_bits_{sizes}"] == pytest.approx(nats / math.log(2) / 5, rel=1e-4)
        assert 0 < table[f"optimal_cost_bits_{sizes}"] < table[f"cost_bits_{sizes}"]
        return
    wrong = (logits > 0) != expected
    if task == "repeat-copy":
        wrong, end = wrong[:-1, :, :8], wrong[:, :, 8]
        assert table[f"ended_{sizes}"] == 1 - end.any(dim=0).float().mean()
    assert table[f"bit_errors_{sizes}"] == pytest.approx(wrong.sum().item() / 5)
    assert wrong.any()


def test_random_episodes_are_those_that_the_service_draws(repository: Path) -> None:
    """One after the other, each with the next seed."""
    model = quality.served(repository / "ntm-copy" / "1", "ntm")

    episodes = quality.random_episodes(model, {"length": 5}, 3, seed=7)

    for seed, episode in zip((7, 8, 9), episodes, strict=True):
        (alone,) = quality.random_episodes(model, {"length": 5}, 1, seed=seed)
        np.testing.assert_array_equal(episode.inputs, alone.inputs)
    assert not np.array_equal(episodes[0].inputs, episodes[1].inputs)
    with pytest.raises(ValidationError, match="vectors"):
        quality.random_episodes(model, {"vectors": 5}, 1, seed=7)


@pytest.mark.parametrize("task", TASKS)
def test_memory_is_drawn_inside_and_outside_of_the_training(repository: Path, tmp_path: Path, task: str) -> None:
    """One figure within the sizes that a machine is trained on, one beyond at least one of them."""
    largest = [high for _, high in TASKS[task].training.values()]
    inside, outside = (list(sizes.values()) for sizes in quality.FIGURE_SIZES[task])
    model = quality.served(repository / f"ntm-{task}" / "1", "ntm")

    files = quality.ntm_figures(model, tmp_path, seed=1)

    assert all(size <= high for size, high in zip(inside, largest, strict=True))
    assert any(size > high for size, high in zip(outside, largest, strict=True))
    figures = [Image.open(io.BytesIO(file.read_bytes())) for file in files]
    assert [figure.format for figure in figures] == ["PNG", "PNG"]
    assert figures[0].tobytes() != figures[1].tobytes()


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_checkpoint_is_exported_for_the_occasion(repository: Path, checkpoints: Path) -> None:
    """The model that is measured has those weights."""
    pictures = smooth_pictures(2, 28, 28)

    found, expected = (
        quality.rectifier(quality.served(path, "stn"), quality.PNG)(shown(pictures))
        for path in (checkpoints / "stn-affine.safetensors", repository / "stn-affine" / "1")
    )

    torch.testing.assert_close(found.logits, expected.logits)


def test_table_is_text_in_columns() -> None:
    """Values that a row lacks are left blank."""
    text = quality.as_text("error %", {"ours": {"R": 0.5, "P": 12.5}, "the paper's": {"P": 0.8}})

    assert text.splitlines() == [
        "error %              R          P",
        "ours              0.50      12.50",
        "the paper's                  0.80",
    ]

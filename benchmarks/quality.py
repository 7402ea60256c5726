"""Quality of a model as it is served: the papers' measures and figures, computed with an artifact's graphs.

Everything takes the path of a client's request, except for HTTP and the engine: the service's own code decodes and
frames files, generates noise and episodes, draws figures and runs the graph. The network itself is not needed, so
that an artifact can be measured long after its architecture has changed.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import cv2
import numpy as np
import torch
from tqdm import tqdm

from benchmarks.served import BATCH, opened
from export.manifest import MANIFEST_FILE, Array
from export.package import export
from models.checkpoint import weights_file
from models.classifier import JUDGE, CleanClassifier, classifier_in, classifiers
from models.draw.evaluate import BOUND_STEPS, PAPER_BOUND, STEPS, agreement, certain_share, read
from models.draw.objective import binarise
from models.mnist import Digits
from models.ntm.tasks import TASKS as TRAINED
from models.stn.evaluate import PAPER_ERRORS, UPLOADS, Batch, Reading, Rectifier, Score, best_fit, score, uploads
from models.stn.transformer import grid_generator
from service.engine.request import Request
from service.errors import ArtifactRejected
from service.media.decoding import decode
from service.media.encoding import encode
from service.media.figures import memory_figure
from service.media.montage import sheet
from service.media.picture import Picture, Pixels
from service.runtime.base import compute
from service.runtime.repository import LoadedGraph, LoadedModel
from service.schemas.ntm import TASKS
from service.tasks import draw, ntm, stn

Table: TypeAlias = Mapping[str, Mapping[str, float]]
"""Table as a mapping from row name to column name to value; rows may lack columns."""

NO_DEADLINE = math.inf
PNG, JPEG = "image/png", "image/jpeg"
JPEG_QUALITY = 90

DIGITS_TOLD: Mapping[str, Callable[[int, int], int | None]] = {
    "as served": draw.drawn_digit,
    "digit asked for": lambda _, sample: sample % draw.CLASSES,
    "class withheld": lambda *_: None,
}
"""Ways to choose the class that the network is given, each a function of seed and sample number.

"as served": the digit that the service draws at random when none is asked for. "digit asked for": every digit in turn.
"class withheld": no class, which the service never does.
"""
SHEET_ROWS, SHEET_SCALE = 10, 3

NTM_MEASURES: Mapping[str, Sequence[str]] = {
    "repeat-copy": ("bit_errors", "ended"),
    "dynamic-ngrams": ("cost_bits", "optimal_cost_bits"),
}
"""Fields of the service's report that are averaged, by task; for all other tasks only `bit_errors`."""
FIGURE_SIZES: Mapping[str, Sequence[Mapping[str, int]]] = {
    "copy": ({"length": 20}, {"length": 120}),
    "repeat-copy": ({"length": 10, "repeats": 10}, {"length": 10, "repeats": 32}),
    "associative-recall": ({"items": 6}, {"items": 20}),
    "dynamic-ngrams": ({"length": 200}, {"length": 1000}),
    "priority-sort": ({"length": 20}, {"length": 32}),
}
"""Sizes of the figures' episodes by task, within and far beyond the training range; named as in `GET /ntm/{task}`."""


def as_text(title: str, table: Table) -> str:
    """Format a table with columns of equal width; missing values stay blank."""
    columns = list(dict.fromkeys(column for row in table.values() for column in row))
    width = max(len(name) for name in (title, *table))
    lines = [[f"{title:{width}}", *(f"{column:>10}" for column in columns)]]
    for name, row in table.items():
        values = (f"{row[column]:10.2f}" if column in row else " " * 10 for column in columns)
        lines.append([f"{name:{width}}", *values])
    return "\n".join(" ".join(line) for line in lines)


def served(path: Path, family: str) -> LoadedModel:
    """Load the model in a folder `NAME/VERSION` as the service does.

    `path` may also be a run or a checkpoint, which is first exported to a temporary folder.

    Raises:
        ArtifactRejected: there is no model that can be served, or it is of another family.
    """
    with TemporaryDirectory() as repository:
        is_artifact = (path / MANIFEST_FILE).exists()
        folder = path if is_artifact else export(weights_file(path), Path(repository), version=1)
        model = opened(folder)
    if model.manifest.family != family:
        raise ArtifactRejected(f"{path} holds a model of the family {model.manifest.family}, not {family}")
    return model


def judges(data: Path, runs: Path) -> Mapping[str, CleanClassifier]:
    """Return all judges by name: classifiers of rectified digits that take no part in training."""
    torch.set_num_threads(1)
    return classifiers(data, runs, JUDGE)


def judge(data: Path, runs: Path) -> CleanClassifier:
    """Return the judge of drawings: the plainest of the classifiers."""
    torch.set_num_threads(1)
    return classifier_in(data, runs, JUDGE, "plain")


def answered(graph: LoadedGraph, request: Request) -> Request:
    """Compute the outputs that a request wants, in batches of the service's size, and return the request with them."""
    signature = graph.runtime.signature
    parts = []
    for begin in range(0, request.rows, BATCH):
        rows = slice(begin, min(begin + BATCH, request.rows))
        given = {
            spec.name: request.inputs[spec.name][:, rows] if spec.is_per_step else request.inputs[spec.name][rows]
            for spec in signature.inputs
        }
        state = {name: np.repeat(row[None], rows.stop - rows.start, axis=0) for name, row in graph.initial.items()}
        parts.append(compute(graph.runtime, given | state))
    for spec in signature.outputs:
        if request.wanted is None or spec.name in request.wanted:
            request.outputs[spec.name] = np.concatenate([part[spec.name] for part in parts], axis=int(spec.is_per_step))
    return request


def stn_table(
    model: LoadedModel, digits: Digits, readers: Mapping[str, CleanClassifier], *, seed: int, draws: int
) -> Table:
    """Return errors in % by distortion: this model's, each reader's on what it rectifies, and the paper's.

    For comparison there are the readers' errors with the best fit, which uses the digit's true position instead of
    finding it; it gets photographs before they are stored as JPEG. Every digit is distorted `draws` times, with seeds
    from `seed` on.
    """
    judging = [*readers.values()]
    fit = best_fit(grid_generator(model.manifest.config["kind"]))
    scores, fitted = {}, {}
    for name, distortion in tqdm(UPLOADS.items(), disable=None, leave=False):
        rectify = rectifier(model, JPEG if name == "photograph" else PNG)
        batches = chain.from_iterable(uploads(distortion, digits, seed=seed + draw) for draw in range(draws))
        scores[name], fitted[name] = score([rectify, fit], batches, judging)
    return {
        model.manifest.name: {name: found.error_percent for name, found in scores.items()},
        **_read_by("readers of clean digits", readers, scores),
        **_read_by("the same, by the best fit", readers, fitted),
        "pixels, root mean square": {name: 100 * math.sqrt(found.pixel_error) for name, found in scores.items()},
        **{f"the paper's {network}": errors for network, errors in PAPER_ERRORS.items()},
    }


def _read_by(title: str, readers: Iterable[str], scores: Mapping[str, Score]) -> Table:
    """Return the readers' errors in %: their mean, and each reader's by name."""
    mean = {title: {name: fmean(found.readers_error_percent) for name, found in scores.items()}}
    return mean | {
        f"{title}, {reader}": {name: found.readers_error_percent[index] for name, found in scores.items()}
        for index, reader in enumerate(readers)
    }


def rectifier(model: LoadedModel, content_type: str) -> Rectifier:
    """Return a rectifier that processes pictures as if uploaded in files of a type, PNG or JPEG."""

    def rectify(batch: Batch) -> Reading:
        greys = batch.pictures[:, 0].numpy()
        squares = [stn.network_input(_uploaded(grey, content_type), model.manifest) for grey in greys]
        outputs = answered(model.graphs["rectify"], stn.request(squares, NO_DEADLINE)).outputs
        rectified = torch.from_numpy(outputs["rectified"]).unsqueeze(1) / 255
        return Reading(rectified, torch.from_numpy(outputs["probabilities"]).log())

    return rectify


def draw_table(
    model: LoadedModel, digits: Digits, reader: CleanClassifier, *, samples: int, seed: int, out: Path | None
) -> Table:
    """Return how a classifier of clean digits reads samples, in %, and the bound on `digits` in nats, by step count.

    Film strips of the first samples are written to the folder `out`, one row per sample; where digits are asked for,
    this is one row per digit.
    """
    table: dict[str, dict[str, float]] = {}
    for steps in tqdm(STEPS, disable=None, leave=False):
        for name, digit_of in DIGITS_TOLD.items():
            classes = [digit_of(seed, sample) for sample in range(samples)]
            request = Request(drawing_inputs(model, classes, steps, seed), samples, steps, NO_DEADLINE)
            answered(model.graphs["generate"], request)
            probabilities = read(torch.from_numpy(request.outputs["pictures"][-1]) / 255, reader)
            table.setdefault(f"recognisable %, {name}", {})[str(steps)] = 100 * certain_share(probabilities)
            labels = [digit for digit in classes if digit is not None]
            if labels:
                right = 100 * agreement(probabilities, torch.tensor(labels))
                table.setdefault(f"right digit %, {name}", {})[str(steps)] = right
            if out is not None:
                _write(out / f"draw-{name.replace(' ', '-')}-{steps}-steps.png", _film_strip(model, request))
    bounds = {str(steps): bound_nats(model, digits, steps, seed=seed) for steps in BOUND_STEPS}
    return {**table, "bound in nats, class withheld": bounds, "the paper's bound in nats": PAPER_BOUND}


def drawing_inputs(model: LoadedModel, classes: Sequence[int | None], steps: int, seed: int) -> dict[str, Array]:
    """Return noise and condition like `draw.generation`, but with a digit for each sample; None withholds the class."""
    size = int(model.manifest.config["latent_size"])
    return {
        "noise": np.stack([draw.noise(seed, sample, steps, size) for sample in range(len(classes))], axis=1),
        "condition": np.stack([draw.condition(digit, steps) for digit in classes], axis=1),
    }


def bound_nats(model: LoadedModel, digits: Digits, steps: int, *, seed: int) -> float:
    """Return the mean bound in nats on digits whose class is withheld; `seed` decides binarisation and noise."""
    grey = torch.tensor(digits.images) / 255
    binary = binarise(grey, torch.Generator().manual_seed(seed)).numpy()
    total = 0.0
    for begin in tqdm(range(0, len(binary), BATCH), disable=None, leave=False):
        pictures = binary[begin : begin + BATCH]
        inputs = drawing_inputs(model, [None] * len(pictures), steps, seed + begin)
        request = Request({**inputs, "picture": pictures}, len(pictures), steps, NO_DEADLINE)
        pixels, latent = np.moveaxis(answered(model.graphs["reconstruct"], request).outputs["losses"], -1, 0)
        total += float(pixels[-1].sum() + latent.sum())
    return total / len(binary)


def ntm_table(model: LoadedModel, *, sequences: int, seed: int) -> Mapping[str, float]:
    """Return means over random episodes, by measure and sizes, both named as in the API."""
    table = {}
    for sizes in tqdm(TRAINED[task_of(model)].evaluation, disable=None, leave=False):
        reports = ntm_reports(model, random_episodes(model, sizes, sequences, seed=seed))
        for measure in NTM_MEASURES.get(task_of(model), ("bit_errors",)):
            mean = float(np.mean([report[measure] for report in reports]))
            table["_".join([measure, *(f"{name}_{size}" for name, size in sizes.items())])] = mean
    return table


def random_episodes(model: LoadedModel, sizes: Mapping[str, int], count: int, *, seed: int) -> list[ntm.Episode]:
    """Return the episodes that the service generates for `count` seeds from `seed` on.

    Raises:
        ValidationError: `sizes` are not query parameters of the task, or out of range.
    """
    _, random_query = TASKS[task_of(model)]
    query = random_query.model_validate(sizes, extra="forbid")
    return [query.episode(seed + index) for index in range(count)]


def ntm_reports(model: LoadedModel, episodes: Sequence[ntm.Episode]) -> list[Mapping[str, Any]]:
    """Return the service's reports on episodes of equal size, which are computed together."""
    requests = [episode.request(NO_DEADLINE, with_trace=False) for episode in episodes]
    inputs = np.concatenate([request.inputs["inputs"] for request in requests], axis=1)
    together = Request({"inputs": inputs}, len(requests), requests[0].steps, NO_DEADLINE, requests[0].wanted)
    probabilities = answered(model.graphs["step"], together).outputs["probabilities"]
    for row, request in enumerate(requests):
        request.outputs["probabilities"] = probabilities[:, row : row + 1]
    return [ntm.report(episode, request) for episode, request in zip(episodes, requests, strict=True)]


def task_of(model: LoadedModel) -> str:
    """Return the name of the task that a Turing machine was trained on."""
    return str(model.manifest.training["task"])


def ntm_figures(model: LoadedModel, out: Path, *, seed: int) -> list[Path]:
    """Draw memory figures of episodes within and far beyond the training range to folder `out`; return the files."""
    task = task_of(model)
    files = []
    for sizes in FIGURE_SIZES[task]:
        (episode,) = random_episodes(model, sizes, 1, seed=seed)
        request = answered(model.graphs["step"], episode.request(NO_DEADLINE, with_trace=True))
        outputs = request.outputs["probabilities"][:, 0]
        figure = memory_figure(inputs=episode.inputs, outputs=outputs, **ntm.trace(request))
        size = "-".join(f"{name}-{value}" for name, value in sizes.items())
        files.append(_write(out / f"ntm-{task}-{size}.png", figure))
    return files


def _uploaded(grey: Pixels, content_type: str) -> Picture:
    """Return a picture [H W] after encoding and decoding as a file."""
    if content_type == PNG:
        return decode(encode(grey), content_type)
    _, data = cv2.imencode(".jpg", grey, (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))
    return decode(data.tobytes(), content_type)


def _film_strip(model: LoadedModel, request: Request) -> Pixels:
    """Return a sheet with one row per sample and one column per step, as in the paper."""
    rows = min(SHEET_ROWS, request.rows)
    shown = (draw.drawing(request, row, model.manifest) for row in range(rows))
    frames = chain.from_iterable(each.enlarged(SHEET_SCALE, with_attention=True) for each in shown)
    return sheet(frames, rows, request.steps)


def _write(path: Path, image: Pixels) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(image))
    return path

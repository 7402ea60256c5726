"""The `glimpse` command. Each verb is a function that calls the module that does the work, and prints the result."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
train_app = typer.Typer(help="Train a model; a run that was interrupted resumes.", no_args_is_help=True)
app.add_typer(train_app, name="train")
evaluate_app = typer.Typer(help="Measure a model as the papers do.", no_args_is_help=True)
app.add_typer(evaluate_app, name="evaluate")

Data = Annotated[Path, typer.Option(envvar="GLIMPSE_DATA", help="Folder with MNIST; fetched and checked when absent.")]
TRAINING_MODULES = ("jaxtyping", "onnx", "onnxscript", "safetensors", "torch", "tqdm")
"""Modules that the extra `train` installs, and that a service on ONNX Runtime does without."""
INSTALL_TRAINING = (
    "pip install --editable '.[cpu,train]'; on Linux without a GPU, which needs a tenth of the download, "
    "pip install --extra-index-url https://download.pytorch.org/whl/cpu --editable '.[cpu,train]'"
)
DEFAULT_DATA = Path("~/.cache/glimpse").expanduser()


def main() -> None:
    """Run the command; known errors become one clear line."""
    from pydantic import ValidationError
    from pydantic_settings import SettingsError

    from models.errors import ModelError, TrainingStoppedError
    from service.errors import GlimpseError

    try:
        app()
    except TrainingStoppedError as error:
        print(f"glimpse: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        raise SystemExit(f"glimpse: {where}{error.strerror or error}") from error
    except (GlimpseError, ModelError, SettingsError) as error:
        raise SystemExit(f"glimpse: {error}") from error
    except ModuleNotFoundError as error:
        if error.name not in TRAINING_MODULES:
            raise
        raise SystemExit(f"glimpse: this needs {error.name}: {INSTALL_TRAINING}") from error
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "value_error":  # of several settings at once; their values, keys among them, are not told
            raise SystemExit(f"glimpse: {first['ctx']['error']}") from error
        where = "__".join(str(part) for part in first["loc"]).upper()
        raise SystemExit(f"glimpse: GLIMPSE_{where}: {first['msg']}, not {first['input']!r}") from error


@app.callback(invoke_without_command=True)
def glimpse(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:  # noqa: FBT002
    """Serve, train, evaluate and export attention models."""
    if version:
        from importlib.metadata import version as version_of

        print(version_of("glimpse"))
        raise typer.Exit


@app.command()
def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; GLIMPSE_HOST.", show_default="127.0.0.1")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; GLIMPSE_PORT.", show_default="8000")] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes on that port; GLIMPSE_WORKERS.", show_default="1")
    ] = None,
    models: Annotated[
        Path | None, typer.Option(help="Model repository; GLIMPSE_MODELS.", show_default="the shipped models")
    ] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda"] | None,
        typer.Option(help="Where to compute; GLIMPSE_DEVICE.", show_default="auto"),
    ] = None,
    runtime: Annotated[
        Literal["onnxruntime", "torchscript"] | None,
        typer.Option(help="What runs the models; GLIMPSE_RUNTIME.", show_default="onnxruntime"),
    ] = None,
) -> None:
    """Serve the models over HTTP.

    An option goes before its environment variable; service/settings.py describes those that have no option.
    """
    import signal

    # Until the server takes over, and again after it has shut down cleanly and raises the signal once more, SIGTERM
    # means success. Without a handler, the first process of a container would ignore it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

    from service import server

    given: dict[str, Any] = {
        "host": host, "port": port, "workers": workers, "models": models, "device": device, "runtime": runtime,
    }  # fmt: skip
    raise SystemExit(server.serve({name: value for name, value in given.items() if value is not None}))


Precision = Literal["float32", "bfloat16"]
Device = Literal["cpu", "cuda"]
Kind = Literal["affine", "projective", "tps"]
NtmTask = Literal["copy", "repeat-copy", "associative-recall", "dynamic-ngrams", "priority-sort"]
NtmController = Literal["lstm", "feed-forward"]
Updates = Annotated[
    int | None,
    typer.Option(min=0, help="Updates in all; the model's own number when absent. 0 keeps the starting weights."),
]
Rate = Annotated[float | None, typer.Option(min=0, help="Adam's largest learning rate; the model's own when absent.")]
Cooldown = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="Share of the updates, at the end, over which the learning rate falls to zero."),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the weights, the data and the noise.")]
Runs = Annotated[Path, typer.Option(help="Parent folder of all runs.")]
On = Annotated[Device, typer.Option(help="Where to train.")]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads.")]
Forward = Annotated[Precision, typer.Option(help="Precision of the forward pass.")]
Start = Annotated[
    list[Path] | None,
    typer.Option(help="Run, checkpoint or model's folder to take the first weights from; give several for their mean."),
]
Compile = Annotated[bool, typer.Option("--compile", help="Compile the network first; needs a C++ compiler on a CPU.")]


@train_app.command("stn")
def train_stn(
    kind: Annotated[Kind, typer.Argument(help="Family of the last of its transformations.")],
    data: Data = DEFAULT_DATA,
    updates: Updates = None,
    learning_rate: Rate = None,
    cooldown: Cooldown = None,
    seed: Seed = 1,
    runs: Runs = Path("runs"),
    device: On = "cpu",
    threads: Threads = 1,
    precision: Forward = "bfloat16",
    start: Start = None,
) -> None:
    """Train a spatial transformer on all distortions of MNIST."""
    import torch

    from models.classifier import READER, classifiers
    from models.run import RunOptions, run
    from models.stn.experiment import SCHEDULE, StnExperiment

    def experiment(where: torch.device) -> StnExperiment:
        return StnExperiment(kind, data, [*classifiers(data, runs, READER).values()], where)

    options = RunOptions(
        updates=updates, learning_rate=learning_rate, cooldown=cooldown, seed=seed, runs=runs,
        device=device, threads=threads, precision=precision, start=start or [],
    )  # fmt: skip
    _print_run(*run(experiment, SCHEDULE, options))


@train_app.command("draw")
def train_draw(
    data: Data = DEFAULT_DATA,
    updates: Updates = None,
    learning_rate: Rate = None,
    cooldown: Cooldown = None,
    seed: Seed = 1,
    runs: Runs = Path("runs"),
    device: On = "cpu",
    threads: Threads = 1,
    precision: Forward = "bfloat16",
    start: Start = None,
) -> None:
    """Train DRAW on MNIST, for 8 to 64 steps, with and without the class."""
    from models.draw.experiment import SCHEDULE, DrawExperiment
    from models.draw.network import Config
    from models.run import RunOptions, run

    options = RunOptions(
        updates=updates, learning_rate=learning_rate, cooldown=cooldown, seed=seed, runs=runs,
        device=device, threads=threads, precision=precision, start=start or [],
    )  # fmt: skip
    _print_run(*run(lambda where: DrawExperiment(Config(), data, where), SCHEDULE, options))


@train_app.command("ntm")
def train_ntm(
    task: Annotated[NtmTask, typer.Argument(help="What it learns to do; each task is a model of its own.")],
    updates: Updates = None,
    learning_rate: Rate = None,
    cooldown: Cooldown = None,
    seed: Seed = 1,
    runs: Runs = Path("runs"),
    device: On = "cpu",
    threads: Threads = 1,
    compiled: Compile = False,  # noqa: FBT002
    start: Start = None,
    controller: Annotated[NtmController, typer.Option(help="What decides what the heads do.")] = "lstm",
) -> None:
    """Train a neural Turing machine for one task."""
    from dataclasses import replace

    import torch

    from models.ntm.experiment import NtmExperiment, default_config, default_schedule
    from models.ntm.tasks import TASKS
    from models.run import RunOptions, run

    def experiment(where: torch.device) -> NtmExperiment:
        made = NtmExperiment(TASKS[task], replace(default_config(TASKS[task]), controller=controller), where)
        if compiled:
            made.network.compile(dynamic=False)
        return made

    options = RunOptions(
        updates=updates, learning_rate=learning_rate, cooldown=cooldown, seed=seed, runs=runs,
        device=device, threads=threads, precision="float32", start=start or [],
    )  # fmt: skip
    _print_run(*run(experiment, default_schedule(TASKS[task]), options))


Run = Annotated[Path, typer.Argument(help="A run's folder, or a checkpoint, or a model's folder.", exists=True)]
Model = Annotated[
    Path, typer.Argument(help="A model's folder NAME/VERSION; a run or a checkpoint is exported first.", exists=True)
]
Judge = Annotated[Path, typer.Option(help="Folder of all runs; the classifiers that judge are kept there.")]
Trial = Annotated[int, typer.Option(min=0, help="Seed of the distortions, drawings or episodes.")]
Sheets = Annotated[Path | None, typer.Option(help="Folder for the papers' pictures: film strips, the memory at work.")]


@evaluate_app.command("stn")
def evaluate_stn(
    model: Model,
    data: Data = DEFAULT_DATA,
    runs: Judge = Path("runs"),
    seed: Trial = 0,
    draws: Annotated[int, typer.Option(min=1, help="Times that each digit is distorted.")] = 1,
) -> None:
    """Error on every distortion of the test digits, uploaded as pictures, beside the paper's networks."""
    from benchmarks import quality
    from models import mnist

    found, digits = quality.served(model, "stn"), mnist.load(data, mnist.Split.TEST)
    table = quality.stn_table(found, digits, quality.judges(data, runs), seed=seed, draws=draws)
    print(quality.as_text("error %", table))


@evaluate_app.command("draw")
def evaluate_draw(
    model: Model,
    data: Data = DEFAULT_DATA,
    runs: Judge = Path("runs"),
    seed: Trial = 0,
    samples: Annotated[int, typer.Option(min=10, help="Samples for each number of the table.")] = 1000,
    out: Sheets = None,
) -> None:
    """How a clean classifier reads samples, and the bound on binarised test digits, by the number of steps.

    As served, the network gets a digit, which the service draws if none is asked for; withheld, it gets none.
    """
    from benchmarks import quality
    from models import mnist

    found, digits, judge = quality.served(model, "draw"), mnist.load(data, mnist.Split.TEST), quality.judge(data, runs)
    print(quality.as_text("steps", quality.draw_table(found, digits, judge, samples=samples, seed=seed, out=out)))


@evaluate_app.command("ntm")
def evaluate_ntm(
    model: Model,
    sequences: Annotated[int, typer.Option(min=1, help="Episodes at each size.")] = 256,
    seed: Trial = 0,
    out: Sheets = None,
) -> None:
    """Wrong bits in a random episode, or the cost of n-grams, at training lengths and, for some tasks, far beyond."""
    from benchmarks import quality

    found = quality.served(model, "ntm")
    _print_values(quality.ntm_table(found, sequences=sequences, seed=seed))
    if out is not None:
        for file in quality.ntm_figures(found, out, seed=seed):
            print(file)


@app.command()
def export(
    run: Run,
    repository: Annotated[
        Path | None, typer.Option(help="Where NAME/VERSION is made; among the shipped models when absent.")
    ] = None,
    version: Annotated[int | None, typer.Option(min=1, help="Latest + 1 when absent.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the version if it is there.")] = False,  # noqa: FBT002
    torchscript: Annotated[bool, typer.Option("--torchscript", help="Export TorchScript too.")] = False,  # noqa: FBT002
) -> None:
    """Export a trained model, after proving that it computes what the network does."""
    from export import package
    from models.checkpoint import weights_file
    from service import settings

    where = repository or settings.SHIPPED_MODELS
    print(package.export(weights_file(run), where, version=version, torchscript=torchscript, replace=replace))
    if repository is None:
        print("glimpse: `glimpse serve` serves it from its next start on", file=sys.stderr)


@app.command()
def models(
    repository: Annotated[Path | None, typer.Option(help="Model repository; the shipped one when absent.")] = None,
) -> None:
    """List the models of a repository, after checking every file; ends with 1 if one of them is damaged.

    The score is what training minimised, on held-out data: lower is better. It compares versions of one model only;
    every model measures something else.
    """
    from service.errors import ArtifactRejected
    from service.runtime.repository import artifacts, read_manifest
    from service.settings import SHIPPED_MODELS

    are_all_well = True
    for folder in artifacts(repository or SHIPPED_MODELS):
        try:
            manifest = read_manifest(folder)
        except ArtifactRejected as error:
            print(f"glimpse: {error}", file=sys.stderr)
            are_all_well = False
            continue
        size = sum(file.bytes for file in manifest.files.values()) / 1e6
        score = manifest.metrics.get("score", float("nan"))
        print(f"{manifest.name:24} {manifest.version:3}  {size:6.2f} MB  score {score:.4g}")
    raise typer.Exit(0 if are_all_well else 1)


@app.command()
def bench(
    scenario: Annotated[
        str, typer.Argument(help="stn, draw, ntm, mixed; overload; baselines; all of these; or soak.")
    ] = "all",
    url: Annotated[
        str | None,
        typer.Option(
            help="http://HOST:PORT of a service that runs, not with all or baselines; one is started when absent."
        ),
    ] = None,
    api_key: Annotated[
        str, typer.Option(envvar="GLIMPSE_API_KEY", show_envvar=True, help="Key that the service asks for.")
    ] = "",
    workers: Annotated[int, typer.Option(min=1, help="Processes of the service that is started.")] = 1,
    seconds: Annotated[float, typer.Option(min=0.1, help="Length of every measurement; of a soak, in all.")] = 10.0,
    connections: Annotated[int, typer.Option(min=1, help="Connections of a workload; with --rate the most.")] = 64,
    rate: Annotated[
        float | None, typer.Option(min=0.1, help="Requests a second, whether the service keeps up or not.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for benchmarks.md and its picture.")] = None,
) -> None:
    """Measure throughput and latency, beside baselines."""
    from benchmarks import suite

    suite.bench(
        scenario,
        url=url,
        api_key=api_key,
        workers=workers,
        seconds=seconds,
        connections=connections,
        rate=rate,
        out=out,
    )


def _print_values(values: Mapping[str, float]) -> None:
    print(*(f"{name:32} {value:.4g}" for name, value in values.items()), sep="\n")


def _print_run(folder: Path, metrics: Mapping[str, float]) -> None:
    _print_values(metrics)
    print(f"the best weights are in {folder}; `glimpse export {folder}` makes them servable")


if __name__ == "__main__":
    main()

"""The `glimpse` command. One function a verb; each does nothing but call the module that does the work."""

from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    help="Serve, train, evaluate and export attention models.", no_args_is_help=True, add_completion=False
)
train_app = typer.Typer(help="Train a model; a run that was stopped goes on where it was.", no_args_is_help=True)
app.add_typer(train_app, name="train")
evaluate_app = typer.Typer(help="Measure a model as the papers do.", no_args_is_help=True)
app.add_typer(evaluate_app, name="evaluate")

Data = Annotated[Path, typer.Option(envvar="GLIMPSE_DATA", help="Folder with MNIST; fetched and checked when absent.")]
DEFAULT_DATA = Path("~/.cache/glimpse").expanduser()


def main() -> None:
    """Run the command; known errors become one clear line."""
    from pydantic import ValidationError

    try:
        app()
    except ValidationError as error:
        first = error.errors()[0]
        where = "__".join(str(part) for part in first["loc"]).upper()
        raise SystemExit(f"glimpse: GLIMPSE_{where}: {first['msg']}, not {first['input']!r}") from error


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; GLIMPSE_HOST.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; GLIMPSE_PORT.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes on that port; GLIMPSE_WORKERS.")] = None,
    models: Annotated[Path | None, typer.Option(help="Model repository; GLIMPSE_MODELS.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda; GLIMPSE_DEVICE.")] = None,
    runtime: Annotated[str | None, typer.Option(help="onnxruntime or torchscript; GLIMPSE_RUNTIME.")] = None,
) -> None:
    """Serve the models over HTTP."""
    from service import server

    given: dict[str, Any] = {
        "host": host, "port": port, "workers": workers, "models": models, "device": device, "runtime": runtime,
    }  # fmt: skip
    raise SystemExit(server.serve({name: value for name, value in given.items() if value is not None}))


if __name__ == "__main__":
    main()

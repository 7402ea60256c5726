"""The command: what it prints, and what a person who is wrong is told."""

import errno
import re
import shutil
import sys
from importlib.metadata import version
from pathlib import Path
from typing import get_args
from unittest.mock import Mock

import pytest
from typer.main import get_command
from typer.testing import CliRunner

import glimpse
from export import to_onnx
from export.manifest import read
from models.errors import TrainingStoppedError
from service import settings


def printed(*arguments: str | Path) -> list[str]:
    """The lines of a command that succeeds."""
    result = CliRunner().invoke(glimpse.app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def test_version_is_the_installed_packages() -> None:
    """And nothing else is printed."""
    assert printed("--version") == [version("glimpse")]


def test_command_without_a_verb_explains_itself() -> None:
    """It names the verbs, and fails."""
    result = CliRunner().invoke(glimpse.app, [])

    assert result.exit_code == 2
    assert "Serve, train, evaluate and export attention models." in result.output
    assert all(verb in result.output for verb in ("serve", "train", "evaluate", "export", "models", "bench"))


@pytest.mark.parametrize("task", ["repeat-copy", "dynamic-ngrams"])
def test_evaluation_of_a_memory_is_a_name_and_a_value_a_line(repository: Path, tmp_path: Path, task: str) -> None:
    """Then come the names of the pictures, if they are asked for."""
    lines = printed("evaluate", "ntm", repository / f"ntm-{task}" / "1", "--sequences", "2", "--out", tmp_path)

    *values, inside, outside = lines
    assert values
    assert all(re.fullmatch(r"\w+ +[\d.e+-]+", line) for line in values)
    assert {Path(inside), Path(outside)} == set(tmp_path.iterdir())


@pytest.mark.parametrize(("given", "files"), [((), ["model.onnx"]), (("--torchscript",), ["model.onnx", "model.pt"])])
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_export_prints_the_folder_of_the_artifact(
    checkpoints: Path, tmp_path: Path, given: tuple[str, ...], files: list[str]
) -> None:
    """With the graphs that were asked for."""
    source = checkpoints / "ntm-copy.safetensors"

    (folder,) = printed("export", source, "--repository", tmp_path, "--version", "3", *given)

    assert Path(folder) == tmp_path / "ntm-copy" / "3"
    assert [name for name in sorted(read(Path(folder)).files) if name.startswith("model")] == files


def test_export_among_the_shipped_models_says_when_it_is_served(
    checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that runs does not look for new versions; standard output has the folder alone."""
    monkeypatch.setattr(settings, "SHIPPED_MODELS", tmp_path)

    result = CliRunner().invoke(glimpse.app, ["export", str(checkpoints / "ntm-copy.safetensors")])

    assert result.stdout == f"{tmp_path / 'ntm-copy' / '1'}\n"
    assert result.stderr == "glimpse: `glimpse serve` serves it from its next start on\n"


@pytest.mark.usefixtures("clean_environment")
def test_help_of_serve_shows_the_settings_defaults_and_choices() -> None:
    """Which are the settings' own."""
    options = {option.name: option for option in get_command(glimpse.app).commands["serve"].params}  # type: ignore[attr-defined]

    for name in ("host", "port", "workers", "device", "runtime"):
        assert options[name].show_default == str(getattr(settings.Settings(), name))
    text = CliRunner(env={"COLUMNS": "200"}).invoke(glimpse.app, ["serve", "--help"]).output
    for name in ("device", "runtime"):
        assert "|".join(get_args(settings.Settings.model_fields[name].annotation)) in text


def test_models_are_listed_past_one_that_is_damaged(repository: Path, tmp_path: Path) -> None:
    """Which is told on the error stream and by the exit code, as the service would skip it."""
    for name in ("draw", "ntm-copy"):
        shutil.copytree(repository / name, tmp_path / name)
    (tmp_path / "draw" / "1" / "model.onnx").write_bytes(b"")

    result = CliRunner().invoke(glimpse.app, ["models", "--repository", str(tmp_path)], catch_exceptions=False)

    assert result.exit_code == 1
    assert [line.split()[:2] for line in result.stdout.splitlines()] == [["ntm-copy", "1"]]
    assert re.match(r"glimpse: .*model\.onnx has sha256", result.stderr)


def test_error_of_ours_is_one_line(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a trace of where in the code it arose."""
    monkeypatch.setattr("sys.argv", ["glimpse", "evaluate", "ntm", str(repository / "draw" / "1")])

    with pytest.raises(SystemExit, match=r"^glimpse: .* holds a model of the family draw, not ntm$"):
        glimpse.main()


def test_path_that_cannot_be_used_is_told_in_one_line(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """As the file system says it, with the path."""
    (tmp_path / "file").touch()
    run = str(repository / "ntm-copy" / "1")
    monkeypatch.setattr("sys.argv", ["glimpse", "export", run, "--repository", str(tmp_path / "file" / "below")])

    with pytest.raises(SystemExit, match=r"^glimpse: .*file/below.*: Not a directory$"):
        glimpse.main()


def test_full_disk_is_told_in_one_line(checkpoints: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The file system does not say then which file it was."""
    disk_is_full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(to_onnx, "export", Mock(side_effect=disk_is_full))
    monkeypatch.setattr(
        "sys.argv", ["glimpse", "export", str(checkpoints / "ntm-copy.safetensors"), "--repository", str(tmp_path)]
    )

    with pytest.raises(SystemExit, match=r"^glimpse: No space left on device$"):
        glimpse.main()


def test_training_that_a_signal_stopped_ends_with_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which shells and supervisors know; and with one line."""
    monkeypatch.setattr(glimpse, "app", Mock(side_effect=TrainingStoppedError("stopped at update 3 of 9", 143)))

    with pytest.raises(SystemExit) as stopped:
        glimpse.main()

    assert stopped.value.code == 143
    assert capsys.readouterr().err == "glimpse: stopped at update 3 of 9\n"


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        (
            {"LIMITS__FILES": "600"},
            r"^glimpse: limits.files \(600\) must be at most ",
        ),
        (
            {"LIMITS__MEMORY_BYTES": "2000000"},
            r"^glimpse: limits.memory_bytes \(2000000\) must be at",
        ),
        ({"PORT": "70000"}, r"^glimpse: GLIMPSE_PORT: .* 65535, not '70000'$"),
        ({"LIMITS": "{"}, r"^glimpse: .*limits"),
        ({"API_KEYS": " , "}, r"^glimpse: .*api_keys is set, but has no key in it$"),
    ],
)
def test_wrong_setting_is_told_by_its_name_and_no_other_with_it(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], told: str
) -> None:
    """One line; what nobody may read in a log, like keys, is not in it."""
    monkeypatch.setattr("sys.argv", ["glimpse", "serve"])
    monkeypatch.setenv("GLIMPSE_API_KEYS", "topsecret")
    for name, value in variables.items():
        monkeypatch.setenv(f"GLIMPSE_{name}", value)

    with pytest.raises(SystemExit, match=told) as stopped:
        glimpse.main()

    assert "topsecret" not in str(stopped.value)


def test_command_that_needs_pytorch_says_how_to_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service on ONNX Runtime is installed without."""
    monkeypatch.setattr("sys.argv", ["glimpse", "train", "draw"])
    monkeypatch.setitem(sys.modules, "models.draw.experiment", None)
    monkeypatch.setattr(glimpse, "TRAINING_MODULES", ("models.draw.experiment",))

    with pytest.raises(SystemExit, match=r"^glimpse: this needs models.draw.experiment: pip install .*train.*whl/cpu"):
        glimpse.main()

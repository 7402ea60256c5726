"""The README: its commands work, and its table of settings is right."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from service.settings import SHIPPED_MODELS, Settings

README = (Path(__file__).parents[3] / "README.md").read_text()
COMMANDS = re.findall(r"^curl .+$", README, re.MULTILINE)
ROWS = re.findall(r"^\| (`GLIMPSE_.+?) \| (.+?) \|", README, re.MULTILINE)
UNITS = {"MiB": 2**20, "million": 1_000_000}


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
def test_commands_work_in_their_order(server: str, tmp_path: Path) -> None:
    """Every request gets a 200, and every saved file is of the type that its name says."""
    for command in COMMANDS:
        here = command.replace("curl", "curl --fail --silent --show-error --max-time 30", 1).replace(
            "localhost:8000", server
        )
        done = subprocess.run(["bash", "-c", here], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        assert done.stdout or "-o " in command, command

    kept = {}
    for path in tmp_path.iterdir():
        with Image.open(path) as image:
            kept[path.name] = image.format
    pictures = {"seven.png": "PNG", "upright.png": "PNG", "copy.png": "PNG"}
    assert kept == {"seven.gif": "GIF", "redrawn.gif": "GIF", **pictures}


@pytest.mark.usefixtures("clean_environment")
def test_table_of_settings_has_their_defaults() -> None:
    """Defaults are listed by environment variable; several variables in a row have one each, or share one."""
    settings = Settings()
    for names, defaults in ROWS:
        variables, told = re.findall(r"`GLIMPSE_(\w+)`", names), [_value(text) for text in defaults.split(", ")]
        for variable, default in zip(variables, told * (len(variables) // len(told)), strict=True):
            found: Any = settings
            for part in variable.lower().split("__"):
                found = getattr(found, part)
            assert found == default, variable

    assert len(ROWS) > 8


def _value(text: str) -> object:
    """Return a default as the table writes it."""
    words = text.strip("`").split()
    match words:
        case [number, unit] if unit in UNITS:
            return int(number) * UNITS[unit]
        case [word]:
            return int(word) if word.isdigit() else {"none": ()}.get(word, word)
        case _:
            assert text == "the shipped ones"
            return SHIPPED_MODELS

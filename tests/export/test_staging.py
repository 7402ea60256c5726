"""A folder that is replaced whole, wherever whoever fills it or the renames are cut off."""

import os
from pathlib import Path

import pytest

from export.staging import staged

OLD, NEW = "old", "new"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder with something in it."""
    path = tmp_path / "draw" / "1"
    path.mkdir(parents=True)
    (path / "model").write_text(OLD)
    return path


def content(folder: Path) -> str:
    """What is in a model's folder, which is all that its repository holds."""
    assert [path.relative_to(folder) for path in folder.iterdir()] == [Path("model")]
    assert [path.name for path in folder.parents[1].iterdir()] == [folder.parent.name]
    return (folder / "model").read_text()


def fill(folder: Path) -> None:
    with staged(folder) as unfinished:
        (unfinished / "model").write_text(NEW)


def fill_partly(folder: Path) -> None:
    with staged(folder) as unfinished:
        assert not list(unfinished.iterdir())
        (unfinished / "model").write_text(NEW)
        raise KeyboardInterrupt


def test_what_was_filled_takes_the_place_of_what_was_there(folder: Path) -> None:
    """Of all of it."""
    (folder / "stale").touch()

    fill(folder)

    assert content(folder) == NEW


def test_first_version_needs_no_folder(tmp_path: Path) -> None:
    """Neither of the model nor of the repository."""
    fill(tmp_path / "models" / "draw" / "1")

    assert content(tmp_path / "models" / "draw" / "1") == NEW


def test_folder_stays_while_another_is_filled(folder: Path) -> None:
    """What is unfinished is not where versions of models are looked for."""
    with staged(folder) as unfinished:
        (unfinished / "model").write_text(NEW)
        assert (folder / "model").read_text() == OLD
        assert list(folder.parents[1].glob("*/*/model")) == [folder / "model"]


def test_error_while_it_is_filled_leaves_what_was_there(folder: Path) -> None:
    """Alone."""
    with pytest.raises(KeyboardInterrupt):
        fill_partly(folder)

    assert content(folder) == OLD


@pytest.mark.parametrize("call", [1, 2])
def test_error_of_a_rename_leaves_what_was_there(folder: Path, monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    """Whether it has gone aside already or not."""
    rename, calls = os.replace, []

    def failing(source: Path, target: Path) -> None:
        calls.append(source)
        if len(calls) == call:
            raise OSError("the disk is gone")
        rename(source, target)

    monkeypatch.setattr(os, "replace", failing)

    with pytest.raises(OSError, match="the disk is gone"):
        fill(folder)
    assert content(folder) == OLD


@pytest.mark.parametrize("killed_after", ["filling", "one rename", "both renames"])
def test_leftovers_of_one_that_was_killed_are_cleared_away(folder: Path, killed_after: str) -> None:
    """And the next one begins with the older or the newer folder in its place, whole."""
    new, old = (folder.parents[1] / f".draw-1.{age}" for age in (NEW, OLD))
    new.mkdir()
    (new / "model").write_text(NEW)
    if killed_after != "filling":
        folder.rename(old)
    if killed_after == "both renames":
        new.rename(folder)

    with pytest.raises(KeyboardInterrupt):
        fill_partly(folder)

    assert content(folder) == (NEW if killed_after == "both renames" else OLD)

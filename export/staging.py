"""Staging: a model's folder in a repository is replaced whole, or not at all.

What is new is made in `.NAME-VERSION.new` and what was there goes aside as `.NAME-VERSION.old`. Both lie in the
repository itself, on the file system of its models, but a level above the `NAME/VERSION` that a service looks for. They
change places by two renames, since a folder cannot be renamed over another: between the two a service finds no model
there, and never a part of one. Whoever is cut off leaves a folder behind that the next one clears away.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """An empty folder to fill that then becomes `folder`, which is `NAME/VERSION` in a repository.

    After an error of whoever fills it, `folder` is what it was before.
    """
    repository, name = folder.parents[1], f".{folder.parent.name}-{folder.name}"
    new, old = repository / f"{name}.new", repository / f"{name}.old"
    _recover(folder, new, old)
    new.mkdir(parents=True)
    try:
        yield new
        folder.parent.mkdir(exist_ok=True)
        if folder.exists():
            os.replace(folder, old)  # noqa: PTH105 - Path.replace is the same call with a return value
        os.replace(new, folder)  # noqa: PTH105
    finally:
        _recover(folder, new, old)


def _recover(folder: Path, new: Path, old: Path) -> None:
    """Make good what was cut off anywhere: what went aside comes back, unless something took its place."""
    if old.exists() and not folder.exists():
        os.replace(old, folder)  # noqa: PTH105
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)

"""Staging: a model's folder in a repository is replaced completely, or not at all.

The new folder is made as `.NAME-VERSION.new`, and the old one is moved to `.NAME-VERSION.old`. Both are in the
repository, and so on the same file system as its models, but a level above the `NAME/VERSION` that a service looks for.
A folder cannot be renamed over another, so there are two renames: between them a service finds no model, but never a
part of one. A process that is killed may leave folders behind; the next export removes them.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `folder`, which is `NAME/VERSION` in a repository, when the block ends.

    If the block raises, `folder` is left as it was.
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
    """Clean up after an interruption at any point: the old folder is moved back, unless the new one is in its place."""
    if old.exists() and not folder.exists():
        os.replace(old, folder)  # noqa: PTH105
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)

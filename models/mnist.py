"""MNIST (LeCun, Cortes, Burges): read from a folder, downloaded if missing, checksummed either way.

The checksums are those of the *decompressed* bytes, so that a copy from any mirror passes, however it was compressed.
"""

import gzip
import hashlib
import os
import urllib.request
import zlib
from dataclasses import dataclass
from enum import Enum
from http.client import HTTPException
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from models.errors import ModelError

MIRRORS = (
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
)
MD5_UNPACKED = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
IMAGE_HEADER_BYTES = 16
LABEL_HEADER_BYTES = 8
VALIDATION_DIGITS = 5_000


class DatasetError(ModelError):
    """A data file is missing and cannot be downloaded, or its contents are not MNIST's."""


class Split(Enum):
    """A part of MNIST: 55,000, 5,000 and 10,000 digits.

    TRAIN and VALIDATION divide MNIST's training files, so that no checkpoint is selected on the test set.
    """

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class Digits:
    """Pictures and their labels (0..9); white ink (255) on black paper (0)."""

    images: UInt8[np.ndarray, "N 28 28"]
    labels: UInt8[np.ndarray, "N"]


def load(directory: Path, split: Split) -> Digits:
    """Read a split from `directory` or its subfolder `mnist`; download files that are in neither into `directory`.

    Raises:
        DatasetError: a file is missing and cannot be downloaded, or its contents are not MNIST's.
    """
    prefix = "t10k" if split is Split.TEST else "train"
    images = np.frombuffer(_read_file(directory, f"{prefix}-images-idx3-ubyte"), np.uint8, offset=IMAGE_HEADER_BYTES)
    labels = np.frombuffer(_read_file(directory, f"{prefix}-labels-idx1-ubyte"), np.uint8, offset=LABEL_HEADER_BYTES)
    digits = {
        Split.TRAIN: slice(0, len(labels) - VALIDATION_DIGITS),
        Split.VALIDATION: slice(len(labels) - VALIDATION_DIGITS, None),
        Split.TEST: slice(None),
    }[split]
    return Digits(images.reshape(-1, 28, 28)[digits], labels[digits])


def _read_file(directory: Path, name: str) -> bytes:
    for path in (directory / f"{name}.gz", directory / "mnist" / f"{name}.gz"):
        if path.exists():
            return _decompress(path.read_bytes(), name, str(path))
    return _download(directory / f"{name}.gz", name)


def _download(path: Path, name: str) -> bytes:
    failures: list[str] = []
    for mirror in MIRRORS:
        url = f"{mirror}{path.name}"
        try:
            with urllib.request.urlopen(url, timeout=30) as response:  # noqa: S310 - the mirrors are constants
                packed = response.read()
            unpacked = _decompress(packed, name, url)
        except (OSError, HTTPException, DatasetError) as error:
            failures.append(f"{url}: {error}")
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            temporary.write_bytes(packed)
            os.replace(temporary, path)  # noqa: PTH105 - atomic: never leaves a partial file
        finally:
            temporary.unlink(missing_ok=True)
        return unpacked
    raise DatasetError(
        f"{path} is missing and no mirror has it; put MNIST's four files into {path.parent}, or name their folder "
        f"with --data or GLIMPSE_DATA: {'; '.join(failures)}"
    )


def _decompress(packed: bytes, name: str, source: str) -> bytes:
    try:
        unpacked = gzip.decompress(packed)
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetError(f"{source} is not MNIST's {name}: it cannot be unpacked: {error}") from error
    found = hashlib.md5(unpacked, usedforsecurity=False).hexdigest()
    if found != MD5_UNPACKED[name]:
        raise DatasetError(f"{source} is not MNIST's {name}: md5 {found}, expected {MD5_UNPACKED[name]}")
    return unpacked

"""MNIST: the right bytes or none, from a folder or from a mirror."""

import gzip
import hashlib
import os
import struct
import urllib.error
import urllib.request
from http.client import IncompleteRead
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from models import mnist
from models.mnist import MD5_UNPACKED, DatasetError, Split, load

DIGITS = 5_010


@pytest.fixture
def unpacked(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Files in MNIST's format with numbered pictures; their checksums replace the real ones."""
    numbers = np.arange(DIGITS)
    images = np.zeros((DIGITS, 28, 28), np.uint8)
    images[:, 0, 0], images[:, 0, 1] = numbers // 256, numbers % 256
    pictures = struct.pack(">IIII", 2051, DIGITS, 28, 28) + images.tobytes()
    labels = struct.pack(">II", 2049, DIGITS) + (numbers % 10).astype(np.uint8).tobytes()
    files = {name: pictures if "images" in name else labels for name in MD5_UNPACKED}
    for name, data in files.items():
        monkeypatch.setitem(MD5_UNPACKED, name, hashlib.md5(data).hexdigest())
    return files


def stored(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(data, 1))
    return folder


def numbers(digits: mnist.Digits) -> list[int]:
    high, low = digits.images[:, 0, :2].astype(int).T
    found: list[int] = (256 * high + low).tolist()
    return found


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Make every download fail; return the addresses that were requested."""
    asked: list[str] = []

    def refused(url: str, **_: object) -> None:
        asked.append(url)
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", refused)
    return asked


# --- from a folder ---


def test_validation_and_training_share_a_file_and_no_digit(tmp_path: Path, unpacked: dict[str, bytes]) -> None:
    """The last 5,000 training digits are held out; the test set is another file, and whole."""
    stored(tmp_path, unpacked)

    train, validation, test = (numbers(load(tmp_path, split)) for split in Split)

    assert train == list(range(10))
    assert validation == list(range(10, DIGITS))
    assert test == list(range(DIGITS))
    assert load(tmp_path, Split.VALIDATION).labels.tolist() == [number % 10 for number in validation]


def test_subfolder_of_that_name_is_looked_into(
    tmp_path: Path, unpacked: dict[str, bytes], no_network: list[str]
) -> None:
    """One folder of data may hold more than this."""
    stored(tmp_path / "mnist", unpacked)

    assert len(load(tmp_path, Split.TEST).images) == DIGITS
    assert no_network == []


def test_file_with_other_bytes_is_refused(tmp_path: Path, unpacked: dict[str, bytes]) -> None:
    """One changed bit in one pixel is not MNIST any more."""
    name = "t10k-images-idx3-ubyte"
    spoilt = bytearray(unpacked[name])
    spoilt[-1] ^= 1
    stored(tmp_path, {**unpacked, name: bytes(spoilt)})

    with pytest.raises(DatasetError, match=f"{name}.gz is not MNIST's {name}: md5 [0-9a-f]+, expected"):
        load(tmp_path, Split.TEST)
    load(tmp_path, Split.TRAIN)


def test_damaged_file_is_refused(tmp_path: Path, unpacked: dict[str, bytes]) -> None:
    """Such as one that was still being copied."""
    name = "t10k-images-idx3-ubyte"
    path = stored(tmp_path, unpacked) / f"{name}.gz"
    path.write_bytes(path.read_bytes()[:-10])

    with pytest.raises(DatasetError, match=f"{name}.gz is not MNIST's {name}: it cannot be unpacked: "):
        load(tmp_path, Split.TEST)


# --- from a mirror ---


@pytest.mark.parametrize(
    "first_answer",
    [
        urllib.error.URLError("no route to host"),
        IncompleteRead(b""),
        b"<html>Moved</html>",
        gzip.compress(b"other data"),
        gzip.compress(b"cut short")[:-9],
    ],
    ids=["no answer", "broken off", "a page", "other data", "cut short"],
)
def test_missing_files_are_fetched_checked_and_kept(
    tmp_path: Path, unpacked: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, first_answer: bytes | Exception
) -> None:
    """The second mirror is tried if the first fails; the next load asks no mirror."""
    asked: list[str] = []

    def answer(url: str, **_: object) -> BytesIO:
        asked.append(url)
        if url.startswith(mnist.MIRRORS[0]):
            if isinstance(first_answer, Exception):
                raise first_answer
            return BytesIO(first_answer)
        return BytesIO(gzip.compress(unpacked[url.rpartition("/")[2].removesuffix(".gz")], 1))

    monkeypatch.setattr(urllib.request, "urlopen", answer)

    first = load(tmp_path / "new", Split.TEST)
    again = load(tmp_path / "new", Split.TEST)

    assert len(asked) == 4
    assert numbers(first) == numbers(again)
    assert {path.name for path in (tmp_path / "new").iterdir()} == {
        "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz",
    }  # fmt: skip


def test_files_that_no_mirror_has_are_an_error(tmp_path: Path, no_network: list[str]) -> None:
    """The error names every address that was tried, and why it failed."""
    with pytest.raises(DatasetError, match=r"no mirror has it; put .* or GLIMPSE_DATA: .*no route.*no route"):
        load(tmp_path, Split.TEST)
    assert len(no_network) == len(mnist.MIRRORS)


def test_mirror_with_other_bytes_is_refused_and_nothing_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attacker between here and the mirror cannot substitute other data."""
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: BytesIO(gzip.compress(b"other data")))

    with pytest.raises(DatasetError, match="is not MNIST's"):
        load(tmp_path, Split.TEST)
    assert list(tmp_path.iterdir()) == []


# --- the data itself ---


def test_true_data_has_its_known_sizes_and_ink() -> None:
    """55,000, 5,000 and 10,000 digits, white on black, every class about as often."""
    if "GLIMPSE_DATA" not in os.environ:
        pytest.skip("MNIST is not here; GLIMPSE_DATA names no folder")

    for split, count in [(Split.TRAIN, 55_000), (Split.VALIDATION, 5_000), (Split.TEST, 10_000)]:
        digits = load(Path(os.environ["GLIMPSE_DATA"]), split)
        assert digits.images.shape == (count, 28, 28)
        assert digits.labels.shape == (count,)
        assert 30 < digits.images.mean() < 36
        assert (digits.images[:, :4, :4] == 0).mean() > 0.99
        assert np.bincount(digits.labels, minlength=10).min() > 0.08 * count

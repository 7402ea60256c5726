"""Models are found as the service finds them."""

from pathlib import Path

import pytest

from benchmarks.served import newest
from service.errors import ArtifactRejected


def test_newest_version_is_the_largest_number(tmp_path: Path) -> None:
    """10 comes after 9; a model that is not there is named."""
    for version in ("9", "10"):
        (tmp_path / "draw" / version).mkdir(parents=True)
        (tmp_path / "draw" / version / "manifest.json").touch()

    assert newest(tmp_path, "draw") == tmp_path / "draw" / "10"
    with pytest.raises(ArtifactRejected, match="holds no stn-affine"):
        newest(tmp_path, "stn-affine")

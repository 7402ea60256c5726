"""The catalogue: models by name, version and family."""

import pytest

from export.manifest import Manifest
from service.api.catalogue import Catalogue, ServedModel
from service.errors import NotReady, UnknownModel


def model(name: str, version: int) -> ServedModel:
    family = name.partition("-")[0]
    manifest = Manifest.model_validate(
        {
            "name": name, "version": version, "family": family, "config": {}, "graphs": {}, "metrics": {},
            "training": {}, "producer": {}, "files": {},
        }
    )  # fmt: skip
    return ServedModel(manifest, {})


def catalogue() -> Catalogue:
    served = Catalogue(not_ready_because=None)
    for name, version in [("stn-affine", 1), ("stn-affine", 10), ("stn-affine", 9), ("stn-tps", 2), ("draw", 1)]:
        served.add(model(name, version))
    return served


@pytest.mark.parametrize(("version", "expected"), [(None, 10), (9, 9), (1, 1)])
def test_latest_version_is_found_unless_another_is_named(version: int | None, expected: int) -> None:
    """Versions are compared as numbers: ten is later than nine."""
    assert catalogue().find("stn-affine", version, "stn").manifest.version == expected


@pytest.mark.parametrize(
    ("name", "version", "family", "match"),
    [
        ("stn-affine", 3, "stn", "stn-affine has no version 3; available: 1, 9, 10"),
        ("stn", None, "stn", "there is no stn model 'stn'; available: stn-affine, stn-tps"),
        ("draw", None, "stn", "there is no stn model 'draw'; available: stn-affine, stn-tps"),
        ("ntm-copy", None, "ntm", "there is no ntm model 'ntm-copy'; available: none"),
    ],
)
def test_what_is_not_served_is_answered_with_what_is(name: str, version: int | None, family: str, match: str) -> None:
    """The error lists the models of the family, or the versions of the model."""
    with pytest.raises(UnknownModel, match=match):
        catalogue().find(name, version, family)


def test_nothing_is_found_while_the_service_is_not_ready() -> None:
    """This includes models that are loaded: their engines may not run yet, or no longer."""
    served = catalogue()
    served.not_ready_because = "the models are being loaded"

    with pytest.raises(NotReady, match="being loaded"):
        served.find("draw", None, "draw")


def test_model_without_a_graph_says_so() -> None:
    """The error names the graph."""
    with pytest.raises(UnknownModel, match="draw version 1 has no reconstruct graph"):
        model("draw", 1).engine("reconstruct")


def test_every_version_of_every_model_is_listed() -> None:
    """Each is listed once."""
    assert sorted((found.manifest.name, found.manifest.version) for found in catalogue()) == [
        ("draw", 1), ("stn-affine", 1), ("stn-affine", 9), ("stn-affine", 10), ("stn-tps", 2),
    ]  # fmt: skip

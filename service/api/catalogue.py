"""The catalogue of served models: by name and version, each with its engines."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from export.manifest import Manifest
from service.engine.engine import Engine
from service.errors import NotReady, UnknownModel


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A loaded model, with one engine per graph."""

    manifest: Manifest
    engines: dict[str, Engine]

    def engine(self, graph: str) -> Engine:
        """Return the engine of a graph.

        Raises:
            UnknownModel: this version of the model has no such graph.
        """
        if graph not in self.engines:
            raise UnknownModel(f"{self.manifest.name} version {self.manifest.version} has no {graph} graph")
        return self.engines[graph]


@dataclass(slots=True)
class Catalogue:
    """All served models; empty until they are loaded."""

    models: dict[str, dict[int, ServedModel]] = field(default_factory=dict)
    not_ready_because: str | None = "the models are being loaded"
    """Reason that `/readyz` gives for not being ready; None once all models are served."""

    def add(self, model: ServedModel) -> None:
        """Add a model."""
        self.models.setdefault(model.manifest.name, {})[model.manifest.version] = model

    def find(self, name: str, version: int | None, family: str) -> ServedModel:
        """Return a model by name: the given version, or the latest.

        Raises:
            NotReady: the models are not loaded yet.
            UnknownModel: there is no model with this name, version and family.
        """
        if self.not_ready_because is not None:
            raise NotReady(self.not_ready_because)
        versions = self.models.get(name, {})
        found = versions.get(version if version is not None else max(versions, default=0))
        if found is not None and found.manifest.family == family:
            return found
        names = sorted(n for n, vs in self.models.items() if any(m.manifest.family == family for m in vs.values()))
        if found is None and versions:
            raise UnknownModel(f"{name} has no version {version}; available: {', '.join(map(str, sorted(versions)))}")
        raise UnknownModel(f"there is no {family} model {name!r}; available: {', '.join(names) or 'none'}")

    def __iter__(self) -> Iterator[ServedModel]:
        for versions in self.models.values():
            yield from versions.values()

    def engines(self) -> Iterator[Engine]:
        """Iterate over the engines of all models."""
        for model in self:
            yield from model.engines.values()

"""Requests to `/ntm/{task}`: an episode as a body, or a query with the sizes of a random episode."""

from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from service.errors import InvalidParameter
from service.tasks import ntm
from service.tasks.seed import MAX_SEED

Bit = Annotated[int, Field(ge=0, le=1)]
Vector = Annotated[list[Bit], Field(min_length=ntm.BITS, max_length=ntm.BITS)]
ItemVector = Annotated[list[Bit], Field(min_length=ntm.ITEM_BITS, max_length=ntm.ITEM_BITS)]
Item = Annotated[list[ItemVector], Field(min_length=ntm.ITEM_VECTORS, max_length=ntm.ITEM_VECTORS)]
Priority = Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)]


class EpisodeBody(BaseModel):
    """An episode in terms of its task. Strings and booleans are not accepted as numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    def episode(self) -> ntm.Episode:
        """Encode the episode for the machine."""
        raise NotImplementedError


class CopyBody(EpisodeBody):
    """A sequence to copy."""

    sequence: list[Vector] = Field(min_length=1, max_length=128, description="Vectors of 8 bits")

    def episode(self) -> ntm.Episode:
        """Encode the episode for the machine."""
        return ntm.copy(np.array(self.sequence, np.uint8))


class RepeatCopyBody(EpisodeBody):
    """A sequence to copy several times."""

    sequence: list[Vector] = Field(min_length=1, max_length=128, description="Vectors of 8 bits")
    repeats: int = Field(ge=1, le=32, description="Number of copies")

    def episode(self) -> ntm.Episode:
        """Encode the episode for the machine."""
        return ntm.repeat_copy(np.array(self.sequence, np.uint8), self.repeats)


class AssociativeRecallBody(EpisodeBody):
    """A list of items, and the item whose successor the machine is to recall."""

    items: list[Item] = Field(min_length=2, max_length=32, description="Items of 3 vectors of 6 bits")
    query: int = Field(
        description="Index of the queried item, from 0; must not be the last item",
        json_schema_extra={"minimum": 0, "maximum": 30},
    )

    def episode(self) -> ntm.Episode:
        """Encode the episode for the machine.

        Raises:
            InvalidParameter: `query` is not the index of an item with a successor.
        """
        if not 0 <= self.query < len(self.items) - 1:
            raise InvalidParameter(
                "query",
                f"must be a whole number in 0..{len(self.items) - 2}, so that an item follows, not {self.query}",
            )
        return ntm.associative_recall(np.array(self.items, np.uint8), self.query)


class DynamicNgramsBody(EpisodeBody):
    """A sequence of bits, each to be predicted from those before it."""

    bits: list[Bit] = Field(min_length=6, max_length=1024, description="Bits of the sequence")

    def episode(self) -> ntm.Episode:
        """Encode the episode for the machine."""
        return ntm.dynamic_ngrams(np.array(self.bits, np.uint8))


class PrioritySortBody(EpisodeBody):
    """Vectors to sort by priority, highest first. Equal priorities keep their order, but did not occur in training."""

    vectors: list[Vector] = Field(min_length=1, max_length=32, description="Vectors of 8 bits")
    priorities: list[Priority] = Field(min_length=1, max_length=32, description="One priority per vector")

    def episode(self) -> ntm.Episode:
        """Encode the episode for the machine.

        Raises:
            InvalidParameter: the numbers of priorities and vectors differ.
        """
        if len(self.priorities) != len(self.vectors):
            raise InvalidParameter(
                "priorities",
                f"must be as many as the vectors, {len(self.vectors)}, not {len(self.priorities)}",
            )
        return ntm.priority_sort(np.array(self.vectors, np.uint8), np.array(self.priorities))


class NtmQuery(BaseModel):
    """Parameters that all tasks share."""

    model_config = ConfigDict(frozen=True)

    version: int | None = Field(None, ge=1, le=1_000_000, description="Version of the model; the latest by default")
    trace: bool = Field(default=False, description="Whether to add the weightings, reads and adds of every step")
    format: Literal["json", "png", "sse"] | None = Field(
        None, description="Format of the response. By default, `Accept` selects it; otherwise it is JSON"
    )


class RandomQuery(NtmQuery):
    """The sizes of a random episode."""

    seed: int | None = Field(
        None, ge=0, le=MAX_SEED, description="Seed of the episode; random by default. The response names it"
    )

    @property
    def is_quick(self) -> bool:
        """Whether generating an episode takes less than about 100 microseconds."""
        return True

    def episode(self, seed: int) -> ntm.Episode:
        """Return the random episode that `seed` determines."""
        return self.drawn(np.random.Generator(np.random.Philox(key=seed)))

    def drawn(self, generator: np.random.Generator) -> ntm.Episode:
        """Draw a random episode of these sizes."""
        raise NotImplementedError


class RandomCopyQuery(RandomQuery):
    """Query of `GET /ntm/copy`."""

    length: int = Field(20, ge=1, le=128, description="Number of vectors in the sequence")

    def drawn(self, generator: np.random.Generator) -> ntm.Episode:
        """Draw random vectors."""
        return ntm.copy(_bits(generator, self.length, ntm.BITS))


class RandomRepeatCopyQuery(RandomQuery):
    """Query of `GET /ntm/repeat-copy`."""

    length: int = Field(10, ge=1, le=128, description="Number of vectors in the sequence")
    repeats: int = Field(10, ge=1, le=32, description="Number of copies")

    def drawn(self, generator: np.random.Generator) -> ntm.Episode:
        """Draw random vectors."""
        return ntm.repeat_copy(_bits(generator, self.length, ntm.BITS), self.repeats)


class RandomAssociativeRecallQuery(RandomQuery):
    """Query of `GET /ntm/associative-recall`."""

    items: int = Field(6, ge=2, le=32, description="Number of items")

    def drawn(self, generator: np.random.Generator) -> ntm.Episode:
        """Draw random items and a random query."""
        query = int(generator.integers(self.items - 1))
        return ntm.associative_recall(_bits(generator, self.items, ntm.ITEM_VECTORS, ntm.ITEM_BITS), query)


class RandomDynamicNgramsQuery(RandomQuery):
    """Query of `GET /ntm/dynamic-ngrams`."""

    length: int = Field(200, ge=6, le=1024, description="Number of bits in the sequence")

    @property
    def is_quick(self) -> bool:
        """Whether the sequence is short: its bits are drawn one by one, because each depends on those before it."""
        return self.length <= 200

    def drawn(self, generator: np.random.Generator) -> ntm.Episode:
        """Draw bits from a random source."""
        return ntm.dynamic_ngrams(ntm.random_ngrams(generator, self.length))


class RandomPrioritySortQuery(RandomQuery):
    """Query of `GET /ntm/priority-sort`."""

    length: int = Field(20, ge=1, le=32, description="Number of vectors to sort")

    def drawn(self, generator: np.random.Generator) -> ntm.Episode:
        """Draw random vectors and priorities."""
        priorities = generator.uniform(-1, 1, self.length)
        return ntm.priority_sort(_bits(generator, self.length, ntm.BITS), priorities)


def _bits(generator: np.random.Generator, *shape: int) -> ntm.Bits:
    return generator.integers(2, size=shape).astype(np.uint8)


TASKS: dict[str, tuple[type[EpisodeBody], type[RandomQuery]]] = {
    "copy": (CopyBody, RandomCopyQuery),
    "repeat-copy": (RepeatCopyBody, RandomRepeatCopyQuery),
    "associative-recall": (AssociativeRecallBody, RandomAssociativeRecallQuery),
    "dynamic-ngrams": (DynamicNgramsBody, RandomDynamicNgramsQuery),
    "priority-sort": (PrioritySortBody, RandomPrioritySortQuery),
}

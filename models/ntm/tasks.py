"""The five algorithmic tasks: generators of random episodes.

Section 4 of Graves, Wayne, Danihelka, "Neural Turing Machines" (2014), https://arxiv.org/abs/1410.5401.

The encodings are the models' contract with whoever calls them. There are L vectors and r repeats; items,
bits and steps are counted from 0; channels that are not named are 0; outputs matter only in the steps that
are named.

    copy                inputs  8 bits, delimiter
                        steps   L vectors | delimiter = 1 | L steps of zeros
                        outputs 8 bits: the vectors, in the last L steps
    repeat-copy         inputs  8 bits, delimiter, repeats
                        steps   L vectors | delimiter = 1, repeats = (r - 5.5) / 2.8722813 |
                                L r + 1 steps of zeros
                        outputs 8 bits, end: the vectors r times over with end = 0, then zeros with end = 1
    associative-recall  inputs  6 bits, item delimiter, query delimiter
                        steps   for each item: item delimiter = 1 | 3 vectors;
                                query delimiter = 1 | the 3 vectors of item q | query delimiter = 1 |
                                3 steps of zeros
                        outputs 6 bits: the 3 vectors of item q + 1, in the last 3 steps
    dynamic-ngrams      inputs  1 bit
                        steps   0 | bit 0 | bit 1 | ... (step t sees bit t - 1)
                        outputs 1: the logit of P(bit t = 1) in step t, for t >= 5
    priority-sort       inputs  8 bits, priority in [-1, 1], delimiter
                        steps   L vectors with their priorities | delimiter = 1 | min(L, 16) steps of zeros
                        outputs 8 bits: the vectors of highest priority, highest first, in the steps of zeros

Axes: T steps, B batch, I inputs, O outputs, L vectors, W bits of one. All sequences of a batch have the same sizes.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

BITS = 8
REPEATS_MEAN = 5.5
REPEATS_DEVIATION = 2.8722813
"""Mean and standard deviation of 1..10, the repeats that the paper trains on and training begins with."""
ITEM_BITS = 6
ITEM_VECTORS = 3
CONTEXT_BITS = 5
SORTED_VECTORS = 16


class Episodes(NamedTuple):
    """A batch of episodes, time first."""

    inputs: Float[Tensor, "T B I"]
    targets: Float[Tensor, "T B O"]
    mask: Float[Tensor, "T B 1"]
    """1 in the steps whose outputs matter."""


Bits = Callable[[torch.Generator, int, int, int], Float[Tensor, "L B W"]]
"""Makes the vectors of a batch: (generator, L vectors, B sequences, W bits a vector)."""


@dataclass(frozen=True, slots=True)
class Task:
    """A family of episodes; `sizes` are the keyword arguments of `episodes`."""

    name: str
    inputs: int
    outputs: int
    episodes: Callable[..., Episodes]
    training: Mapping[str, tuple[int, int]]
    """The smallest and the largest of each size in training."""
    evaluation: tuple[Mapping[str, int], ...]
    """Sizes to evaluate at; of some tasks far outside of the training's, too."""
    variants: Mapping[str, Callable[..., Episodes]] = field(default_factory=dict)
    """Other episodes of the same sizes, by name: training alternates between all of them."""

    def training_batch(
        self, generator: torch.Generator, batch_size: int, update: int, ranges: Mapping[str, tuple[int, int]]
    ) -> Episodes:
        """Episodes for an update, counted from 0, whose sizes are drawn from `ranges` for the whole batch."""
        sizes = {name: _draw(generator, low, high) for name, (low, high) in ranges.items()}
        kinds = (self.episodes, *self.variants.values())
        return kinds[update % len(kinds)](generator, batch_size, **sizes)


def even_bits(generator: torch.Generator, length: int, batch_size: int, width: int) -> Float[Tensor, "L B W"]:
    """Vectors as in the paper: every bit is a 1 half of the time."""
    return _bits(generator, length, batch_size, width)


def uneven_bits(generator: torch.Generator, length: int, batch_size: int, width: int) -> Float[Tensor, "L B W"]:
    """Vectors as people type them: full or empty, and often the same as the one before.

    Even bits hardly ever make a run of equal vectors, least of all of zeros, and a machine that has seen none is lost
    in one. Here every vector has a density of its own, from the arcsine law, and every sequence a probability that
    its vectors stay as they are.
    """
    density = _arcsine(generator, length, batch_size, 1)
    drawn = (_uniform(generator, length, batch_size, width) < density).float()
    stays = _uniform(generator, length, batch_size) < _uniform(generator, 1, batch_size)
    stays[0] = False
    step = torch.arange(length, device=generator.device).unsqueeze(1)
    latest = torch.where(stays, 0, step).cummax(0).values
    return drawn.take_along_dim(latest.unsqueeze(2), 0)


def copy(generator: torch.Generator, batch_size: int, *, length: int, bits: Bits = even_bits) -> Episodes:
    """Section 4.1: recall a sequence of vectors."""
    vectors = bits(generator, length, batch_size, BITS)
    inputs = _zeros(generator, 2 * length + 1, batch_size, BITS + 1)
    inputs[:length, :, :BITS] = vectors
    inputs[length, :, BITS] = 1
    return _recall(inputs, vectors)


def repeat_copy(
    generator: torch.Generator, batch_size: int, *, length: int, repeats: int, bits: Bits = even_bits
) -> Episodes:
    """Section 4.2: recall a sequence of vectors several times, then say that it is the end."""
    vectors = bits(generator, length, batch_size, BITS)
    inputs = _zeros(generator, length + 1 + length * repeats + 1, batch_size, BITS + 2)
    inputs[:length, :, :BITS] = vectors
    inputs[length, :, BITS] = 1
    inputs[length, :, BITS + 1] = (repeats - REPEATS_MEAN) / REPEATS_DEVIATION
    answer = _zeros(generator, length * repeats + 1, batch_size, BITS + 1)
    answer[:-1, :, :BITS] = vectors.repeat(repeats, 1, 1)
    answer[-1, :, BITS] = 1
    return _recall(inputs, answer)


def associative_recall(generator: torch.Generator, batch_size: int, *, items: int) -> Episodes:
    """Section 4.3: given one of the items, recall the one that followed it."""
    vectors = _bits(generator, items, ITEM_VECTORS, batch_size, ITEM_BITS)
    query = torch.randint(items - 1, (batch_size,), generator=generator, device=generator.device)
    sequence = torch.arange(batch_size, device=generator.device)
    asked = items * (ITEM_VECTORS + 1)
    inputs = _zeros(generator, asked + 2 * ITEM_VECTORS + 2, batch_size, ITEM_BITS + 2)
    shown = inputs[:asked].view(items, ITEM_VECTORS + 1, batch_size, ITEM_BITS + 2)
    shown[:, 0, :, ITEM_BITS] = 1
    shown[:, 1:, :, :ITEM_BITS] = vectors
    inputs[asked, :, ITEM_BITS + 1] = 1
    inputs[asked + 1 : asked + 1 + ITEM_VECTORS, :, :ITEM_BITS] = vectors[query, :, sequence].transpose(0, 1)
    inputs[asked + 1 + ITEM_VECTORS, :, ITEM_BITS + 1] = 1
    return _recall(inputs, vectors[query + 1, :, sequence].transpose(0, 1))


def dynamic_ngrams(generator: torch.Generator, batch_size: int, *, length: int) -> Episodes:
    """Section 4.4: predict bits, each drawn with the probability that the 5 bits before it select."""
    probabilities = _arcsine(generator, batch_size, 2**CONTEXT_BITS)
    drawn = _uniform(generator, length, batch_size, 1)
    sequence = _zeros(generator, length, batch_size, 1)
    context = torch.zeros(batch_size, 1, dtype=torch.int64, device=generator.device)
    for t in range(length):
        p = probabilities.gather(1, context) if t >= CONTEXT_BITS else 0.5
        bit = drawn[t] < p
        sequence[t] = bit
        context = (2 * context + bit) % 2**CONTEXT_BITS
    inputs = torch.cat((torch.zeros_like(sequence[:1]), sequence[:-1]))
    mask = torch.ones_like(sequence)
    mask[:CONTEXT_BITS] = 0
    return Episodes(inputs, sequence, mask)


def priority_sort(generator: torch.Generator, batch_size: int, *, length: int) -> Episodes:
    """Section 4.5: recall the vectors of highest priority in the order of their priorities."""
    unsorted = _bits(generator, length, batch_size, BITS)
    priority = 2 * _uniform(generator, length, batch_size) - 1
    recalled = min(length, SORTED_VECTORS)
    inputs = _zeros(generator, length + 1 + recalled, batch_size, BITS + 2)
    inputs[:length, :, :BITS] = unsorted
    inputs[:length, :, BITS] = priority
    inputs[length, :, BITS + 1] = 1
    order = priority.argsort(dim=0, descending=True)[:recalled]
    return _recall(inputs, unsorted.take_along_dim(order.unsqueeze(2), dim=0))


def _recall(inputs: Float[Tensor, "T B I"], answer: Float[Tensor, "S B O"]) -> Episodes:
    """Episodes that end with the steps of the answer."""
    steps, batch_size, _ = inputs.shape
    targets = inputs.new_zeros(steps, batch_size, answer.shape[2])
    mask = inputs.new_zeros(steps, batch_size, 1)
    targets[-len(answer) :] = answer
    mask[-len(answer) :] = 1
    return Episodes(inputs, targets, mask)


def _bits(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randint(2, shape, generator=generator, device=generator.device, dtype=torch.float32)


def _uniform(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device)


def _arcsine(generator: torch.Generator, *shape: int) -> Tensor:
    """Beta(1/2, 1/2), the arcsine law: the squared sine of a uniform angle."""
    return torch.sin(_uniform(generator, *shape) * (math.pi / 2)).square()


def _zeros(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.zeros(shape, device=generator.device)


def _draw(generator: torch.Generator, low: int, high: int) -> int:
    return int(torch.randint(low, high + 1, (), generator=generator, device=generator.device))


TASKS: Mapping[str, Task] = {
    task.name: task
    for task in (
        Task(
            "copy",
            inputs=BITS + 1,
            outputs=BITS,
            episodes=copy,
            training={"length": (1, 20)},
            evaluation=({"length": 20}, {"length": 50}, {"length": 120}),
            variants={"uneven": partial(copy, bits=uneven_bits)},
        ),
        Task(
            "repeat-copy",
            inputs=BITS + 2,
            outputs=BITS + 1,
            episodes=repeat_copy,
            training={"length": (1, 20), "repeats": (1, 20)},
            evaluation=(
                {"length": 10, "repeats": 10},
                {"length": 20, "repeats": 10},
                {"length": 10, "repeats": 20},
                {"length": 20, "repeats": 20},
                {"length": 10, "repeats": 32},
            ),
            variants={"uneven": partial(repeat_copy, bits=uneven_bits)},
        ),
        Task(
            "associative-recall",
            inputs=ITEM_BITS + 2,
            outputs=ITEM_BITS,
            episodes=associative_recall,
            training={"items": (2, 6)},
            evaluation=({"items": 6}, {"items": 12}, {"items": 20}),
        ),
        Task(
            "dynamic-ngrams",
            inputs=1,
            outputs=1,
            episodes=dynamic_ngrams,
            training={"length": (50, 200)},
            evaluation=({"length": 200},),
        ),
        Task(
            "priority-sort",
            inputs=BITS + 2,
            outputs=BITS,
            episodes=priority_sort,
            training={"length": (2, 20)},
            evaluation=({"length": 20},),
        ),
    )
}

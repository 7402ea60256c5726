"""The five algorithmic tasks: generators of random episodes.

Section 4 of Graves, Wayne, Danihelka, "Neural Turing Machines" (2014), https://arxiv.org/abs/1410.5401.

The encodings are the contract between the models and their callers. There are L vectors and r repeats; items,
bits and steps are counted from 0; channels not listed are 0; outputs matter only in the steps listed.

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

Axes: T steps, B batch, I inputs, O outputs, L vectors, W bits per vector. All sequences of a batch have the same sizes.
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
"""Mean of 1..10, the numbers of repeats in the paper's training and in the first updates of ours."""
REPEATS_DEVIATION = 2.8722813
"""Standard deviation of 1..10, likewise."""
ITEM_BITS = 6
ITEM_VECTORS = 3
CONTEXT_BITS = 5
SORTED_VECTORS = 16


class Episodes(NamedTuple):
    """A batch of episodes, time first."""

    inputs: Float[Tensor, "T B I"]
    targets: Float[Tensor, "T B O"]
    mask: Float[Tensor, "T B 1"]
    """Mask of the steps whose outputs matter: 1 there, 0 elsewhere."""


Bits = Callable[[torch.Generator, int, int, int], Float[Tensor, "L B W"]]
"""Function that generates the vectors of a batch: (generator, L vectors, B sequences, W bits per vector)."""


@dataclass(frozen=True, slots=True)
class Task:
    """A task: its random episodes, and their sizes in training and evaluation, keyword arguments of `episodes`."""

    name: str
    inputs: int
    outputs: int
    episodes: Callable[..., Episodes]
    training: Mapping[str, tuple[int, int]]
    """Smallest and largest value of each size in training."""
    evaluation: tuple[Mapping[str, int], ...]
    """Sizes to evaluate at; for some tasks these go far beyond the training range."""
    variants: Mapping[str, Callable[..., Episodes]] = field(default_factory=dict)
    """Alternatives to `episodes` with the same sizes, by name; training cycles through all of them."""

    def training_batch(
        self, generator: torch.Generator, batch_size: int, update: int, ranges: Mapping[str, tuple[int, int]]
    ) -> Episodes:
        """Return the batch of an update (counted from 0); its sizes are drawn once from `ranges`, bounds included."""
        sizes = {name: _draw(generator, low, high) for name, (low, high) in ranges.items()}
        kinds = (self.episodes, *self.variants.values())
        return kinds[update % len(kinds)](generator, batch_size, **sizes)


def even_bits(generator: torch.Generator, length: int, batch_size: int, width: int) -> Float[Tensor, "L B W"]:
    """Return vectors as in the paper: every bit is 1 with probability 1/2."""
    return _bits(generator, length, batch_size, width)


def uneven_bits(generator: torch.Generator, length: int, batch_size: int, width: int) -> Float[Tensor, "L B W"]:
    """Return vectors like those that people type: often all ones or all zeros, and often equal to the previous one.

    Even bits hardly ever give a run of equal vectors, least of all of zeros, and a machine that has never seen such
    runs fails on them. Here every vector has its own density of ones, from the arcsine law, and every sequence its own
    probability that a vector repeats the previous one.
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
    """Section 4.2: recall a sequence of vectors several times, then emit an end marker."""
    vectors = bits(generator, length, batch_size, BITS)
    inputs = _zeros(generator, length + 1 + length * repeats + 1, batch_size, BITS + 2)
    inputs[:length, :, :BITS] = vectors
    inputs[length, :, BITS] = 1
    inputs[length, :, BITS + 1] = (repeats - REPEATS_MEAN) / REPEATS_DEVIATION
    output = _zeros(generator, length * repeats + 1, batch_size, BITS + 1)
    output[:-1, :, :BITS] = vectors.repeat(repeats, 1, 1)
    output[-1, :, BITS] = 1
    return _recall(inputs, output)


def associative_recall(generator: torch.Generator, batch_size: int, *, items: int) -> Episodes:
    """Section 4.3: given one of the items, recall the one that followed it."""
    vectors = _bits(generator, items, ITEM_VECTORS, batch_size, ITEM_BITS)
    query = torch.randint(items - 1, (batch_size,), generator=generator, device=generator.device)
    sequence = torch.arange(batch_size, device=generator.device)
    query_at = items * (ITEM_VECTORS + 1)
    inputs = _zeros(generator, query_at + 2 * ITEM_VECTORS + 2, batch_size, ITEM_BITS + 2)
    shown = inputs[:query_at].view(items, ITEM_VECTORS + 1, batch_size, ITEM_BITS + 2)
    shown[:, 0, :, ITEM_BITS] = 1
    shown[:, 1:, :, :ITEM_BITS] = vectors
    inputs[query_at, :, ITEM_BITS + 1] = 1
    inputs[query_at + 1 : query_at + 1 + ITEM_VECTORS, :, :ITEM_BITS] = vectors[query, :, sequence].transpose(0, 1)
    inputs[query_at + 1 + ITEM_VECTORS, :, ITEM_BITS + 1] = 1
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
    """Section 4.5: recall the vectors of highest priority, highest first."""
    unsorted = _bits(generator, length, batch_size, BITS)
    priority = 2 * _uniform(generator, length, batch_size) - 1
    recalled = min(length, SORTED_VECTORS)
    inputs = _zeros(generator, length + 1 + recalled, batch_size, BITS + 2)
    inputs[:length, :, :BITS] = unsorted
    inputs[:length, :, BITS] = priority
    inputs[length, :, BITS + 1] = 1
    order = priority.argsort(dim=0, descending=True)[:recalled]
    return _recall(inputs, unsorted.take_along_dim(order.unsqueeze(2), dim=0))


def _recall(inputs: Float[Tensor, "T B I"], output: Float[Tensor, "S B O"]) -> Episodes:
    """Return episodes in whose last steps `output` is expected; only these steps matter."""
    steps, batch_size, _ = inputs.shape
    targets = inputs.new_zeros(steps, batch_size, output.shape[2])
    mask = inputs.new_zeros(steps, batch_size, 1)
    targets[-len(output) :] = output
    mask[-len(output) :] = 1
    return Episodes(inputs, targets, mask)


def _bits(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randint(2, shape, generator=generator, device=generator.device, dtype=torch.float32)


def _uniform(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device)


def _arcsine(generator: torch.Generator, *shape: int) -> Tensor:
    """Sample Beta(1/2, 1/2), the arcsine law, as the squared sine of a uniform angle."""
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

"""Memory tasks: episodes for the neural Turing machine, encoded from bits, and the evaluation of its output.

Graves, Wayne, Danihelka, "Neural Turing Machines" (2014), https://arxiv.org/abs/1410.5401, section 4. The encodings are
those used in training (`models/ntm/tasks.py`; a test compares the two).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.engine.request import Request

Floats = NDArray[np.floating]
Bits = NDArray[np.uint8]

BITS = 8
REPEATS_MEAN, REPEATS_DEVIATION = 5.5, 2.8722813
ITEM_BITS, ITEM_VECTORS = 6, 3
CONTEXT_BITS = 5
SORTED_VECTORS = 16
TRACED = ("read_weights", "write_weights", "reads", "adds")
"""Names of the graph's outputs that form a trace."""


@dataclass(frozen=True, slots=True)
class Episode:
    """The inputs to a machine and the output expected from it."""

    task: str
    inputs: NDArray[np.float32]
    """Inputs, [T I], one row per step."""
    expected: Bits
    """Expected output, [S O], 0 or 1."""
    answer_begins: int
    """Index of the step whose output is the first row of `expected`."""
    given: dict[str, Any] = field(default_factory=dict)
    """Episode as a client would send it: the fields of the task's body."""

    @property
    def steps(self) -> int:
        """Number of steps of the episode."""
        return len(self.inputs)

    def request(self, deadline: float, *, with_trace: bool) -> Request:
        """Return a request to run this episode.

        Args:
            deadline: on the engine's clock (`time.monotonic`), in seconds.
            with_trace: whether to keep the outputs that `trace` needs.
        """
        wanted = None if with_trace else frozenset({"probabilities"})
        return Request({"inputs": self.inputs[:, None]}, 1, self.steps, deadline, wanted)


def copy(sequence: Bits) -> Episode:
    """Encode the task of recalling a sequence of vectors [L 8]."""
    L = len(sequence)
    inputs = np.zeros((2 * L + 1, BITS + 1), np.float32)
    inputs[:L, :BITS] = sequence
    inputs[L, BITS] = 1
    return Episode("copy", inputs, sequence, L + 1, {"sequence": sequence})


def repeat_copy(sequence: Bits, repeats: int) -> Episode:
    """Encode the task of recalling a sequence [L 8] `repeats` times and then marking the end."""
    L = len(sequence)
    inputs = np.zeros((L + 1 + L * repeats + 1, BITS + 2), np.float32)
    inputs[:L, :BITS] = sequence
    inputs[L, BITS] = 1
    inputs[L, BITS + 1] = (repeats - REPEATS_MEAN) / REPEATS_DEVIATION
    expected = np.zeros((L * repeats + 1, BITS + 1), np.uint8)
    expected[:-1, :BITS] = np.tile(sequence, (repeats, 1))
    expected[-1, BITS] = 1
    return Episode("repeat-copy", inputs, expected, L + 1, {"sequence": sequence, "repeats": repeats})


def associative_recall(items: Bits, query: int) -> Episode:
    """Encode the task of recalling the item that follows item `query` in a list of items [K 3 6]."""
    shown = np.zeros((len(items), ITEM_VECTORS + 1, ITEM_BITS + 2), np.float32)
    shown[:, 0, ITEM_BITS] = 1
    shown[:, 1:, :ITEM_BITS] = items
    asked = np.zeros((2 * ITEM_VECTORS + 2, ITEM_BITS + 2), np.float32)
    asked[0, ITEM_BITS + 1] = 1
    asked[1 : ITEM_VECTORS + 1, :ITEM_BITS] = items[query]
    asked[ITEM_VECTORS + 1, ITEM_BITS + 1] = 1
    inputs = np.concatenate([shown.reshape(-1, ITEM_BITS + 2), asked])
    given = {"items": items, "query": query}
    return Episode("associative-recall", inputs, items[query + 1], len(inputs) - ITEM_VECTORS, given)


def dynamic_ngrams(bits: Bits) -> Episode:
    """Encode the task of predicting each bit [T] from those before it."""
    inputs = np.concatenate([[0], bits[:-1]]).astype(np.float32)[:, None]
    return Episode("dynamic-ngrams", inputs, bits[:, None], 0, {"bits": bits})


def priority_sort(vectors: Bits, priorities: Floats) -> Episode:
    """Encode the task of recalling the 16 vectors of highest priority, highest first.

    Args:
        vectors: [L 8]; all are recalled if there are fewer than 16.
        priorities: [L], -1..1.
    """
    L = len(vectors)
    recalled = min(L, SORTED_VECTORS)
    inputs = np.zeros((L + 1 + recalled, BITS + 2), np.float32)
    inputs[:L, :BITS] = vectors
    inputs[:L, BITS] = priorities
    inputs[L, BITS + 1] = 1
    order = np.argsort(-priorities, kind="stable")[:recalled]
    given = {"vectors": vectors, "priorities": priorities}
    return Episode("priority-sort", inputs, vectors[order], L + 1, given)


def random_ngrams(generator: np.random.Generator, length: int) -> Bits:
    """Draw `length` bits from a random 6-gram source.

    The probability of a 1 depends on the previous 5 bits, and is drawn from Beta(1/2, 1/2) for each of these contexts.
    """
    probabilities = generator.beta(0.5, 0.5, 2**CONTEXT_BITS).tolist()
    bits: list[int] = []
    context = 0
    for t, drawn in enumerate(generator.random(length).tolist()):
        bits.append(int(drawn < (probabilities[context] if t >= CONTEXT_BITS else 0.5)))
        context = (2 * context + bits[-1]) % 2**CONTEXT_BITS
    return np.array(bits, np.uint8)


def optimal_ngram_probabilities(bits: Bits) -> Floats:
    """Return the Bayes-optimal estimates of P(bit t is 1), [T] (equation 10).

    They are (N1 + 1/2) / (N0 + N1 + 1), where N0 and N1 count the zeros and ones seen so far in the same context.
    """
    counts = np.full((2**CONTEXT_BITS, 2), 0.5)
    probabilities = np.full(len(bits), 0.5)
    context = 0
    for t, bit in enumerate(bits.tolist()):
        if t >= CONTEXT_BITS:
            probabilities[t] = counts[context, 1] / counts[context].sum()
            counts[context, bit] += 1
        context = (2 * context + bit) % 2**CONTEXT_BITS
    return probabilities


def cost_bits(probabilities: Floats, bits: Bits) -> float:
    """Return the cost in bits of encoding the sequence after its first 5 bits with these probabilities of a 1, [T]."""
    p, b = probabilities[CONTEXT_BITS:].astype(np.float64), bits[CONTEXT_BITS:]
    spent = -np.log2(np.clip(np.where(b, p, 1 - p), 1e-12, 1))
    return float(spent.sum())


def report(episode: Episode, answered: Request) -> dict[str, Any]:
    """Return the machine's output and its errors, by the names of the JSON response."""
    probabilities = answered.outputs["probabilities"][episode.answer_begins :, 0]
    output = (probabilities > 0.5).astype(np.uint8)
    expected = episode.expected
    extra: dict[str, Any] = {}
    if episode.task == "repeat-copy":
        extra["ended"] = bool((output[:, BITS] == expected[:, BITS]).all())
        probabilities, output, expected = probabilities[:-1, :BITS], output[:-1, :BITS], expected[:-1, :BITS]
    elif episode.task == "dynamic-ngrams":
        probabilities, output, expected = probabilities[:, 0], output[:, 0], expected[:, 0]
        extra["cost_bits"] = cost_bits(probabilities, expected)
        extra["optimal_cost_bits"] = cost_bits(optimal_ngram_probabilities(expected), expected)
    errors = int(np.count_nonzero(output != expected))
    return {
        "output": output,
        "probabilities": probabilities,
        "expected": expected,
        "bit_errors": errors,
        "accuracy": 1 - errors / expected.size,
        **extra,
    }


def trace(answered: Request) -> Mapping[str, Floats]:
    """Return the machine's trace: for each name in `TRACED` one row per step, [T N], head after head."""
    outputs = {name: answered.outputs[name][:, 0] for name in TRACED}
    return {name: array.reshape(len(array), -1) for name, array in outputs.items()}

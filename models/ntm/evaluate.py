"""Measures of a neural Turing machine on its task, and the optimal estimator for the n-gram task.

Section 4 of Graves, Wayne, Danihelka, "Neural Turing Machines" (2014), https://arxiv.org/abs/1410.5401.

Axes: T steps, B batch, O outputs.
"""

import math
from collections.abc import Mapping
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from models.ntm.network import NeuralTuringMachine
from models.ntm.tasks import CONTEXT_BITS, Episodes, Task

SEED = 20_141_020
"""Seed shared by all evaluations. Training mixes its seeds (`update_generator`), so its episodes differ from these."""


def evaluate(network: NeuralTuringMachine, task: Task, *, sequences: int) -> Mapping[str, float]:
    """Return means per sequence at each of the task's evaluation sizes, and a `score` (lower is better).

    For n-grams, the mean is the cost in bits, and the score is the excess over the optimal estimator's cost on the same
    sequences, because costs differ more between sequences than between estimators. For all other tasks, means are bit
    errors, of the task's own episodes and of its variants. The score is the sum of all means, so that sizes far outside
    the training range dominate it.
    """
    device = network.initial_reads.device
    metrics: dict[str, float] = {}
    score = 0.0
    kinds = {"": task.episodes, **{f"{name}_": variant for name, variant in task.variants.items()}}
    for (prefix, kind), sizes in product(kinds.items(), task.evaluation):
        episodes = kind(torch.Generator(device).manual_seed(SEED), sequences, **sizes)
        logits = network.unroll(episodes.inputs)
        if task.name == "dynamic-ngrams":
            cost = float(cost_bits(logits, episodes).mean())
            optimal = float(cost_bits(optimal_logits(episodes.targets), episodes).mean())
            metrics |= {"cost_bits": cost, "optimal_cost_bits": optimal}
            score += cost - optimal
        else:
            errors = float(bit_errors(logits, episodes).mean())
            metrics[f"{prefix}errors_" + "_".join(f"{name}_{size}" for name, size in sizes.items())] = errors
            score += errors
    return {"score": score, **metrics}


def bit_errors(logits: Float[Tensor, "T B O"], episodes: Episodes) -> Float[Tensor, "B"]:
    """Return the number of wrong bits in each sequence; a logit above 0 means 1."""
    wrong = (logits > 0) != (episodes.targets > 0.5)
    return (wrong * episodes.mask).sum((0, 2))


def cost_bits(logits: Float[Tensor, "T B O"], episodes: Episodes) -> Float[Tensor, "B"]:
    """Return -sum log2 P(target) of each sequence."""
    nats = functional.binary_cross_entropy_with_logits(logits, episodes.targets, reduction="none")
    return (nats * episodes.mask).sum((0, 2)) / math.log(2)


def optimal_logits(bits: Float[Tensor, "T B 1"]) -> Float[Tensor, "T B 1"]:
    """Return the logits of the Bayes-optimal estimates P(bit = 1) = (N1 + 1/2) / (N0 + N1 + 1) (eq. 10).

    N0 and N1 count the zeros and ones that followed the same 5 bits earlier in the sequence. In the first 5 steps the
    estimate is 1/2. The logit is log((N1 + 1/2) / (N0 + 1/2)).
    """
    _, batch_size, _ = bits.shape
    counts = bits.new_full((batch_size, 2**CONTEXT_BITS, 2), 0.5)  # N0 + 1/2, N1 + 1/2
    sequence = torch.arange(batch_size, device=bits.device)
    context = torch.zeros(batch_size, dtype=torch.int64, device=bits.device)
    logits = []
    for t, bit in enumerate(bits.squeeze(2).long()):
        if t < CONTEXT_BITS:
            logits.append(torch.zeros_like(bits[t]))
        else:
            zeros, ones = counts[sequence, context].unbind(1)
            logits.append(torch.log(ones / zeros).unsqueeze(1))
            counts[sequence, context, bit] += 1
        context = (2 * context + bit) % 2**CONTEXT_BITS
    return torch.stack(logits)

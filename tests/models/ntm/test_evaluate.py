"""Measures: counted by hand, and the optimal n-gram estimator against its formula."""

import math

import pytest
import torch
from torch import Tensor

from models.ntm.evaluate import bit_errors, cost_bits, evaluate, optimal_logits
from models.ntm.network import Config, NeuralTuringMachine
from models.ntm.tasks import TASKS, Episodes, dynamic_ngrams


def episodes(targets: Tensor, mask: Tensor) -> Episodes:
    return Episodes(inputs=torch.zeros_like(targets), targets=targets, mask=mask)


def test_bit_errors_count_wrong_signs_where_the_mask_is_set() -> None:
    """Per sequence, a wrong bit counts once in a step that matters and not at all in another."""
    targets = torch.tensor([[[1.0, 0.0], [1.0, 1.0]], [[1.0, 0.0], [0.0, 0.0]]])
    mask = torch.tensor([[[0.0], [0.0]], [[1.0], [1.0]]])
    logits = torch.tensor([[[-1.0, 1.0], [-1.0, -1.0]], [[2.0, 3.0], [5.0, 0.1]]])

    assert bit_errors(logits, episodes(targets, mask)).tolist() == [1, 2]


def test_undecided_logits_cost_a_bit_each() -> None:
    """A probability of one half costs one bit for each output that matters."""
    targets = torch.ones(3, 2, 4)
    mask = torch.tensor([0.0, 1.0, 1.0])[:, None, None].expand(3, 2, 1)

    torch.testing.assert_close(cost_bits(torch.zeros(3, 2, 4), episodes(targets, mask)), torch.full((2,), 8.0))


def test_optimal_estimator_is_the_formula_over_counts() -> None:
    """P(1) is (N1 + 1/2) / (N0 + N1 + 1), counting what followed the same 5 bits before."""
    bits = dynamic_ngrams(torch.Generator().manual_seed(0), 3, length=120).targets

    probabilities = torch.sigmoid(optimal_logits(bits))

    for b in range(3):
        sequence = bits[:, b, 0].int().tolist()
        for t in range(5, 120):
            followed = [sequence[u] for u in range(5, t) if sequence[u - 5 : u] == sequence[t - 5 : t]]
            expected = (sum(followed) + 0.5) / (len(followed) + 1)
            assert probabilities[t, b, 0].item() == pytest.approx(expected, rel=1e-5)
    assert torch.all(probabilities[:5] == 0.5)


def test_optimal_estimator_pays_what_is_known_of_it() -> None:
    """Over 200 bits it pays about 127.9 of 195 scored bits on average (standard deviation 36)."""
    drawn = dynamic_ngrams(torch.Generator().manual_seed(0), 1000, length=200)

    mean = cost_bits(optimal_logits(drawn.targets), drawn).mean().item()

    assert mean == pytest.approx(127.9, abs=4 * 36 / math.sqrt(1000))


def test_knowing_nothing_fails_half_of_the_bits_at_every_size() -> None:
    """A machine that has learned nothing errs at chance level, and the score is the sum over sizes and kinds."""
    torch.manual_seed(0)
    task = TASKS["copy"]
    network = NeuralTuringMachine(Config(inputs=task.inputs, outputs=task.outputs, controller_size=4))

    with torch.no_grad():
        metrics = evaluate(network, task, sequences=8)

    by_length = {length: metrics[f"errors_length_{length}"] for length in (20, 50, 120)}
    for length, errors in by_length.items():
        assert errors == pytest.approx(4 * length, rel=0.15)
    uneven = {length: metrics[f"uneven_errors_length_{length}"] for length in (20, 50, 120)}
    assert uneven.keys() == by_length.keys()
    assert all(uneven[length] != errors for length, errors in by_length.items())
    assert metrics["score"] == pytest.approx(sum([*by_length.values(), *uneven.values()]))


def test_ngram_score_is_the_excess_over_the_optimal_estimator() -> None:
    """A machine whose output is always even pays 195 bits; its score is what the optimal estimator saves."""
    task = TASKS["dynamic-ngrams"]
    network = NeuralTuringMachine(Config(inputs=1, outputs=1, controller_size=4, memory_slots=4))
    with torch.no_grad():
        network.output.weight.zero_()
        network.output.bias.zero_()

        metrics = evaluate(network, task, sequences=8)

    assert metrics["cost_bits"] == pytest.approx(195, rel=1e-5)
    assert metrics["score"] == pytest.approx(metrics["cost_bits"] - metrics["optimal_cost_bits"])
    assert 0 < metrics["score"] < 195

"""Memory tasks: the encodings are those of training, and outputs are evaluated correctly."""

from collections import defaultdict
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.ntm.tasks import TASKS, Episodes
from service.engine.request import Request
from service.tasks import ntm

Bits = NDArray[np.uint8]


def bits(tensor: torch.Tensor) -> Bits:
    return tensor.numpy().astype(np.uint8)


def copied(inputs: torch.Tensor) -> ntm.Episode:
    return ntm.copy(bits(inputs[: len(inputs) // 2, :8]))


def repeated(inputs: torch.Tensor, repeats: int) -> ntm.Episode:
    length = (len(inputs) - 2) // (repeats + 1)
    return ntm.repeat_copy(bits(inputs[:length, :8]), repeats)


def recalled(inputs: torch.Tensor) -> ntm.Episode:
    shown = inputs[:-8].view(-1, 4, 8)[:, 1:, :6]
    query = int((shown == inputs[-7:-4, :6]).all(dim=2).all(dim=1).nonzero()[0])
    return ntm.associative_recall(bits(shown), query)


def predicted(inputs: torch.Tensor, targets: torch.Tensor) -> ntm.Episode:
    return ntm.dynamic_ngrams(bits(targets[:, 0]))


def sorted_(inputs: torch.Tensor, length: int) -> ntm.Episode:
    return ntm.priority_sort(bits(inputs[:length, :8]), inputs[:length, 8].double().numpy())


ENCODINGS: list[tuple[str, dict[str, int], Callable[[torch.Tensor, torch.Tensor], ntm.Episode]]] = [
    ("copy", {"length": 1}, lambda inputs, _: copied(inputs)),
    ("copy", {"length": 20}, lambda inputs, _: copied(inputs)),
    ("repeat-copy", {"length": 1, "repeats": 1}, lambda inputs, _: repeated(inputs, 1)),
    ("repeat-copy", {"length": 7, "repeats": 12}, lambda inputs, _: repeated(inputs, 12)),
    ("associative-recall", {"items": 2}, lambda inputs, _: recalled(inputs)),
    ("associative-recall", {"items": 11}, lambda inputs, _: recalled(inputs)),
    ("dynamic-ngrams", {"length": 200}, predicted),
    ("priority-sort", {"length": 5}, lambda inputs, _: sorted_(inputs, 5)),
    ("priority-sort", {"length": 20}, lambda inputs, _: sorted_(inputs, 20)),
]


@pytest.mark.parametrize(("task", "sizes", "encoded"), ENCODINGS)
def test_encoding_is_that_of_training(
    task: str, sizes: dict[str, int], encoded: Callable[[torch.Tensor, torch.Tensor], ntm.Episode]
) -> None:
    """Encoding the bits of a training episode gives exactly its inputs and its output."""
    training: Episodes = TASKS[task].episodes(torch.Generator().manual_seed(3), 1, **sizes)
    inputs, targets, mask = (tensor[:, 0] for tensor in training)

    episode = encoded(inputs, targets)

    assert episode.task == task
    np.testing.assert_array_equal(episode.inputs, inputs.numpy())
    begin = episode.answer_begins
    np.testing.assert_array_equal(episode.expected, targets[begin:].numpy())
    assert mask[max(begin, ntm.CONTEXT_BITS if task == "dynamic-ngrams" else 0) :].all()
    assert not mask[:begin].any()


def test_constants_are_those_of_training() -> None:
    """Constants that appear in both places are equal."""
    from models.ntm import tasks

    for name in (
        "BITS", "REPEATS_MEAN", "REPEATS_DEVIATION", "ITEM_BITS", "ITEM_VECTORS", "CONTEXT_BITS", "SORTED_VECTORS",
    ):  # fmt: skip
        assert getattr(ntm, name) == getattr(tasks, name)


def test_equal_priorities_keep_their_order() -> None:
    """Sorting is stable, so that the expected output is unique."""
    vectors = np.eye(8, dtype=np.uint8)[:4]

    episode = ntm.priority_sort(vectors, np.array([0.5, 0.7, 0.5, 0.7]))

    np.testing.assert_array_equal(episode.expected, vectors[[1, 3, 0, 2]])


# --- n-grams ---


def test_optimal_estimator_counts_what_followed_the_same_five_bits() -> None:
    """It equals a loop that counts the whole past anew for every bit."""
    sequence = np.random.default_rng(4).integers(2, size=300).astype(np.uint8)

    estimated = ntm.optimal_ngram_probabilities(sequence)

    for t in range(300):
        ones = zeros = 0.0
        for past in range(5, t):
            if t >= 5 and (sequence[past - 5 : past] == sequence[t - 5 : t]).all():
                ones += sequence[past]
                zeros += 1 - sequence[past]
        expected = (ones + 0.5) / (ones + zeros + 1) if t >= 5 else 0.5
        assert estimated[t] == pytest.approx(expected)


def test_cost_is_a_bit_a_bit_for_who_knows_nothing() -> None:
    """Even odds cost one bit per bit after the fifth; certainty costs nothing if right, and very much if wrong."""
    sequence = np.array([0, 1, 1, 0, 1, 1, 0, 1, 1, 1], np.uint8)

    assert ntm.cost_bits(np.full(10, 0.5), sequence) == pytest.approx(5)
    assert ntm.cost_bits(np.full(10, 0.25), sequence) == pytest.approx(4 * 2 + np.log2(4 / 3))
    assert ntm.cost_bits(sequence.astype(float), sequence) == 0
    assert 30 < ntm.cost_bits(1.0 - sequence, sequence) / 5 < 50


def test_random_source_is_as_predictable_as_its_prior() -> None:
    """Two draws of one p ~ Beta(1/2, 1/2) differ with probability 2 E[p (1 - p)] = 1/4; a fair coin's, with 1/2."""
    generator = np.random.default_rng(5)
    differences = []
    for _ in range(60):
        sequence = ntm.random_ngrams(generator, 1024).tolist()
        last: dict[tuple[int, ...], int] = {}
        visits: dict[tuple[int, ...], list[bool]] = defaultdict(list)
        for t in range(5, 1024):
            context = tuple(sequence[t - 5 : t])
            if context in last:
                visits[context].append(last[context] != sequence[t])
            last[context] = sequence[t]
        # A mean of the contexts' means, since the source visits some of them far more often than others.
        differences += [np.mean(seen) for seen in visits.values() if len(seen) >= 8]
    assert np.mean(differences) == pytest.approx(0.25, abs=0.03)


# --- answers ---


def answered(episode: ntm.Episode, probabilities: NDArray[np.float32]) -> Request:
    request = episode.request(deadline=1.0, with_trace=False)
    request.outputs["probabilities"] = probabilities[:, None]
    return request


def test_report_counts_the_bits_of_the_answer_alone() -> None:
    """Outputs before the answer begins do not count."""
    sequence = np.array([[0, 1] * 4, [1, 0] * 4, [1] * 8], np.uint8)
    episode = ntm.copy(sequence)
    probabilities = np.full((7, 8), 0.9, np.float32)
    probabilities[4:] = np.where(sequence, 0.8, 0.3)
    probabilities[5, :3] = 0.6, 0.6, 0.8  # wrong in the second bit alone

    report = ntm.report(episode, answered(episode, probabilities))

    assert report["bit_errors"] == 1
    assert report["accuracy"] == pytest.approx(1 - 1 / 24)
    np.testing.assert_array_equal(report["expected"], sequence)
    np.testing.assert_array_equal(report["probabilities"], probabilities[4:])
    assert report["output"][1].tolist() == [1, 1, 1, 0, 1, 0, 1, 0]


@pytest.mark.parametrize(
    ("markers", "ended"), [([0.1, 0.2, 0.9], True), ([0.1, 0.6, 0.9], False), ([0.1, 0.2, 0.4], False)]
)
def test_report_of_repeat_copy_says_whether_it_ended_at_the_right_step(markers: list[float], *, ended: bool) -> None:
    """The end must be marked at its step and at no other; the marker's step and channel are not in the output."""
    episode = ntm.repeat_copy(np.ones((1, 8), np.uint8), 2)
    probabilities = np.full((5, 9), 0.7, np.float32)
    probabilities[2:, 8] = markers

    report = ntm.report(episode, answered(episode, probabilities))

    assert report["ended"] is ended
    assert report["output"].shape == (2, 8)
    assert report["bit_errors"] == 0


def test_trace_has_a_row_a_step_with_the_heads_side_by_side() -> None:
    """Outputs [T 1 ...] of one or several heads become [T N], and other outputs are left out."""
    request = ntm.copy(np.ones((2, 8), np.uint8)).request(deadline=1.0, with_trace=True)
    rng = np.random.default_rng(0)
    request.outputs |= {"probabilities": rng.random((5, 1, 8))}
    request.outputs |= {name: rng.random((5, 1, heads, 3)) for heads, name in enumerate(ntm.TRACED, 1)}

    traced = ntm.trace(request)

    assert tuple(traced) == ntm.TRACED
    for heads, (name, rows) in enumerate(traced.items(), 1):
        assert rows.shape == (5, 3 * heads)
        np.testing.assert_array_equal(rows[4, -3:], request.outputs[name][4, 0, -1])


def test_request_without_a_trace_keeps_the_probabilities_alone() -> None:
    """Without a trace, the weightings are not kept."""
    episode = ntm.copy(np.ones((2, 8), np.uint8))

    assert episode.request(1.0, with_trace=False).wanted == frozenset({"probabilities"})
    assert episode.request(1.0, with_trace=True).wanted is None
    assert episode.request(1.0, with_trace=True).steps == 5

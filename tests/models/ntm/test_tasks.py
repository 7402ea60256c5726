"""Tasks: each episode, read back channel by channel as the encodings say."""

import math

import pytest
import torch

from models.ntm.tasks import (
    TASKS,
    associative_recall,
    copy,
    dynamic_ngrams,
    priority_sort,
    repeat_copy,
    uneven_bits,
)

B = 4


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_copy_shows_vectors_then_a_delimiter_then_asks_for_them(generator: torch.Generator) -> None:
    """The target is the input sequence; the input is zero while it is recalled."""
    inputs, targets, mask = copy(generator, B, length=5)

    assert inputs.shape == (11, B, 9)
    assert targets.shape == (11, B, 8)
    assert torch.equal(targets[6:], inputs[:5, :, :8])
    assert inputs[:, 0, 8].tolist() == [0] * 5 + [1] + [0] * 5
    assert not inputs[5, :, :8].any()
    assert not inputs[6:].any()
    assert mask[:, 0, 0].tolist() == [0] * 6 + [1] * 5


def test_repeat_copy_asks_for_the_vectors_several_times_and_for_an_end(generator: torch.Generator) -> None:
    """The answer is the vectors, repeated, without an end marker; then the end marker without bits."""
    inputs, targets, mask = repeat_copy(generator, B, length=3, repeats=4)

    assert inputs.shape == (3 + 1 + 12 + 1, B, 10)
    assert targets.shape == (17, B, 9)
    for repeat in range(4):
        start = 4 + 3 * repeat
        assert torch.equal(targets[start : start + 3, :, :8], inputs[:3, :, :8])
    assert targets[:, 0, 8].tolist() == [0] * 16 + [1]
    assert not targets[16, :, :8].any()
    assert inputs[:, 0, 8].tolist() == [0] * 3 + [1] + [0] * 13
    assert not inputs[4:].any()
    assert mask[:, 0, 0].tolist() == [0] * 4 + [1] * 13


def test_repeats_are_standardised_over_one_to_ten(generator: torch.Generator) -> None:
    """The channel of repeats has mean 0 and variance 1 over the repeats of training."""
    channel = torch.stack([repeat_copy(generator, B, length=2, repeats=r).inputs[2, 0, 9] for r in range(1, 11)])

    assert channel.mean().item() == pytest.approx(0, abs=1e-6)
    assert channel.square().mean().item() == pytest.approx(1, abs=1e-6)


def test_associative_recall_asks_for_the_item_after_the_query(generator: torch.Generator) -> None:
    """The queried item is one of those shown, and the answer is the next."""
    items = 4
    inputs, targets, mask = associative_recall(generator, B, items=items)

    assert inputs.shape == (4 * items + 5 + 3, B, 8)
    assert targets.shape == (24, B, 6)
    assert inputs[:, 0, 6].tolist() == [1, 0, 0, 0] * items + [0] * 8
    assert inputs[:, 0, 7].tolist() == [0] * 16 + [1, 0, 0, 0, 1] + [0] * 3
    assert mask[:, 0, 0].tolist() == [0] * 21 + [1] * 3
    assert not inputs[21:].any()
    for b in range(B):
        shown = [inputs[4 * i + 1 : 4 * i + 4, b, :6] for i in range(items)]
        asked = [i for i in range(items) if torch.equal(shown[i], inputs[17:20, b, :6])]
        assert len(asked) == 1
        assert torch.equal(targets[21:, b], shown[asked[0] + 1])


def test_associative_recall_asks_for_every_item_but_the_last() -> None:
    """Over many sequences each item that has a next one is queried."""
    inputs, _, _ = associative_recall(torch.Generator().manual_seed(0), 100, items=3)

    queried = {
        i for b in range(100) for i in range(3) if torch.equal(inputs[4 * i + 1 : 4 * i + 4, b], inputs[13:16, b])
    }

    assert queried == {0, 1}


def test_ngram_input_is_the_bit_before(generator: torch.Generator) -> None:
    """At step t the machine has seen the bits before t; the first 5 predictions are not asked for."""
    inputs, targets, mask = dynamic_ngrams(generator, B, length=20)

    assert inputs.shape == targets.shape == (20, B, 1)
    assert not inputs[0].any()
    assert torch.equal(inputs[1:], targets[:-1])
    assert set(targets.flatten().tolist()) == {0.0, 1.0}
    assert mask[:, 0, 0].tolist() == [0] * 5 + [1] * 15


def test_first_ngram_bits_are_a_fair_coins() -> None:
    """Before there are five bits there is no context: the first five are all zeros once in 32 times."""
    _, targets, _ = dynamic_ngrams(torch.Generator().manual_seed(0), 4_000, length=6)

    assert (~targets[:5].bool().any(0)).float().mean().item() == pytest.approx(1 / 32, abs=0.01)


def test_ngram_bits_follow_their_contexts_with_an_arcsine_law() -> None:
    """The share of ones after a context varies from sequence to sequence as Beta(1/2, 1/2) does."""
    _, targets, _ = dynamic_ngrams(torch.Generator().manual_seed(0), 40, length=3000)
    shares = []
    for bits in targets[:, :, 0].T.int().tolist():
        ones, total = [0] * 32, [0] * 32
        for t in range(5, len(bits)):
            context = int("".join(map(str, bits[t - 5 : t])), 2)
            ones[context] += bits[t]
            total[context] += 1
        shares += [n / m for n, m in zip(ones, total, strict=True) if m >= 30]

    assert len(shares) > 800
    # The law's distribution function is 2/pi asin(sqrt p); contexts seen often are nearly a fair sample.
    for p in (0.1, 0.5, 0.9):
        below = sum(share < p for share in shares) / len(shares)
        assert below == pytest.approx(2 / math.pi * math.asin(math.sqrt(p)), abs=0.06)


# --- vectors ---


def test_uneven_vectors_are_bits_of_every_density() -> None:
    """A fair share of the vectors is all zeros, another all ones, and half of all bits are ones."""
    vectors = uneven_bits(torch.Generator().manual_seed(0), 1, 40_000, 8)[0]
    ones = vectors.sum(1)

    assert set(vectors.flatten().tolist()) == {0.0, 1.0}
    assert vectors.mean().item() == pytest.approx(0.5, abs=0.01)
    # The density p has the arcsine law: E[(1 - p)^8] is the product of (2 i - 1) / (2 i) for i up to 8.
    empty = math.prod((2 * i - 1) / (2 * i) for i in range(1, 9))
    assert (ones == 0).float().mean().item() == pytest.approx(empty, abs=0.01)
    assert (ones == 8).float().mean().item() == pytest.approx(empty, abs=0.01)


def test_uneven_vectors_often_stay_as_they_are() -> None:
    """Some sequences never change, some change at every step, and on average half of the vectors repeat."""
    vectors = uneven_bits(torch.Generator().manual_seed(0), 20, 4_000, 32)
    stays = (vectors[1:] == vectors[:-1]).all(2)

    changes = (~stays).sum(0)
    assert (changes == 0).float().mean().item() > 0.02
    assert (changes == 19).float().mean().item() > 0.01
    # Vectors of 32 bits are equal by chance if both are empty or both are full: E[(1 - p)^32]^2, twice.
    by_chance = 2 * math.prod((2 * i - 1) / (2 * i) for i in range(1, 33)) ** 2
    assert stays.float().mean().item() == pytest.approx(0.5 + 0.5 * by_chance, abs=0.02)


@pytest.mark.parametrize("name", ["copy", "repeat-copy"])
def test_training_alternates_between_even_and_uneven_vectors(name: str) -> None:
    """Of the same sizes; the even ones are the paper's."""
    task = TASKS[name]

    even, uneven = (
        task.training_batch(torch.Generator().manual_seed(5), 64, update, task.training).inputs for update in (0, 1)
    )

    assert even.shape == uneven.shape
    length = int(even[:, 0, 8].argmax())
    assert length > 1
    standing = [
        (batch[1:length, :, :8] == batch[: length - 1, :, :8]).all(2).float().mean().item() for batch in (even, uneven)
    ]
    assert standing[0] < 0.1
    assert standing[1] > 0.3


@pytest.mark.parametrize(("length", "recalled"), [(20, 16), (16, 16), (3, 3)])
def test_priority_sort_asks_for_the_highest_first(length: int, recalled: int, generator: torch.Generator) -> None:
    """The answer is the shown vectors in the falling order of their priorities, 16 at most."""
    inputs, targets, mask = priority_sort(generator, B, length=length)

    assert inputs.shape == (length + 1 + recalled, B, 10)
    assert targets.shape == (length + 1 + recalled, B, 8)
    for b in range(B):
        shown = sorted(range(length), key=lambda i: -inputs[i, b, 8].item())
        assert torch.equal(targets[length + 1 :, b], inputs[shown[:recalled], b, :8])
    assert inputs[:length, :, 8].abs().max() <= 1
    assert inputs[:, 0, 9].tolist() == [0] * length + [1] + [0] * recalled
    assert not inputs[length, :, :9].any()
    assert not inputs[length + 1 :].any()
    assert mask[:, 0, 0].tolist() == [0] * (length + 1) + [1] * recalled


def test_priorities_are_as_often_negative_as_positive() -> None:
    """They are uniform in -1..1."""
    priorities = priority_sort(torch.Generator().manual_seed(0), 500, length=20).inputs[:20, :, 8]

    assert priorities.mean().item() == pytest.approx(0, abs=0.02)
    assert priorities.std().item() == pytest.approx(3**-0.5, abs=0.02)


@pytest.mark.parametrize("name", TASKS)
def test_training_batch_is_a_function_of_the_generator(name: str) -> None:
    """The same seed gives the same episodes, another seed others; channels are those the task declares."""
    task = TASKS[name]

    first, again, other = (
        task.training_batch(torch.Generator().manual_seed(seed), B, 0, task.training) for seed in (1, 1, 2)
    )

    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert first.inputs.shape != other.inputs.shape or not torch.equal(first.inputs, other.inputs)
    assert first.inputs.shape[1:] == (B, task.inputs)
    assert first.targets.shape[1:] == (B, task.outputs)


def test_sizes_of_batches_cover_their_whole_range() -> None:
    """Every length that is asked for, and no other."""
    generator, task = torch.Generator().manual_seed(0), TASKS["copy"]

    def lengths(low: int, high: int) -> set[int]:
        batches = (task.training_batch(generator, 1, 0, {"length": (low, high)}) for _ in range(400))
        return {(len(batch.inputs) - 1) // 2 for batch in batches}

    assert lengths(*task.training["length"]) == set(range(1, 21))
    assert lengths(3, 5) == {3, 4, 5}

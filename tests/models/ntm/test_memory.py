"""Memory: the equations of reading and writing against NumPy loops, and what exact weightings do."""

import numpy as np
import pytest
import torch
from torch import Tensor

from models.ntm.memory import read, write

B, N, M = 2, 5, 3


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def uniform(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(shape, generator=generator, dtype=torch.float64)


def one_hot(slot: int) -> Tensor:
    return torch.eye(N, dtype=torch.float64)[slot].expand(B, 1, N)


def test_read_equals_the_weighted_sum_of_slots(generator: torch.Generator) -> None:
    """Each head's vector is the sum over slots of weight times content."""
    memory, w = uniform(generator, B, N, M), uniform(generator, B, 2, N)

    found = read(memory.mT, w).numpy()

    for b in range(B):
        for head in range(2):
            expected = sum(w[b, head, i].item() * memory[b, i].numpy() for i in range(N))
            np.testing.assert_allclose(found[b, head], expected)


@pytest.mark.parametrize("heads", [1, 2])
def test_write_equals_erasing_then_adding_head_by_head(heads: int, generator: torch.Generator) -> None:
    """The memory is what a loop over heads and slots makes of it, in the order of the heads."""
    memory = uniform(generator, B, N, M)
    w, e, a = (uniform(generator, B, heads, size) for size in (N, M, M))

    found = write(memory.mT, w, e, a).mT.numpy()

    expected = memory.numpy().copy()
    for b in range(B):
        for head in range(heads):
            for i in range(N):
                erased = expected[b, i] * (1 - w[b, head, i].item() * e[b, head].numpy())
                expected[b, i] = erased + w[b, head, i].item() * a[b, head].numpy()
    np.testing.assert_allclose(found, expected)


def test_full_erase_in_one_slot_replaces_it_and_leaves_the_others(generator: torch.Generator) -> None:
    """What is written with an exact weighting and a full erase is read back; the rest is untouched."""
    memory, a = uniform(generator, B, M, N), uniform(generator, B, 1, M)

    written = write(memory, one_hot(3), torch.ones(B, 1, M, dtype=torch.float64), a)

    torch.testing.assert_close(read(written, one_hot(3)), a)
    others = [0, 1, 2, 4]
    torch.testing.assert_close(written[:, :, others], memory[:, :, others])


def test_nothing_erased_and_nothing_added_keeps_the_memory(generator: torch.Generator) -> None:
    """Zero erase and add vectors are the identity, wherever the head looks."""
    memory = uniform(generator, B, M, N)
    nothing = torch.zeros(B, 1, M, dtype=torch.float64)

    torch.testing.assert_close(write(memory, uniform(generator, B, 1, N), nothing, nothing), memory)


def test_write_leaves_its_input_as_it_was(generator: torch.Generator) -> None:
    """The memory passed in is not changed in place."""
    memory = uniform(generator, B, M, N)
    before = memory.clone()

    write(memory, *(uniform(generator, B, 1, size) for size in (N, M, M)))

    assert torch.equal(memory, before)


def test_gradients_of_write_and_read_equal_finite_differences(generator: torch.Generator) -> None:
    """The gradients with respect to memory, weightings, erase and add vectors are right."""
    inputs = [uniform(generator, B, M, N), *(uniform(generator, B, 2, size) for size in (N, M, M))]

    def written_and_read(memory: Tensor, w: Tensor, e: Tensor, a: Tensor) -> Tensor:
        return read(write(memory, w, e, a), w)

    assert torch.autograd.gradcheck(written_and_read, [part.requires_grad_() for part in inputs])

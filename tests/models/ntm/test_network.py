"""The complete machine: its step, its state, and the independence of the rows of a batch."""

import dataclasses
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from models.ntm.addressing import address
from models.ntm.network import INITIAL_MEMORY, Config, NeuralTuringMachine, State, Step

T, B = 5, 3
CONFIG = Config(inputs=4, outputs=2, controller_size=6, memory_slots=8, slot_width=3, read_heads=2, write_heads=2)


@pytest.fixture(params=[("lstm", "location"), ("lstm", "content"), ("feed-forward", "location")], ids="-".join)
def network(request: pytest.FixtureRequest) -> NeuralTuringMachine:
    torch.manual_seed(0)
    kind, addressing = request.param
    network = NeuralTuringMachine(dataclasses.replace(CONFIG, controller=kind, addressing=addressing))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter))  # no part of the state is symmetric or zero
    return network


def episode() -> Tensor:
    return torch.randn(T, B, CONFIG.inputs, generator=torch.Generator().manual_seed(1))


def steps(network: NeuralTuringMachine, inputs: Tensor) -> list[Step]:
    state = network.initial_state(inputs.shape[1])
    taken = []
    for x in inputs:
        taken.append(network(x, state))
        state = taken[-1].state
    return taken


def leaves(state: State) -> list[Tensor]:
    return [state.memory, state.weights, state.reads, *state.controller]


def test_state_keeps_its_shapes_from_step_to_step(network: NeuralTuringMachine) -> None:
    """A step's state has the shapes of the initial one, so that it can be fed back."""
    state = network.initial_state(B)

    step = network(episode()[0], state)

    assert [part.shape for part in leaves(step.state)] == [part.shape for part in leaves(state)]
    assert state.memory.shape == (B, CONFIG.slot_width, CONFIG.memory_slots)
    assert state.weights.shape == (B, CONFIG.read_heads + CONFIG.write_heads, CONFIG.memory_slots)
    assert state.reads.shape == (B, CONFIG.read_heads * CONFIG.slot_width)
    assert step.logits.shape == (B, CONFIG.outputs)
    assert step.adds.shape == (B, CONFIG.write_heads, CONFIG.slot_width)


def test_lstm_state_has_two_tensors_and_feed_forward_none() -> None:
    """The controller's part of the state is (hidden, cell) or nothing."""
    lstm = NeuralTuringMachine(CONFIG).initial_state(B)
    feed_forward = NeuralTuringMachine(dataclasses.replace(CONFIG, controller="feed-forward")).initial_state(B)

    assert [part.shape for part in lstm.controller] == [(B, CONFIG.controller_size)] * 2
    assert feed_forward.controller == ()


def test_fresh_machine_has_a_constant_memory_and_looks_at_slot_zero() -> None:
    """Before training all heads start at slot 0 of a memory whose slots are alike."""
    state = NeuralTuringMachine(CONFIG).initial_state(B)

    assert torch.all(state.memory == INITIAL_MEMORY)
    assert torch.all(state.weights[:, :, 0] > 0.9)
    torch.testing.assert_close(state.weights.sum(2), torch.ones(B, CONFIG.read_heads + CONFIG.write_heads))


def test_machine_that_addresses_by_content_starts_with_slots_that_differ() -> None:
    """With content addressing, the initial memory is learned, has no equal slots, and is the same for every row."""
    network = NeuralTuringMachine(dataclasses.replace(CONFIG, addressing="content"))
    slots = network.initial_state(B).memory.mT

    assert torch.equal(slots, network.initial_memory.expand(B, -1, -1))
    assert torch.pdist(slots[0]).min() > 0
    assert "initial_memory" in dict(network.named_parameters())
    assert "initial_memory" not in NeuralTuringMachine(CONFIG).state_dict()


@torch.no_grad()
def test_heads_of_a_fresh_machine_that_addresses_by_content_follow_their_keys() -> None:
    """Its heads go to different slots for different controller outputs; addressed by location they stay together."""
    torch.manual_seed(0)
    config = dataclasses.replace(CONFIG, controller_size=50, memory_slots=64, slot_width=20)

    def distance(addressing: Literal["location", "content"]) -> float:
        network = NeuralTuringMachine(dataclasses.replace(config, addressing=addressing))
        state = network.initial_state(2)
        focus, _, _ = network.heads(torch.randn(2, config.controller_size))
        one, other = address(focus, state.memory, state.weights)
        return float((one - other).abs().sum(1).mean()) / 2

    assert distance("content") > 0.5
    assert distance("location") < 0.3


def test_reads_are_of_the_memory_after_the_step_wrote(network: NeuralTuringMachine) -> None:
    """The step's reads are the sums of its own new memory, weighted by its read heads."""
    state = steps(network, episode())[-1].state

    read_weights = state.weights[:, : CONFIG.read_heads]
    expected = torch.einsum("brn,bmn->brm", read_weights, state.memory)

    torch.testing.assert_close(state.reads, expected.flatten(1))


def test_step_says_what_its_controller_and_its_own_reads_tell(network: NeuralTuringMachine) -> None:
    """The output sees what this step has read, the controller what the step before had."""
    before, x = steps(network, episode())[-1].state, episode()[0]
    hidden, _ = network.controller(torch.cat((x, before.reads), 1), before.controller)

    step = network(x, before)

    torch.testing.assert_close(step.logits, network.output(torch.cat((hidden, step.state.reads), 1)))


def test_first_reads_are_within_what_can_be_written(network: NeuralTuringMachine) -> None:
    """However large their parameters grow, they lie in -1..1, as add vectors do."""
    torch.nn.init.constant_(network.initial_reads, 5.0)

    reads = network.initial_state(B).reads

    assert ((reads > 0.99) & (reads <= 1)).all()


def test_step_writes_its_add_vectors_where_its_write_heads_look(network: NeuralTuringMachine) -> None:
    """The new memory is the old one, erased and added to at the write heads' weightings of this step."""
    before = steps(network, episode())[-1].state
    commands = network.heads(network.controller(torch.cat((episode()[0], before.reads), 1), before.controller)[0])

    step = network(episode()[0], before)

    kept = before.memory
    for head in range(CONFIG.write_heads):
        w = step.state.weights[:, CONFIG.read_heads + head, None]
        kept = kept * (1 - w * commands.e[:, head, :, None]) + w * step.adds[:, head, :, None]
    torch.testing.assert_close(step.state.memory, kept)


def test_unrolling_equals_stepping(network: NeuralTuringMachine) -> None:
    """The logits of a whole episode are those of its steps."""
    inputs = episode()

    logits = network.unroll(inputs)

    torch.testing.assert_close(logits, torch.stack([step.logits for step in steps(network, inputs)]))


def test_rows_of_a_batch_do_not_see_each_other(network: NeuralTuringMachine) -> None:
    """A sequence has the same outputs alone and in any row of a batch."""
    inputs = episode()
    order = [2, 0, 1]

    together = network.unroll(inputs)

    torch.testing.assert_close(network.unroll(inputs[:, order]), together[:, order])
    torch.testing.assert_close(network.unroll(inputs[:, 1:2]), together[:, 1:2])


def test_every_parameter_learns_from_an_episode(network: NeuralTuringMachine) -> None:
    """Each parameter, the initial state's too, gets a finite gradient that is not all zero."""
    network.unroll(episode()).square().sum().backward()  # type: ignore[no-untyped-call]

    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_step_does_not_change_its_inputs(network: NeuralTuringMachine) -> None:
    """The state passed in is a value: a step leaves it as it was."""
    state = steps(network, episode())[0].state
    before = [part.clone() for part in leaves(state)]

    network(episode()[1], state)

    assert all(torch.equal(now, then) for now, then in zip(leaves(state), before, strict=True))


class Flat(nn.Module):
    """The step as exporters want it: tensors in, tensors out."""

    def __init__(self, network: NeuralTuringMachine) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, *state: Tensor) -> list[Tensor]:
        memory, weights, reads, *controller = state
        step = self.network(x, State(memory, weights, reads, tuple(controller)))
        return [step.logits, step.adds, *leaves(step.state)]


def test_exported_step_takes_any_batch() -> None:
    """The graph that is captured at one batch size computes the step at another."""
    torch.manual_seed(0)
    network = NeuralTuringMachine(CONFIG).requires_grad_(requires_grad=False)
    flat = Flat(network)
    batch = torch.export.Dim("batch", min=1, max=64)
    captured_at = (
        torch.randn(2, CONFIG.inputs),
        *(part.clone() for part in leaves(network.initial_state(2))),
    )
    asked = (
        torch.randn(7, CONFIG.inputs),
        *(torch.rand_like(part) for part in leaves(network.initial_state(7))),
    )

    shapes = ({0: batch}, tuple({0: batch} for _ in captured_at[1:]))
    program = torch.export.export(flat, captured_at, dynamic_shapes=shapes)

    torch.testing.assert_close(program.module()(*asked), flat(*asked))

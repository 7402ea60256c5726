"""The modules that are exported say what the networks say."""

from collections.abc import Callable, Mapping
from typing import TypeVar

import pytest
import torch
from torch import Tensor, nn

from export import parity
from export.graphs import ExportGraph, graphs_of, inputs_for
from export.modules import GenerateGraph, RectifyGraph, to_grey_levels
from models.draw.network import Config as DrawConfig
from models.draw.network import Draw, condition
from models.draw.objective import bound
from models.ntm.network import Config as NtmConfig
from models.ntm.network import NeuralTuringMachine

Graph = Callable[[str, str], ExportGraph]
Network = TypeVar("Network", bound=nn.Module)

GRAPHS = [
    *((f"stn-{kind}", "rectify") for kind in ("affine", "projective", "tps")),
    ("draw", "generate"),
    ("draw", "reconstruct"),
    *(
        (f"ntm-{task}", "step")
        for task in ("copy", "repeat-copy", "associative-recall", "dynamic-ngrams", "priority-sort")
    ),
]


def trained(network: Network) -> Network:
    """A network of which no two parameters are alike, nor any zero."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))
    return network


def assert_same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """The same tensors under the same names."""
    torch.testing.assert_close(dict(found), dict(expected))


@pytest.mark.parametrize(("model", "name"), GRAPHS)
def test_signature_is_what_the_module_takes_and_answers(graph: Graph, model: str, name: str) -> None:
    """Names, types and shapes, with the free axes where they are said to be."""
    found = graph(model, name)
    free = {"B": 3, "T": 4}

    inputs = inputs_for(found, 4, 3, seed=0)
    answer = parity.reference(found, inputs)

    signature = found.signature
    tensors = {**{key: value.numpy() for key, value in inputs.items()}, **answer}
    specs = {**signature.all_inputs, **signature.all_outputs}
    assert tensors.keys() == specs.keys()
    for key, spec in specs.items():
        assert tensors[key].dtype == spec.dtype
        assert tensors[key].shape == tuple(axis if isinstance(axis, int) else free[axis] for axis in spec.shape)


def test_generation_in_one_segment_is_generation_step_by_step(graph: Graph) -> None:
    """One LSTM over all steps and a running sum draw what and where the network draws, and end in its state."""
    module = graph("draw", "generate").module
    assert isinstance(module, GenerateGraph)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(12, 5, module.network.config.latent_size, generator=generator)
    told = condition(torch.tensor([0, 3, 9, 10, 10]), 12)
    begin = module.network.initial_state(5)

    with torch.no_grad():
        pictures, windows, *left = module(noise, told, begin.canvas, *begin.decoder)
        expected = module.network.generate(told, noise)
        state, strokes = begin, []
        for y, z in zip(told, noise, strict=True):
            state, stroke = module.network.draw(z, y, state)
            strokes.append(torch.stack(stroke.write_window, -1))

    torch.testing.assert_close(pictures.float(), 255 * expected, atol=0.51, rtol=0)
    torch.testing.assert_close(windows, torch.stack(strokes))
    torch.testing.assert_close(left, [state.canvas, *state.decoder])


def test_reconstruction_step_by_step_is_the_networks(graph: Graph) -> None:
    """The steps' losses add up to the bound, and the last canvas is the network's."""
    found = graph("draw", "reconstruct")
    inputs = inputs_for(found, 6, 3, seed=2)
    network = found.module.network
    assert isinstance(network, Draw)

    answer = parity.reference(found, inputs)

    with torch.no_grad():
        seen = network.reconstruct(inputs["picture"], inputs["condition"], inputs["noise"])
        expected = bound(inputs["picture"], seen)
    torch.testing.assert_close(torch.from_numpy(answer["next_canvas"]), seen.canvas)
    losses = torch.from_numpy(answer["losses"])
    torch.testing.assert_close(losses[-1, :, 0], expected.reconstruction, rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(losses[:, :, 1].sum(0), expected.latent, rtol=1e-5, atol=1e-4)


def test_reconstruction_says_where_each_step_looked_and_wrote(graph: Graph) -> None:
    """The read window is the one that the state before the step chose, the write window the step's own."""
    found = graph("draw", "reconstruct")
    inputs = inputs_for(found, 4, 3, seed=2)
    network = found.module.network
    assert isinstance(network, Draw)

    answer = {name: torch.from_numpy(array) for name, array in parity.reference(found, inputs).items()}

    state = network.initial_state(3)
    with torch.no_grad():
        for step, (y, noise) in enumerate(zip(inputs["condition"], inputs["noise"], strict=True)):
            read_window = network.act(state.decoder.hidden).next_read_window
            encoder, posterior = network.look(inputs["picture"], y, state, read_window)
            z = posterior.mean + posterior.log_sigma.exp() * noise
            state, stroke = network.draw(z, y, state._replace(encoder=encoder))
            torch.testing.assert_close(answer["read_windows"][step], torch.stack(read_window, -1))
            torch.testing.assert_close(answer["write_windows"][step], torch.stack(stroke.write_window, -1))
    for part, left in (("encoder", state.encoder), ("decoder", state.decoder)):
        torch.testing.assert_close(answer[f"next_{part}_hidden"], left.hidden)
        torch.testing.assert_close(answer[f"next_{part}_cell"], left.cell)


def test_memory_step_by_step_is_the_unrolled_machine() -> None:
    """From the learned initial state, with logits as probabilities, and with what each of several heads did."""
    config = NtmConfig(
        inputs=9, outputs=8, controller_size=6, memory_slots=7, slot_width=4, read_heads=2, write_heads=3
    )
    network = trained(NeuralTuringMachine(config))
    found = graphs_of(network)["step"]
    inputs = inputs_for(found, 5, 2, seed=3)

    answer = {name: torch.from_numpy(array) for name, array in parity.reference(found, inputs).items()}

    state = network.initial_state(2)
    with torch.no_grad():
        torch.testing.assert_close(answer["probabilities"], torch.sigmoid(network.unroll(inputs["inputs"])))
        for step, x in enumerate(inputs["inputs"]):
            _, state, adds = network(x, state)
            torch.testing.assert_close(answer["read_weights"][step], state.weights[:, :2])
            torch.testing.assert_close(answer["write_weights"][step], state.weights[:, 2:])
            torch.testing.assert_close(answer["reads"][step], state.reads)
            torch.testing.assert_close(answer["adds"][step].view(2, 3, 4), adds)
    torch.testing.assert_close(answer["next_memory"], state.memory)
    torch.testing.assert_close(answer["next_weights"], state.weights)


def test_rectification_is_the_networks_in_grey_levels(graph: Graph) -> None:
    """Grey levels in, grey levels and probabilities out."""
    found = graph("stn-tps", "rectify")
    assert isinstance(found.module, RectifyGraph)
    picture = inputs_for(found, 1, 4, seed=4)["picture"]

    answer = parity.reference(found, {"picture": picture})

    with torch.no_grad():
        seen = found.module.network(picture[:, None] / 255)
    torch.testing.assert_close(
        torch.from_numpy(answer["rectified"]).float(), 255 * seen.rectified[:, 0], atol=0.51, rtol=0
    )
    torch.testing.assert_close(torch.from_numpy(answer["probabilities"]), torch.softmax(seen.logits, -1))
    torch.testing.assert_close(torch.from_numpy(answer["theta"]), seen.theta)
    torch.testing.assert_close(torch.from_numpy(answer["tone"]), seen.tone)


def test_grey_levels_round_to_the_nearest() -> None:
    """0 is black, 1 is white."""
    greys = to_grey_levels(torch.tensor([0.0, 0.4 / 255, 0.6 / 255, 254.4 / 255, 1.0]))

    assert greys.tolist() == [0, 0, 1, 254, 255]


def test_initial_state_is_a_row_of_the_networks_own(graph: Graph) -> None:
    """What the artifact says of where a sequence starts is what the network has learned."""
    for model, name in GRAPHS:
        found = graph(model, name)
        assert found.initial.keys() == {spec.name for spec in found.signature.state}
        for spec in found.signature.state:
            assert tuple(found.initial[spec.name].shape) == spec.row_shape


def test_initial_state_of_a_drawing_has_its_parts_in_their_places() -> None:
    """A sequence starts with the canvas, and with the LSTMs' states under their own names."""
    network = trained(Draw(DrawConfig(hidden_size=4, latent_size=2)))
    encoder_hidden, encoder_cell, decoder_hidden, decoder_cell = network.initial_hidden.detach()

    generate, reconstruct = (graphs_of(network)[name].initial for name in ("generate", "reconstruct"))

    canvas = network.initial_canvas.detach()
    assert_same(generate, {"canvas": canvas, "hidden": decoder_hidden, "cell": decoder_cell})
    assert_same(
        reconstruct,
        {
            "canvas": canvas,
            "encoder_hidden": encoder_hidden,
            "encoder_cell": encoder_cell,
            "decoder_hidden": decoder_hidden,
            "decoder_cell": decoder_cell,
        },
    )


def test_initial_state_of_a_machine_has_its_parts_in_their_places() -> None:
    """A sequence starts with the memory, the weightings, the last reads and the controller's state."""
    config = NtmConfig(inputs=3, outputs=2, controller_size=4, memory_slots=5, slot_width=3)
    network = trained(NeuralTuringMachine(config))

    initial = graphs_of(network)["step"].initial

    state = network.initial_state(1)
    hidden, cell = state.controller
    parts = {
        "memory": state.memory,
        "weights": state.weights,
        "last_reads": state.reads,
        "controller_0": hidden,
        "controller_1": cell,
    }
    assert_same(initial, {name: tensor[0].detach() for name, tensor in parts.items()})


def test_network_of_another_project_has_no_graphs() -> None:
    """By the name of its class."""
    with pytest.raises(TypeError, match="Linear has no graphs to export"):
        graphs_of(torch.nn.Linear(1, 1))

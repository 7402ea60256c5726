"""The modules that are exported say what the networks say."""

from collections.abc import Callable

import pytest
import torch

from export import parity
from export.graphs import ExportGraph, graphs_of, inputs_for
from export.modules import GenerateGraph, MemoryGraph, RectifyGraph, to_grey_levels
from models.draw.network import Config, Draw, condition
from models.draw.objective import bound
from models.ntm.network import NeuralTuringMachine

Graph = Callable[[str, str], ExportGraph]

GRAPHS = [
    *((f"stn-{kind}", "rectify") for kind in ("affine", "projective", "tps")),
    ("draw", "generate"),
    ("draw", "reconstruct"),
    *(
        (f"ntm-{task}", "step")
        for task in ("copy", "repeat-copy", "associative-recall", "dynamic-ngrams", "priority-sort")
    ),
]


@pytest.mark.parametrize(("model", "name"), GRAPHS)
def test_signature_is_what_the_module_takes_and_answers(graph: Graph, model: str, name: str) -> None:
    """Names, types and shapes, with the free axes where they are said to be."""
    found = graph(model, name)
    free = {"B": 3, "T": 4}

    inputs = inputs_for(found, 4, 3, seed=0)
    answer = parity.reference(found, inputs)

    signature = found.signature
    tensors = {**{key: value.numpy() for key, value in inputs.items()}, **answer}
    specs = {**signature.takes, **signature.answers}
    assert tensors.keys() == specs.keys()
    for key, spec in specs.items():
        assert tensors[key].dtype == spec.dtype
        assert tensors[key].shape == tuple(axis if isinstance(axis, int) else free[axis] for axis in spec.shape)


def test_generation_in_one_segment_is_generation_step_by_step(graph: Graph) -> None:
    """One LSTM over all steps and a running sum draw what the network draws, picture by picture."""
    module = graph("draw", "generate").module
    assert isinstance(module, GenerateGraph)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(12, 5, module.network.config.latent_size, generator=generator)
    told = condition(torch.tensor([0, 3, 9, 10, 10]), 12)
    begin = module.network.initial_state(5)

    with torch.no_grad():
        pictures, *_ = module(noise, told, begin.canvas, *begin.decoder)
        expected = module.network.generate(told, noise)

    torch.testing.assert_close(pictures.float(), 255 * expected, atol=0.51, rtol=0)


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


def test_memory_step_by_step_is_the_unrolled_machine(graph: Graph) -> None:
    """From the learned initial state, with logits as probabilities."""
    found = graph("ntm-copy", "step")
    assert isinstance(found.module, MemoryGraph)
    network = found.module.network
    assert isinstance(network, NeuralTuringMachine)
    inputs = inputs_for(found, 9, 2, seed=3)

    answer = parity.reference(found, inputs)

    with torch.no_grad():
        expected = torch.sigmoid(network.unroll(inputs["inputs"]))
    torch.testing.assert_close(torch.from_numpy(answer["probabilities"]), expected)


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
    torch.manual_seed(1)
    network = Draw(Config(hidden_size=4, latent_size=2))
    torch.nn.init.normal_(network.initial_hidden)
    initial = graphs_of(network)["generate"].initial
    torch.testing.assert_close(initial["hidden"], network.initial_hidden[2].detach())
    torch.testing.assert_close(initial["cell"], network.initial_hidden[3].detach())


def test_network_of_another_project_has_no_graphs() -> None:
    """By the name of its class."""
    with pytest.raises(TypeError, match="Linear has no graphs to export"):
        graphs_of(torch.nn.Linear(1, 1))

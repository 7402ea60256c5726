"""Controllers: the LSTM against PyTorch's own, and what a controller without a state means."""

import torch

from models.ntm.controller import FeedForwardController, LstmController

B, INPUTS, C = 3, 5, 4


def test_lstm_equals_pytorchs_cell() -> None:
    """With the same weights, in PyTorch's order of gates, two steps give what `nn.LSTMCell` gives."""
    torch.manual_seed(0)
    controller = LstmController(INPUTS, C)
    reference = torch.nn.LSTMCell(INPUTS, C)
    with torch.no_grad():
        i, f, o, candidate = controller.gates.weight.chunk(4)
        weight = torch.cat((i, f, candidate, o))
        i, f, o, candidate = controller.gates.bias.chunk(4)
        reference.weight_ih.copy_(weight[:, :INPUTS])
        reference.weight_hh.copy_(weight[:, INPUTS:])
        reference.bias_ih.copy_(torch.cat((i, f, candidate, o)))
        reference.bias_hh.zero_()
    state = expected = (torch.randn(B, C), torch.randn(B, C))

    for x in torch.randn(2, B, INPUTS):
        output, state = controller(x, state)
        expected = reference(x, expected)

    torch.testing.assert_close(state, expected)
    torch.testing.assert_close(output, expected[0])


def test_feed_forward_controller_carries_nothing() -> None:
    """The output is a function of the input alone, and the state is empty before and after."""
    torch.manual_seed(0)
    controller = FeedForwardController(INPUTS, C)
    x = torch.randn(B, INPUTS)

    output, state = controller(x, controller.initial_state(B))

    assert state == ()
    torch.testing.assert_close(output, torch.tanh(x @ controller.hidden.weight.T + controller.hidden.bias))

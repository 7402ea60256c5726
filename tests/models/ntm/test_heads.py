"""Heads: every parameter has its shape and stays in the range that its equation needs."""

import pytest
import torch

from models.ntm.addressing import SHIFTS
from models.ntm.heads import Heads

B, C, R, W, M = 2, 6, 2, 3, 4
H = R + W


@pytest.mark.parametrize("scale", [1.0, 1e6])
def test_commands_have_the_shapes_and_ranges_of_their_equations(scale: float) -> None:
    """Shapes and ranges hold for any controller output, an extreme one included."""
    torch.manual_seed(0)
    heads = Heads(C, R, W, M)

    focus, e, a = heads(scale * torch.randn(B, C))

    assert focus.k.shape == (B, H, M)
    assert e.shape == a.shape == (B, W, M)
    assert focus.beta.shape == focus.g.shape == focus.gamma.shape == (B, H, 1)
    assert focus.s.shape == (B, H, len(SHIFTS))
    assert torch.all(focus.beta > 0)
    assert torch.all((focus.g >= 0) & (focus.g <= 1))
    assert torch.all((e >= 0) & (e <= 1))
    assert torch.all(a.abs() <= 1)
    assert torch.all(focus.gamma >= 1)
    assert torch.all(focus.gamma <= 21.01)
    torch.testing.assert_close(focus.s.sum(2), torch.ones(B, H))


def test_each_output_of_the_layer_is_one_parameter() -> None:
    """Every output of the linear layer changes some parameter, and no two change the same one."""
    heads = Heads(C, R, W, M)
    with torch.no_grad():
        heads.linear.weight.zero_()

    def told(bias: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            heads.linear.bias.copy_(bias)
            focus, e, a = heads(torch.zeros(1, C))
        # A shift's logit moves the weights of all shifts; the one that grows is its own.
        return torch.cat([part.flatten() for part in (*focus, e, a)])

    outputs = heads.linear.out_features
    still = told(torch.zeros(outputs))
    grown = [(told(row) > still).nonzero().flatten().tolist() for row in torch.eye(outputs)]

    assert sorted(index for indices in grown for index in indices) == list(range(outputs))


def test_heads_that_look_for_content_ignore_where_they_were() -> None:
    """If the controller's output is 0, the key is 0, its strength is high, the gate is open and nothing is shifted."""
    heads = Heads(C, R, W, M)
    heads.look_for_content()

    focus, _, _ = heads(torch.zeros(1, C))

    assert not focus.k.any()
    assert torch.all(focus.beta > 5)
    assert torch.all(focus.g > 0.9)
    assert torch.all(focus.s[:, :, SHIFTS.index(0)] > 0.8)

"""The DRAW network: one step after the other, reconstruction and generation, with and without a class."""

import math

import pytest
import torch
from torch import nn

from models.draw.attention import read, window, write
from models.draw.network import LSTM, NO_CLASS, Config, Draw, LSTMState, State, condition
from models.draw.objective import bound

CONFIG = Config(side=10, hidden_size=12, latent_size=6, read_filters=3, write_filters=4)


def network() -> Draw:
    torch.manual_seed(0)
    return Draw(CONFIG)


def episode(steps: int = 5, batch: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pictures, condition and noise."""
    generator = torch.Generator().manual_seed(1)
    x = torch.bernoulli(torch.full((batch, 10, 10), 0.3), generator=generator)
    return x, condition(torch.arange(batch), steps), torch.randn(steps, batch, 6, generator=generator)


# --- the parts ---


def test_cell_is_an_lstm() -> None:
    """PyTorch's own cell with the same weights takes the same step."""
    torch.manual_seed(2)
    cell, reference = LSTM(5, 7), nn.LSTMCell(5, 7)
    with torch.no_grad():
        reference.weight_ih.copy_(cell.gates.weight[:, :5])
        reference.weight_hh.copy_(cell.gates.weight[:, 5:])
        reference.bias_ih.copy_(cell.gates.bias)
        reference.bias_hh.zero_()
    x, state = torch.randn(3, 5), LSTMState(torch.randn(3, 7), torch.randn(3, 7))

    for found, expected in zip(cell(x, state), reference(x, tuple(state)), strict=True):
        torch.testing.assert_close(found, expected)


def test_fresh_cell_keeps_most_of_what_it_remembers() -> None:
    """Its forget gate starts open, at the sigmoid of 1."""
    cell = LSTM(5, 7)

    _, after = cell(torch.zeros(3, 5), LSTMState(torch.zeros(3, 7), torch.full((3, 7), 1e4)))

    torch.testing.assert_close(after, torch.full((3, 7), 1e4 / (1 + math.exp(-1))), rtol=1e-3, atol=0)


def test_fresh_canvas_is_dark() -> None:
    """As most of a digit's picture is."""
    assert (torch.sigmoid(network().initial_state(2).canvas) < 0.2).all()


def test_condition_tells_the_class_and_the_time() -> None:
    """One class of eleven, the time gone from 0 to just below 1, and the pace, 1 at 8 steps."""
    told = condition(torch.tensor([3, NO_CLASS]), 16)

    assert told.shape == (16, 2, 13)
    assert told[0, 0, :11].tolist() == [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]
    assert told[9, 1, :11].tolist() == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]
    assert told[:, 1, 11].tolist() == [step / 16 for step in range(16)]
    assert (told[..., 12] == 0.5).all()


# --- steps ---


def some_state() -> State:
    """A state in which nothing is zero, and no two parts are alike."""
    generator = torch.Generator().manual_seed(3)
    hidden = [torch.randn(3, CONFIG.hidden_size, generator=generator) for _ in range(4)]
    return State(torch.randn(3, 10, 10, generator=generator), LSTMState(*hidden[:2]), LSTMState(*hidden[2:]))


def test_stroke_is_a_patch_and_a_window_to_write_and_one_to_read() -> None:
    """In this order, each window with filters of its own kind."""
    draw, hidden = network(), some_state().decoder.hidden

    stroke = draw.act(hidden)

    patch, to_write, to_read = draw.stroke(hidden).split([16, 5, 5], dim=1)
    torch.testing.assert_close(stroke.patch, patch.view(3, 4, 4))
    torch.testing.assert_close(stroke.write_window, window(to_write, 10, 4))
    torch.testing.assert_close(stroke.next_read_window, window(to_read, 10, 3))


def test_encoder_sees_the_picture_and_what_the_canvas_lacks_of_it() -> None:
    """Equations 3 to 5: it reads both and gets the decoder's hidden state; the posterior is a linear function of it."""
    draw, state = network(), some_state()
    x, y, _ = episode()
    read_window = draw.act(state.decoder.hidden).next_read_window

    encoder, posterior = draw.look(x, y[0], state, read_window)

    lacking = x - torch.sigmoid(state.canvas)
    picture, error = (read(image[:, None], read_window, 3).flatten(1) for image in (x, lacking))
    expected = draw.encoder(torch.cat([picture, error, state.decoder.hidden, y[0]], dim=1), state.encoder)
    torch.testing.assert_close(encoder, expected)
    torch.testing.assert_close(torch.cat(posterior, dim=1), draw.posterior(expected.hidden))


def test_step_adds_what_the_stroke_writes() -> None:
    """The canvas is a running sum; the encoder is not touched by drawing."""
    draw = network()
    _, y, z = episode()
    state = draw.initial_state(3)

    after, stroke = draw.draw(z[0], y[0], state)

    torch.testing.assert_close(after.canvas, state.canvas + write(stroke.patch, stroke.write_window, 10))
    assert after.encoder is state.encoder
    assert (stroke.patch.shape, stroke.next_read_window.g_x.shape) == ((3, 4, 4), (3,))


def test_generation_is_reconstruction_of_nothing() -> None:
    """Given the same z, the decoder draws the same, whether z came from a posterior or from the prior."""
    draw = network()
    x, y, noise = episode()

    seen = draw.reconstruct(x, y, noise)
    z = seen.posterior.mean + seen.posterior.log_sigma.exp() * noise

    torch.testing.assert_close(draw.generate(y, z)[-1], torch.sigmoid(seen.canvas))


def test_generation_is_a_loop_of_steps() -> None:
    """A picture a step, each the sigmoid of the canvas so far."""
    draw = network()
    _, y, z = episode()

    pictures = draw.generate(y, z)

    state = draw.initial_state(3)
    for step in range(5):
        state, _ = draw.draw(z[step], y[step], state)
        torch.testing.assert_close(pictures[step], torch.sigmoid(state.canvas))


def test_reconstruction_is_a_loop_of_steps() -> None:
    """Each step reads where the previous one decided to, and z_t is the noise, scaled by sigma, around the mean."""
    draw = network()
    x, y, noise = episode()

    seen = draw.reconstruct(x, y, noise)

    state = draw.initial_state(3)
    for step in range(5):
        encoder, posterior = draw.look(x, y[step], state, draw.act(state.decoder.hidden).next_read_window)
        torch.testing.assert_close(seen.posterior.mean[step], posterior.mean)
        torch.testing.assert_close(seen.posterior.log_sigma[step], posterior.log_sigma)
        z = posterior.mean + posterior.log_sigma.exp() * noise[step]
        state, _ = draw.draw(z, y[step], state._replace(encoder=encoder))
    torch.testing.assert_close(seen.canvas, state.canvas)


def test_later_noise_does_not_change_earlier_pictures() -> None:
    """Drawing runs forwards in time."""
    draw = network()
    _, y, z = episode()
    other = z.clone()
    other[3:] += 1

    first, second = draw.generate(y, z), draw.generate(y, other)

    assert torch.equal(first[:3], second[:3])
    assert not torch.equal(first[3], second[3])


def test_rows_of_a_batch_do_not_meet() -> None:
    """A picture is reconstructed in a batch as it is alone."""
    draw = network()
    x, y, noise = episode()

    together = draw.reconstruct(x, y, noise)

    for row in range(3):
        one = slice(row, row + 1)
        alone = draw.reconstruct(x[one], y[:, one], noise[:, one])
        torch.testing.assert_close(alone.canvas, together.canvas[one])
        torch.testing.assert_close(alone.posterior.mean, together.posterior.mean[:, one])


def test_class_changes_the_drawing() -> None:
    """The decoder depends on the class."""
    draw = network()
    _, _, z = episode()

    one, other = (draw.generate(condition(torch.full((3,), label), 5), z) for label in (1, NO_CLASS))

    assert (one - other).abs().max() > 1e-4


# --- the bound ---


@pytest.mark.parametrize("steps", [1, 8, 64])
def test_bound_of_a_fresh_network_is_finite(steps: int) -> None:
    """It is finite for any number of steps, and both of its terms are positive."""
    draw = network()
    x, y, noise = episode(steps)

    found = bound(x, draw.reconstruct(x, y, noise))

    assert found.nats.isfinite().all()
    assert (found.reconstruction > 0).all()
    assert (found.latent > 0).all()


def test_gradients_reach_every_parameter() -> None:
    """Encoder, decoder, windows, posterior and initial states; none is left out or not finite."""
    draw = network()
    x, y, noise = episode()

    bound(x, draw.reconstruct(x, y, noise)).nats.mean().backward()  # type: ignore[no-untyped-call]

    for name, parameter in draw.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_few_updates_lower_the_bound() -> None:
    """The whole network learns: it soon memorises a single picture."""
    draw = network()
    x, y, noise = episode(8)
    optimizer = torch.optim.Adam(draw.parameters(), lr=0.02)
    bounds = []
    for _ in range(30):
        loss = bound(x, draw.reconstruct(x, y, noise)).nats.mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        bounds.append(loss.item())

    assert bounds[-1] < 0.6 * bounds[0]
